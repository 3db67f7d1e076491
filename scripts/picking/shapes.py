"""Checks data read from JSON against a described shape, and names the place that does not fit.

A shape is a type, a list of one shape, a `Fields` (exactly these names), a `Map` (any names, one shape), a `Choice`, a
`Pattern`, or one of these made `Optional`. What the values mean is checked by who reads them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.picking.errors import InputError


@dataclass(frozen=True)
class Fields:
    """An object with these fields; `open` lets others be there too."""

    shapes: Mapping[str, Any]
    open: bool = False


@dataclass(frozen=True)
class Map:
    """An object with any names, whose values have one shape."""

    shape: Any


@dataclass(frozen=True)
class Choice:
    """One of these values."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class Pattern:
    """A text that matches an expression as a whole; `says` describes it."""

    expression: str
    says: str


@dataclass(frozen=True)
class Optional:
    """The shape, or null."""

    shape: Any


_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def read_json(path: Path, what: str) -> Any:
    """The content of a JSON file.

    Raises:
        InputError: it cannot be read, or is not JSON.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{what} {path} cannot be read ({error})", "Name a file that exists.") from None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{what} {path} is not JSON ({error})", "Fetch or write it again; it may be cut off."
        ) from None


def check(value: Any, shape: Any, where: str) -> None:
    """Compares a value with a shape.

    Raises:
        InputError: it does not fit; `where` and the path below it say what.
    """
    if isinstance(shape, Optional):
        if value is not None:
            check(value, shape.shape, where)
    elif isinstance(shape, Fields):
        _check_fields(value, shape, where)
    elif isinstance(shape, Map):
        _expect(isinstance(value, dict), where, value, "an object")
        for name, item in value.items():
            check(item, shape.shape, f"{where}.{name}")
    elif isinstance(shape, list):
        _expect(isinstance(value, list), where, value, "a list")
        for index, item in enumerate(value):
            check(item, shape[0], f"{where}[{index}]")
    elif isinstance(shape, Choice):
        _expect(value in shape.values, where, value, f"one of {', '.join(map(str, shape.values))}")
    elif isinstance(shape, Pattern):
        fits = isinstance(value, str) and re.fullmatch(shape.expression, value) is not None
        _expect(fits, where, value, shape.says)
    else:
        _expect(_is(value, shape), where, value, _WORDS[shape])


def _check_fields(value: Any, shape: Fields, where: str) -> None:
    _expect(isinstance(value, dict), where, value, "an object")
    missing = [name for name in shape.shapes if name not in value]
    if missing:
        raise InputError(f"{where} lacks {', '.join(missing)}", "Add what is missing.")
    unknown = [name for name in value if name not in shape.shapes]
    if unknown and not shape.open:
        raise InputError(
            f"{where} has {', '.join(unknown)}, which nothing reads", "Remove it, or correct its name."
        )
    for name, inner in shape.shapes.items():
        check(value[name], inner, f"{where}.{name}")


def _is(value: Any, kind: type) -> bool:
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    if kind is float:
        return isinstance(value, (int, float)) and math.isfinite(value)
    if kind is int:
        return isinstance(value, int) and value >= 0
    return isinstance(value, kind)


def _expect(fits: bool, where: str, value: Any, wanted: str) -> None:
    if not fits:
        shown = json.dumps(value, ensure_ascii=False, default=str)
        if len(shown) > 60:
            shown = f"{shown[:57]}..."
        raise InputError(f"{where} is {shown}, and must be {wanted}", "Correct it.")

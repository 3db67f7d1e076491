"""docs/settings.md and the code agree: every setting, its default, its limits, what it means, its option."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest

from app.asr.catalogue import MODELS_VARIABLE
from app.asr.memory import CACHE_VARIABLE
from app.serve_command import declare
from app.service.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `ASR_([A-Z_]+)`(?: `(--[a-z-]+)`)? \| (.*) \|(.*)\| (.*) \|$", re.MULTILINE)
ROWS = {name.lower(): cells for name, *cells in ROW.findall(PAGE)}
ELSEWHERE = {MODELS_VARIABLE, CACHE_VARIABLE}
# Variables that are no setting of the program: of the compose files, and of the GPU tests.
OTHERS = {"ASR_IMAGE", "ASR_GPU_REHEARSAL"}


def in_code(cell: str) -> list[str]:
    return re.findall(r"`([^`]*)`", cell)


def read(name: str, text: str) -> Any:
    """A value of the page, as the service reads it."""
    given: dict[str, Any] = {name: text}
    return getattr(Settings(**given), name)


def limits_of(name: str) -> dict[str, float]:
    metadata = Settings.model_fields[name].metadata
    return {side: getattr(rule, side) for rule in metadata for side in ("ge", "le") if hasattr(rule, side)}


def test_every_setting_has_a_row_and_every_row_is_a_setting() -> None:
    assert list(ROWS) and set(ROWS) == set(Settings.model_fields)


@pytest.mark.parametrize("name", ROWS)
def test_the_meaning_is_the_codes(name: str) -> None:
    assert ROWS[name][3] == Settings.model_fields[name].description


@pytest.mark.parametrize("name", ROWS)
def test_what_is_typed_as_default_is_the_default(name: str) -> None:
    cell, default = ROWS[name][1], Settings.model_fields[name].get_default()
    if cell == "empty":
        assert default in (None, "", ())
    else:
        assert read(name, in_code(cell)[0]) == default


@pytest.mark.parametrize("name", ROWS)
def test_what_may_be_is_what_may_be(name: str) -> None:
    shown, annotation = in_code(ROWS[name][2]), Settings.model_fields[name].annotation
    if get_origin(annotation) is Literal:
        assert tuple(shown) == get_args(annotation)
    else:
        assert [read(name, text) for text in shown] == list(limits_of(name).values())


def test_options_are_those_of_the_verb() -> None:
    verb = argparse.ArgumentParser(add_help=False)
    declare(verb)
    options = {option for action in verb._actions for option in action.option_strings}
    assert {cells[0] for cells in ROWS.values()} - {""} == options
    assert all(cells[0] in ("", "--" + name.replace("_", "-")) for name, cells in ROWS.items())


def test_the_other_variables_are_there() -> None:
    assert {name for name in ELSEWHERE if f"| `{name}` |" in PAGE} == ELSEWHERE


@pytest.mark.parametrize(
    "path", [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"], ids=lambda p: p.name
)
def test_documents_name_no_setting_that_does_not_exist(path: Path) -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields} | ELSEWHERE | OTHERS
    named = set(re.findall(rf"\b{PREFIX}[A-Z_]*[A-Z]\b", path.read_text(encoding="utf-8")))
    assert named <= known

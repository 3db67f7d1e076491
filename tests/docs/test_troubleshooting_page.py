"""docs/troubleshooting.md is headed by messages that the code really has."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
MESSAGES = re.findall(r"^### `(.+)`$", PAGE, re.MULTILINE)
HOLE = "…"


def said(node: ast.AST) -> str:
    """A string of the code as it is shown, with `HOLE` for what is filled in; empty for what is none."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(said(part) if isinstance(part, ast.Constant) else HOLE for part in node.values)
    return ""


@cache
def everything_said() -> list[str]:
    """All strings of the programs, and all lines of the shell scripts."""
    found: list[str] = []
    for folder in ("app", "scripts", "monitoring"):
        for path in (ROOT / folder).rglob("*.py"):
            found += filter(None, map(said, ast.walk(ast.parse(path.read_text(encoding="utf-8")))))
    for path in (ROOT / "scripts").glob("*.sh"):
        text = re.sub(r"\$\{?\w+\}?", HOLE, path.read_text(encoding="utf-8"))
        found += text.splitlines()
    return found


def is_said(message: str) -> bool:
    """Whether one string holds the parts between the holes, in their order."""
    words = ".*".join(re.escape(part) for part in message.removeprefix("note: ").rstrip(".").split(HOLE))
    pattern = re.compile(words, re.DOTALL)
    return any(pattern.search(text) for text in everything_said())


@pytest.mark.parametrize("message", MESSAGES)
def test_every_message_is_one_of_the_codes(message: str) -> None:
    assert is_said(message)


@pytest.mark.parametrize("message", MESSAGES)
def test_every_message_has_a_meaning_and_a_remedy(message: str) -> None:
    section = PAGE.split(f"### `{message}`\n")[1].split("\n#")[0]
    assert re.match(r"\*\*Means\*\* .+\n\*\*Do\*\* .+", section, re.DOTALL)


def test_a_message_that_nobody_says_is_noticed() -> None:
    assert len(MESSAGES) == len(set(MESSAGES)) > 30
    assert not is_said("There is no model … of that colour")

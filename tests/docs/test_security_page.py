"""docs/security.md names a test for each defence; each of them is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


@cache
def names_in(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    defined = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in tree.body if isinstance(node, defined))


def rows_of_defences(page: str) -> list[str]:
    """Rows of the tables whose last column is a test."""
    rows, within = [], False
    for line in page.splitlines():
        if not line.startswith("|"):
            within = False
        elif line.endswith("| test |"):
            within = True
        elif within and not line.startswith("|--"):
            rows.append(line)
    return rows


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMED.findall(PAGE))))
def test_every_test_on_the_page_exists(file: str, name: str) -> None:
    path = ROOT / "tests" / file
    assert path.is_file() and name in names_in(path)


@pytest.mark.parametrize("row", rows_of_defences(PAGE))
def test_every_defence_has_a_test(row: str) -> None:
    assert NAMED.search(row.rsplit("|", 2)[1])


def test_the_page_was_read() -> None:
    assert len(rows_of_defences(PAGE)) > 40
    assert rows_of_defences("| a | test |\n|---|---|\n| b | |\n\n| no | such |\n|---|---|\n| c | d |") == [
        "| b | |"
    ]

"""README.md and README.zh.md tell the same: the same commands, links, pictures, figures and parts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENGLISH, CHINESE = "README.md", "README.zh.md"


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def commands(text: str) -> list[str]:
    """Lines of the code blocks, without what a comment says of them."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [line.split(" #")[0].rstrip() for block in blocks for line in block.splitlines()]


def inline(text: str) -> Counter[str]:
    """What stands in backticks, outside of the blocks."""
    outside = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return Counter(re.findall(r"`([^`]+)`", outside))


def links(text: str) -> Counter[str]:
    """Targets of links and pictures, but for the way to the other language."""
    return Counter(
        target for target in re.findall(r"\]\(([^)]+)\)", text) if target not in {ENGLISH, CHINESE}
    )


def figures(text: str) -> Counter[str]:
    return Counter(re.findall(r"\d+(?:\.\d+)?", text))


def parts(text: str) -> list[str]:
    """Headings and tables, by their shape."""
    lines = text.splitlines()
    return [
        line.split(" ")[0] if line[0] == "#" else str(line.count("|"))
        for line in lines
        if line.startswith(("#", "|"))
    ]


@pytest.mark.parametrize("facts", [commands, inline, links, figures, parts])
def test_both_languages_have_the_same(facts: Callable[[str], object]) -> None:
    english, chinese = facts(text_of(ENGLISH)), facts(text_of(CHINESE))
    assert english and english == chinese


def test_each_leads_to_the_other() -> None:
    assert f"]({CHINESE})" in text_of(ENGLISH) and f"]({ENGLISH})" in text_of(CHINESE)

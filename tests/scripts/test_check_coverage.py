"""The gate of `make coverage`: each part by itself, branches apart from lines, and nothing measured is not enough."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts import check_coverage


def summary(lines: tuple[int, int], branches: tuple[int, int]) -> dict[str, dict[str, int]]:
    names = ("covered_lines", "num_statements", "covered_branches", "num_branches")
    return {"summary": dict(zip(names, (*lines, *branches), strict=True))}


GOOD = {
    "app/asr/a.py": summary((100, 100), (50, 60)),
    "app/asr/b.py": summary((80, 100), (40, 40)),
    "app/service/a.py": summary((0, 100), (0, 100)),
    "monitoring/a.py": summary((9, 10), (9, 10)),
    "scripts/a.py": summary((10, 10), (10, 10)),
}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, ""),
        ({"scripts/a.py": summary((10, 10), (8, 10))}, "scripts/: 80.0 % of its branches"),
        ({"monitoring/a.py": summary((89, 100), (10, 10))}, "monitoring/: 89.0 % of its lines"),
        ({"scripts/a.py": summary((0, 0), (0, 0))}, "scripts/: 0.0 % of its lines"),
    ],
)
def test_each_part_is_held_to_its_limit(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changed: dict[str, dict[str, dict[str, int]]],
    told: str,
) -> None:
    path = tmp_path / "coverage.json"
    path.write_text(json.dumps({"files": GOOD | changed}), encoding="utf-8")
    assert check_coverage.main([str(path)]) == (1 if told else 0)
    printed = capsys.readouterr()
    assert "app/asr/     branches  90.0 % (90 of 100)" in printed.out
    assert told in printed.err and bool(printed.err) == bool(told)

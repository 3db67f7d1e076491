"""The dry capacity plan of a fleet file: sums, what is not known, and files that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scripts import pick_variant
from scripts.picking import fleet
from scripts.picking.errors import InputError
from tests.support.hosts import CAPTURES, TABLE


def _write(folder: Path, hosts: list[dict[str, Any]], **more: Any) -> Path:
    file = folder / "fleet.json"
    rows = [{"name": row.get("facts", "unnamed"), **row} for row in hosts]
    for row in rows:
        if "facts" in row:
            row["facts"] = str(CAPTURES / f"{row['facts']}.json")
    file.write_text(json.dumps({"fleet_version": 1, "hosts": rows, **more}), encoding="utf-8")
    return file


def test_hours_are_the_sum_over_hosts_whose_speed_is_known(tmp_path: Path) -> None:
    made = fleet.load_fleet(_write(tmp_path, [{"facts": "cpu-2g", "count": 3}, {"facts": "t4-16g"}]), TABLE)
    known, unknown = made.rows
    assert known.hours == pytest.approx(3 * 24 * fleet.USE / 0.024) and unknown.hours is None
    assert made.capacity == known.hours and made.unknown == 1 and made.enough is None


def test_a_measured_speed_is_taken_before_the_table_s(tmp_path: Path) -> None:
    rows = [{"facts": "two-cards", "rtf": 0.01, "count": 2}, {"facts": "cpu-2g", "rtf": 0.5}]
    made = fleet.load_fleet(_write(tmp_path, rows, audio_hours_per_day=100), TABLE)
    assert made.rows[0].hours == pytest.approx(2 * 2 * 24 * fleet.USE / 0.01), (
        "two hosts of two instances each"
    )
    assert made.rows[1].hours == pytest.approx(24 * fleet.USE / 0.5)
    assert made.enough is True and made.unknown == 0


@pytest.mark.parametrize(
    ("rows", "demand", "enough"),
    [
        ([{"facts": "cpu-2g"}], 599, True),
        ([{"facts": "cpu-2g"}], 601, False),
        ([{"facts": "cpu-2g"}, {"facts": "no-avx2"}], 601, None),
        ([{"facts": "cpu-512m"}], 1, False),
        ([{"facts": "cpu-512m"}], 0, True),
    ],
)
def test_whether_it_is_enough(
    tmp_path: Path, rows: list[dict[str, Any]], demand: float, enough: bool | None
) -> None:
    made = fleet.load_fleet(_write(tmp_path, rows, audio_hours_per_day=demand), TABLE)
    assert made.enough is enough


def test_the_command_tells_it_as_text_and_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[dict[str, Any]] = [
        {"facts": name} for name in ("cpu-2g", "two-cards", "no-sse42", "driver-470")
    ]
    rows[0]["count"] = 4
    file = str(_write(tmp_path, rows, audio_hours_per_day=5000))
    assert pick_variant.main(["--fleet", file]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for words in (
        "5 x cpu",
        "Nothing can run on: no-sse42",
        "may do more: driver-470",
        "cannot be told",
        "2400 hours",
    ):
        assert words in text
    assert pick_variant.main(["--fleet", file, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["instances"] == {"cpu": 5, "cuda-fp16": 1, "cuda-fp32": 1}
    assert found["packs"] == ["fp16", "fp32", "int8"] and found["instances_of_unknown_speed"] == 3
    assert [row["verdict"] for row in found["hosts"]] == ["cpu", "gpu", "none", "cpu"]


def test_a_fleet_that_can_run_nothing_ends_with_three(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pick_variant.main(["--fleet", str(_write(tmp_path, [{"facts": "riscv"}]))]) == 3
    assert "Nothing can run on: riscv" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("hosts", "more", "problem"),
    [
        ([], {}, "names no host"),
        ([{"facts": "cpu-2g", "name": "a"}, {"facts": "cpu-1g", "name": "a"}], {}, "names a twice"),
        ([{"facts": "cpu-2g", "count": 0}], {}, "count or an rtf that is not above 0"),
        ([{"facts": "cpu-2g", "rtf": 0}], {}, "count or an rtf that is not above 0"),
        ([{"facts": "cpu-2g", "rtf": "fast"}], {}, "must be a number"),
        ([{"facts": "cpu-2g", "speed": 1}], {}, "speed, which nothing reads"),
        ([{"facts": "nowhere"}], {}, "cannot be read"),
        ([{}], {}, "lacks facts"),
        ([{"facts": "cpu-2g"}], {"audio_hours_per_day": -1}, "is below 0"),
        ([{"facts": "cpu-2g"}], {"fleet_version": 2}, "must be one of 1"),
    ],
)
def test_a_fleet_file_that_cannot_be_used_is_refused(
    tmp_path: Path, hosts: list[dict[str, Any]], more: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InputError) as raised:
        fleet.load_fleet(_write(tmp_path, hosts, **more), TABLE)
    assert problem in raised.value.problem


@pytest.mark.parametrize("content", ["", "[]", "3", '{"hosts": 3}', '{"hosts": [3], "fleet_version": 1}'])
def test_a_file_that_is_no_fleet_is_refused(
    tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "fleet.json"
    file.write_text(content, encoding="utf-8")
    assert pick_variant.main(["--fleet", str(file)]) == 2
    assert str(file) in capsys.readouterr().err

"""Tests of scripts/bench/report.py and of the choice between whole files and pieces."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from scripts.bench.contestants import Run, Task, attention_bytes, piece_seconds
from scripts.bench.report import BASE, GIB, Report, length_of

MACHINE: dict[str, Any] = {
    "date": "2026-01-02",
    "processor": "Test CPU",
    "instructions": ["avx2"],
    "cores": 2,
    "memory_gib": 16.0,
    "kernel": "6.1.0",
    "python": "3.11.0",
    "load_average_at_start": 0.1,
    "packages": {"ours": {"numpy": "2.0.0"}},
}


def one_run(name: str, seconds: int, transcribe: float, rss: int = 100 << 20) -> Run:
    return Run(name, seconds, 2, 1.0, transcribe, 1.5, rss, 40)


def report(runs: list[Run], *lengths: int, failures: dict[str, str] | None = None) -> Report:
    tasks = [Task(length, Path("a.wav"), 2, 8 * GIB) for length in lengths]
    return Report(MACHINE, tasks, runs, "some model", 3, failures or {})


def test_ratios_are_of_medians_and_memory_is_the_highest() -> None:
    runs = [one_run(BASE, 10, time) for time in (2.0, 4.0, 90.0)]
    runs += [
        one_run("ours", 10, time, rss) for time, rss in ((1.0, 50 << 20), (1.0, 60 << 20), (9.0, 50 << 20))
    ]
    row = next(line for line in report(runs, 10).lines() if line.startswith("| ours"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == ["ours", "1.0", "1.00", "0.1000", "0.25", "1.5", "60", "0.60", "0.00600"]


def test_without_automodel_there_are_no_ratios_to_it() -> None:
    row = next(line for line in report([one_run("ours", 10, 1.0)], 10).lines() if line.startswith("| ours"))
    assert [cell.strip() for cell in row.strip("|").split("|")][4] == "-"


def test_lengths_do_not_mix() -> None:
    made = report([one_run("a", 10, 1.0), one_run("a", 60, 30.0)], 10, 60)
    assert [run.transcribe_seconds for run in made.medians(made.tasks[1])] == [30.0]


def test_numbers_of_threads_do_not_mix_and_a_core_costs_the_same_whether_busy_or_not() -> None:
    tasks = [Task(10, Path("a.wav"), threads, 8 * GIB) for threads in (2, 1)]
    runs = [one_run("a", 10, 1.0), dataclasses.replace(one_run("a", 10, 3.0), threads=1)]
    lines = Report(MACHINE, tasks, runs, "some model", 3, {}).lines()
    assert [line for line in lines if line.startswith("## ")] == [
        "## 10 s of audio, 2 threads",
        "## 10 s of audio, one thread",
    ]
    costs = [float(line.strip("| ").split(" | ")[-1]) for line in lines if line.startswith("| a |")]
    assert costs == [0.006, 0.009]


def test_what_did_not_run_is_said() -> None:
    lines = report([one_run("a", 10, 1.0)], 10, failures={"b, 10 s": "no luck"}).lines()
    assert "- b, 10 s: no luck" in lines


def test_files_are_written_and_hold_every_run(tmp_path: Path) -> None:
    report([one_run("a", 10, 1.0), one_run("a", 10, 2.0)], 10).write(tmp_path, "cpu")
    raw = json.loads((tmp_path / "cpu.json").read_text(encoding="utf-8"))
    assert [run["transcribe_seconds"] for run in raw["runs"]] == [1.0, 2.0]
    assert (tmp_path / "cpu.md").read_text(encoding="utf-8").startswith("# CPU benchmark")


@pytest.mark.parametrize(("seconds", "pieces"), [(60, 0), (300, 0), (3600, 30)])
def test_peers_get_pieces_only_where_the_whole_does_not_fit(seconds: int, pieces: int) -> None:
    assert piece_seconds(Task(seconds, Path("a.wav"), 2, 8 * GIB)) == pieces


def test_attention_of_an_hour_is_predicted() -> None:
    assert attention_bytes(3600) == 64 * 60_000**2


@pytest.mark.parametrize(("seconds", "text"), [(10, "10 s"), (3600, "1 h"), (36000, "10 h"), (90, "90 s")])
def test_lengths_are_written_for_people(seconds: int, text: str) -> None:
    assert length_of(seconds) == text

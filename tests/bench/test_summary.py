"""Tests of app/bench/summary.py: medians, ratios, what counts as stable, and the distance of texts."""

from __future__ import annotations

import random

import pytest

from app.bench.measure import Run
from app.bench.settings import SETTINGS
from app.bench.summary import Row, distance, ratio, summarise
from tests.support.matrix import MIB, SOURCE, bad, good


def rows(*runs: list[Run]) -> list[Row]:
    taken = SETTINGS[: len(runs)]
    by_key = {setting.key: made for setting, made in zip(taken, runs, strict=True)}
    return summarise(taken, by_key, SOURCE)


def test_time_is_the_median_and_memory_the_worst() -> None:
    (row,) = rows([good(rtf=0.3, peak=90), good(rtf=0.1, peak=120), good(rtf=0.11, peak=100)])
    assert row.seconds_per_minute == pytest.approx(6.6)
    assert row.fastest == pytest.approx(6.0) and row.slowest == pytest.approx(18.0)
    assert row.peak_bytes == 120 * MIB
    assert row.whole_seconds == pytest.approx(1.1)
    assert (row.verdict, row.stable, row.stability) == ("measured", True, "yes")


def test_memory_is_the_kernels_where_that_is_more() -> None:
    run = good(peak=100)
    assert run.result is not None
    (row,) = rows([Run(0, 1.0, 130 * MIB, run.result)])
    assert row.peak_bytes == 130 * MIB
    assert row.stability == "yes (one run)"


def test_rows_are_compared_with_the_first() -> None:
    first, second = rows([good("今天开会", 0.1, 100)], [good("今天下会吧", 0.05, 150)])
    assert (first.memory_ratio, first.time_ratio, first.changed) == (1.0, 1.0, 0)
    assert second.memory_ratio == pytest.approx(1.5) and second.time_ratio == pytest.approx(0.5)
    assert second.changed == 2


def test_without_a_first_row_nothing_is_compared() -> None:
    first, second = rows([bad()], [good()])
    assert first.verdict == "impossible"
    assert (second.memory_ratio, second.time_ratio, second.changed) == (None, None, None)
    assert second.seconds_per_minute is not None


def test_one_failure_makes_it_unstable() -> None:
    (row,) = rows([good(), bad(-9, "ended by SIGKILL"), good()])
    assert (row.verdict, row.stable, row.stability) == ("measured", False, "no: 1 of 3 runs failed")
    assert row.reason == "ended by SIGKILL"


def test_another_text_makes_it_unstable() -> None:
    (row,) = rows([good("今天"), good("今天"), good("昨天")])
    assert (row.stable, row.stability) == (False, "no: 2 different texts in 3 runs")


@pytest.mark.parametrize(
    "run",
    [
        bad(-9, "ended by SIGKILL"),
        bad(2, f"{SOURCE}: The memory does not suffice."),
        bad(2, "internal error (TypeError); please report this:"),
        bad(1, "ModuleNotFoundError: No module named 'numpy'", told=False),
        bad(0, "the result is not the JSON that was asked for"),
    ],
)
def test_always_failing_is_not_the_same_as_impossible(run: Run) -> None:
    (row,) = rows([run, run])
    assert (row.verdict, row.stable, row.stability) == ("failed", False, "no: 2 of 2 runs failed")
    assert row.reason == run.reason and row.seconds_per_minute is None


@pytest.mark.parametrize("code", [1, 2])
def test_what_the_program_refuses_is_impossible(code: int) -> None:
    (row,) = rows([bad(code)])
    assert (row.verdict, row.stability) == ("impossible", "not possible here")
    assert row.reason == "The model demo has no fp32 pack"


def test_the_memory_of_gpus_is_the_worst_too() -> None:
    (row,) = rows([good(gpu=500), good(gpu=700)])
    assert row.device_bytes == 700 * MIB


@pytest.mark.parametrize(
    ("value", "base", "expected"), [(3.0, 2.0, 1.5), (3.0, 0.0, None), (None, 2.0, None), (3.0, None, None)]
)
def test_ratio(value: float | None, base: float | None, expected: float | None) -> None:
    assert ratio(value, base) == expected


def by_the_book(left: str, right: str) -> int:
    above = list(range(len(right) + 1))
    for row, a in enumerate(left, start=1):
        line = [row]
        for column, b in enumerate(right, start=1):
            line.append(min(above[column] + 1, line[-1] + 1, above[column - 1] + (a != b)))
        above = line
    return above[-1]


def test_distance_is_that_of_the_book() -> None:
    draw = random.Random(7)
    for _ in range(400):
        left = "".join(draw.choices("今天abc", k=draw.randrange(0, 80)))
        right = "".join(draw.choices("今天abd", k=draw.randrange(0, 80)))
        assert distance(left, right) == by_the_book(left, right), (left, right)


def test_distance_of_long_texts() -> None:
    text = "".join(random.Random(1).choices([chr(code) for code in range(0x4E00, 0x4F00)], k=3000))
    assert distance(text, text) == 0
    assert distance(text, text[:1000] + "x" + text[1001:2000] + text[2002:]) == 3
    assert distance(text, "") == distance("", text) == 3000

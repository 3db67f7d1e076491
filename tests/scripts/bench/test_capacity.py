"""The comparison of the capacity model with the service, from times that nobody measured."""

from __future__ import annotations

import math

import pytest

from scripts.bench.capacity import RULES, Pace, Pair, Round, Spread, between, compared, fitted, page
from scripts.bench.measure import BenchError
from scripts.picking.load import Files
from scripts.picking.simulation import Server, simulate

MACHINE = {"date": "2026-01-01", "processor": "Toy", "cores": 2, "load_average_at_start": 0.5}
FILES = Files((10.0, 60.0), (1.0, 1.0))
ALONE = {10: 0.2, 60: 0.7}  # 0.1 s a file and 0.01 s a second


def test_the_instance_is_fitted_to_times_alone_and_to_the_most() -> None:
    exact = fitted(Pace(ALONE, 1 / 0.45), FILES)
    assert (exact.rtf, exact.per_file) == pytest.approx((0.01, 0.1))
    overlapping = fitted(Pace(ALONE, 2 / 0.45), FILES)
    assert (overlapping.rtf, overlapping.per_file) == pytest.approx((0.005, 0.05))
    assert fitted(Pace({10: 0.01, 60: 0.7}, 1.0), FILES).per_file == 0.0, (
        "noise may bend the line below nothing"
    )


def test_what_was_measured_before_and_after_counts_alike() -> None:
    assert between(Pace({10: 0.25}, 3.0), Pace({10: 0.75}, 5.0)) == Pace({10: 0.5}, 4.0)


def test_a_service_like_the_simulated_one_has_its_waits() -> None:
    server = Server(0.01, 0.1)
    arrivals = [(0.0, 60.0), (0.1, 10.0), (0.2, 60.0), (5.0, 10.0)]
    answers = list(simulate([server], arrivals, RULES).answers)
    wait, answer = compared(arrivals, answers, Pace(ALONE, 1.0), server)
    assert wait.measured.mean == pytest.approx(wait.simulated.mean) and wait.simulated.mean > 0
    assert answer.measured.p95 == pytest.approx(answer.simulated.p95)


def test_what_failed_is_in_neither() -> None:
    arrivals = [(0.0, 60.0), (100.0, 10.0)]
    _, answer = compared(arrivals, [math.inf, 0.25], Pace(ALONE, 1.0), Server(0.01, 0.1))
    assert answer.measured.mean == 0.25 and answer.simulated.mean == pytest.approx(0.2)
    with pytest.raises(BenchError, match="Every file failed"):
        compared(arrivals, [math.inf, math.inf], Pace(ALONE, 1.0), Server(0.01, 0.1))


def test_the_page_tells_ratios_and_what_else_ran() -> None:
    wait, answer = Pair(Spread(0.3, 1.0), Spread(0.2, 0.0)), Pair(Spread(0.6, 2.0), Spread(0.5, 1.0))
    rounds = [Round(0.5, 90, 1, Server(0.01, 0.1), wait, answer, 0.25, 3.5)]
    paces = [Pace(ALONE, 2.0), Pace(ALONE, 2.5)]
    text = page("toy", MACHINE, FILES, paces, rounds)
    assert "| 1 | 50% | wait, mean | 0.300 | 0.200 | 1.50 |" in text
    assert "| 1 | 50% | wait, 95 % within | 1.000 | 0.000 | inf |" in text
    assert "| 1 | 50% | answer, mean | 0.600 | 0.500 | 1.20 |" in text
    assert "| before round 1 | 0.200 s | 0.700 s | 2.00 |" in text and "| after round 1 |" in text
    assert "90 files, 1 failed; other programs took 25% of the processors, load average 3.5" in text

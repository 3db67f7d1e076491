"""The comparison of the capacity model with the service, from times that nobody measured."""

from __future__ import annotations

import math

import pytest

from scripts.bench.capacity import (
    RULES,
    Pace,
    Round,
    between,
    compared,
    fitted,
    page,
    scale_meanwhile,
)
from scripts.bench.measure import BenchError
from scripts.picking.load import Files
from scripts.picking.simulation import Server, simulate

MACHINE = {"date": "2026-01-01", "processor": "Toy", "cores": 2, "load_average_at_start": 0.5}
FILES = Files((10.0, 60.0), (1.0, 1.0))
ALONE = {10: 0.2, 60: 0.7}  # 0.1 s a file and 0.01 s a second
PACE = Pace(ALONE, 1 / 0.45)
SENT = [(0.0, 60.0), (0.1, 10.0), (0.2, 60.0), (5.0, 10.0)]


def round_of(server: Server) -> Round:
    """Of a service that is just like a simulated instance."""
    answers = simulate([server], SENT, RULES).answers
    trace = [(moment, audio, answer) for (moment, audio), answer in zip(SENT, answers, strict=True)]
    return compared(0.5, trace, PACE, FILES, (0.25, 3.5))


def test_the_instance_is_fitted_to_times_alone() -> None:
    exact, overlapping = fitted(ALONE, 1.0), fitted(ALONE, 0.5)
    assert (exact.rtf, exact.per_file) == pytest.approx((0.01, 0.1))
    assert (overlapping.rtf, overlapping.per_file) == pytest.approx((0.005, 0.05))
    assert fitted({10: 0.01, 60: 0.7}, 1.0).per_file == 0.0, "noise may bend the line below nothing"


def test_what_was_measured_before_and_after_counts_alike() -> None:
    assert between(Pace({10: 0.25}, 3.0), Pace({10: 0.75}, 5.0)) == Pace({10: 0.5}, 4.0)


def test_the_speed_of_a_round_is_the_time_that_anything_was_there_over_the_work() -> None:
    trace = [(0.0, 60.0, 1.0), (0.5, 10.0, 0.2), (0.6, 10.0, math.inf), (3.0, 60.0, 2.2)]
    assert scale_meanwhile(trace, ALONE) == pytest.approx((1.0 + 2.2) / (0.7 + 0.2 + 0.7))


def test_a_service_like_the_simulated_one_has_its_waits() -> None:
    found = round_of(Server(0.01, 0.1))
    assert found.foretold.rtf == pytest.approx(0.01) and found.meanwhile.rtf == pytest.approx(0.01)
    for one in (found.wait, found.answer):
        for simulated in (one.foretold, one.meanwhile):
            assert simulated.mean == pytest.approx(one.measured.mean) and simulated.mean > 0
            assert simulated.p95 == pytest.approx(one.measured.p95)


def test_a_service_that_was_slower_meanwhile_shows_in_one_of_them() -> None:
    found = round_of(Server(0.02, 0.2))
    assert found.wait.foretold == round_of(Server(0.01, 0.1)).wait.foretold
    assert found.meanwhile.rtf == pytest.approx(0.02)
    assert found.wait.meanwhile.mean > 1.5 * found.wait.foretold.mean
    assert "meanwhile each took 2.00 times as long" in page("toy", MACHINE, FILES, [PACE], [found])


def test_what_failed_is_not_counted() -> None:
    found = compared(0.5, [(0.0, 60.0, math.inf), (100.0, 10.0, 0.25)], PACE, FILES, (0.0, 0.0))
    assert found.failures == 1
    assert found.answer.measured.mean == 0.25 and found.answer.foretold.mean == pytest.approx(0.2)
    with pytest.raises(BenchError, match="Every file failed"):
        compared(0.5, [(0.0, 60.0, math.inf)], PACE, FILES, (0.0, 0.0))


def test_the_page_tells_ratios_and_what_else_ran() -> None:
    found = round_of(Server(0.01, 0.1))
    text = page("toy", MACHINE, FILES, [PACE, Pace(ALONE, 2.5)], [found])
    mean = f"{found.answer.measured.mean:.3f}"
    assert f"| 1 | 50% | answer, mean | {mean} | {mean} | 1.00 | {mean} | 1.00 |" in text
    assert "| before round 1 | 0.200 s | 0.700 s | 2.22 |" in text and "| after round 1 |" in text
    assert "4 files, 0 failed; other programs took 25% of the processors, load average 3.5" in text

"""A short campaign of random faults against a real service; `make chaos` plays longer ones."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.campaign import run

SEED, SECONDS = 8, 60.0


def test_nothing_is_lost_doubled_or_changed_by_random_faults(tmp_path: Path) -> None:
    outcome = run(tmp_path, SEED, SECONDS)
    assert outcome.violations == []
    assert outcome.counts["jobs accepted"] >= 1
    assert outcome.counts["plain texts right"] >= 1
    assert sum(outcome.faults.values()) >= 3

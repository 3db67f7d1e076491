"""Ages of jobs are real ones: a clock that is set, forwards or back, makes no job old."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.service.clock import SETTLE_SECONDS, Clock
from app.service.job_store import JobStore
from tests.fakes.clock import FakeClock
from tests.service.test_job_store import accepted, done

DAY, YEAR = 24 * 3600.0, 365 * 24 * 3600.0
KEEP = 7 * DAY


def ended(store: JobStore) -> str:
    job = accepted(store)
    assert store.ask_to_cancel(job.id)
    return job.id


def sweeps(store: JobStore, clock: FakeClock, seconds: float) -> int:
    """As the runner does it, every minute (every hour where days pass); returns how many jobs were forgotten."""
    pause = 60.0 if seconds < DAY else 3600.0
    forgotten = 0
    for _ in range(int(seconds / pause)):
        clock.goes(pause)
        forgotten += store.sweep(KEEP, 1 << 40)
    return forgotten


@pytest.mark.parametrize("step", [YEAR, 56 * YEAR, 8 * DAY])
def test_a_clock_that_steps_far_ahead_forgets_no_job_that_has_just_ended(tmp_path: Path, step: float) -> None:
    """A host without a battery for its clock, which finds a time server some time after its start."""
    clock = FakeClock(wall=1000.0)
    store = JobStore(tmp_path / "jobs", clock=clock)
    job = ended(store)
    sweeps(store, clock, 600)
    clock.is_set(step)
    after = ended(store)  # before anybody has looked at the clock
    assert sweeps(store, clock, 6 * DAY) == 0
    assert store.get(job) is not None
    # In the new time, and after a restart too.
    store.close()
    store = JobStore(tmp_path / "jobs", clock=clock)
    assert sweeps(store, clock, DAY - 2 * 3600) == 0
    assert sweeps(store, clock, 3 * 3600) == 2
    assert store.get(job) is None
    assert store.get(after) is None
    store.close()


def test_a_wrong_time_that_is_put_right_within_the_hour_costs_nothing(tmp_path: Path) -> None:
    clock = FakeClock()
    store = JobStore(tmp_path / "jobs", clock=clock)
    job = ended(store)
    store.close()
    clock.goes(60)
    store = JobStore(tmp_path / "jobs", clock=clock)  # it does not know when the job ended by its own clock
    sweeps(store, clock, 2 * 3600)
    clock.is_set(YEAR)
    assert sweeps(store, clock, 1800) == 0
    clock.is_set(-YEAR)
    assert sweeps(store, clock, 6 * DAY) == 0
    assert sweeps(store, clock, DAY) == 1
    assert store.get(job) is None
    store.close()


def test_a_start_with_a_wrong_clock_forgets_nothing_at_once(tmp_path: Path) -> None:
    clock = FakeClock()
    store = JobStore(tmp_path / "jobs", clock=clock)
    job = ended(store)
    store.close()
    clock.is_set(YEAR)
    store = JobStore(tmp_path / "jobs", clock=clock)
    assert sweeps(store, clock, SETTLE_SECONDS - 120) == 0
    assert store.get(job) is not None
    assert sweeps(store, clock, 240) == 1  # by then it is taken for the time
    store.close()


def test_a_step_that_could_not_be_written_is_not_lost(tmp_path: Path) -> None:
    clock = FakeClock()
    store = JobStore(tmp_path / "jobs", clock=clock)
    job = ended(store)
    clock.is_set(YEAR)
    store._database.connection.execute("PRAGMA query_only = 1")
    with pytest.raises(Exception, match="readonly"):
        store.sweep(KEEP, 1 << 40)
    store._database.connection.execute("PRAGMA query_only = 0")
    assert sweeps(store, clock, DAY) == 0
    kept = store.get(job)
    assert kept is not None
    assert kept.ended == pytest.approx(clock.now() - DAY, abs=60)
    store.close()


def test_an_idempotency_key_is_not_forgotten_for_a_step(tmp_path: Path) -> None:
    clock = FakeClock()
    store = JobStore(tmp_path / "jobs", clock=clock)
    store._database.change("INSERT INTO keys VALUES ('', 'k', 'f', 'batch_gone', ?)", clock.now())
    clock.is_set(YEAR)
    store.sweep(KEEP, 1 << 40)
    count = "SELECT count(*) FROM keys"
    assert store._database.connection.execute(count).fetchone()[0] == 1
    store.close()


def test_full_storage_still_forgets_the_oldest(tmp_path: Path) -> None:
    clock = FakeClock()
    store = JobStore(tmp_path / "jobs", clock=clock)
    job = accepted(store)
    store.claim()
    store.end(job.id, done())
    clock.is_set(YEAR)
    assert store.sweep(KEEP, 0) == 1
    store.close()


def test_the_clock_of_the_machine_goes_on_without_steps() -> None:
    clock = Clock()
    assert clock.look() == 0.0
    assert clock.settled(0.0)
    assert not clock.settled()

"""One reading of many sources: deadlines, failures, scrapes at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from monitoring.exporter.collector import Collector, Source
from monitoring.exporter.errors import ReadingError


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What a hanging source waits for; opened at the end, so that no thread is left."""
    made = threading.Event()
    yield made
    made.set()


def fail() -> None:
    raise ReadingError("It is not there", fix="Put it there")


def break_down() -> None:
    raise ZeroDivisionError("a fault of ours")


def test_values_and_health() -> None:
    reading = Collector([Source("host", lambda: 7), Source("disk", fail)]).collect()
    assert dict(reading.values) == {"host": 7}
    assert reading.health["host"].good
    assert abs((reading.health["host"].last_success or 0) - time.time()) < 60
    assert not reading.health["disk"].good
    assert reading.health["disk"].last_success is None


def test_a_fault_in_one_source_leaves_the_others(caplog: pytest.LogCaptureFixture) -> None:
    reading = Collector([Source("host", lambda: 7), Source("oom", break_down)]).collect()
    assert dict(reading.values) == {"host": 7}
    assert not reading.health["oom"].good
    assert "ZeroDivisionError" in caplog.text


def test_what_a_host_does_not_offer_is_not_asked() -> None:
    reading = Collector([Source("gpu", fail, lambda: False)]).collect()
    assert not reading.health
    assert not reading.values


def test_a_source_that_hangs_costs_only_itself_and_is_not_asked_again(gate: threading.Event) -> None:
    calls = []

    def hang() -> int:
        calls.append(1)
        gate.wait()
        return 1

    collector = Collector([Source("disk", hang), Source("host", lambda: 7)], deadline_seconds=0.2)
    for _ in range(3):
        reading = collector.collect()
        assert dict(reading.values) == {"host": 7}
        assert not reading.health["disk"].good
        assert reading.health["disk"].seconds >= 0.2
    assert len(calls) == 1
    gate.set()
    while not collector.collect().health["disk"].good:
        pass
    collector.collect()
    assert len(calls) > 1


def test_the_last_success_is_remembered_through_failures() -> None:
    answers = iter([7, None, None])

    def read() -> int:
        answer = next(answers)
        if answer is None:
            fail()
        return 7

    collector = Collector([Source("host", read)])
    good = collector.collect().health["host"].last_success
    assert good is not None
    bad = collector.collect()
    assert bad.health["host"].last_success == good
    assert "host" not in bad.values


def test_scrapes_at_once_share_a_reading(gate: threading.Event) -> None:
    calls = []
    begun = threading.Event()

    def read() -> int:
        calls.append(1)
        begun.set()
        gate.wait()
        return len(calls)

    collector = Collector([Source("host", read)], deadline_seconds=60)
    found = []
    threads = [threading.Thread(target=lambda: found.append(collector.collect())) for _ in range(5)]
    for thread in threads:
        thread.start()
    begun.wait()
    gate.set()
    for thread in threads:
        thread.join()
    assert len(found) == 5
    assert all(reading.values["host"] >= 1 for reading in found)
    assert len(calls) < 5 or len({id(reading) for reading in found}) < 5


def test_a_clock_that_is_set_back_or_forward_changes_no_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    collector = Collector([Source("host", lambda: 7)], deadline_seconds=60)
    for step in (0.0, 1e9, -1e9, 0.0):
        monkeypatch.setattr(time, "time", lambda step=step: 1.7e9 + step)
        health = collector.collect().health["host"]
        assert health.good
        assert 0 <= health.seconds < 60
        assert health.last_success == 1.7e9 + step


def test_failures_are_logged_when_they_begin_change_and_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    words = iter(["one", "one", "two", ""])

    def read() -> None:
        word = next(words)
        if word:
            raise ReadingError(f"It is {word}", fix="Wait")

    collector = Collector([Source("host", read)])
    for _ in range(4):
        collector.collect()
    assert [record.getMessage() for record in caplog.records] == [
        "It is one. Wait.",
        "It is two. Wait.",
        "The collector host reads again",
    ]

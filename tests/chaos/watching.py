"""The exporter and Prometheus around the service, and whether what they told was true.

Prometheus runs on monitoring/'s configuration and rules, and asks every second. An alert is said to be true when its
expression gives something now: how long it must last before somebody hears of it is left out.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.monitoring import alerts
from tests.support.program import Program
from tests.support.service_process import until
from tests.support.watch import free_port, get_json, prometheus_command, query

_SECONDS = 1  # between two scrapes, and a scrape's limit
# A scrape slower than this tells of a busy machine: what is missing then, or in the scrapes that followed and share its
# reading, is not held against anybody.
_BUSY_SECONDS = 0.5
_SHARED_SECONDS = 3.0
_LATE_SECONDS = 3.0  # an absence may be told of so much later
_UP, _RELAY = 'up{job="asr"}', "asr_relay_success"
Samples = dict[float, float]  # Unix time -> value


@dataclass(frozen=True)
class Absence:
    """Something was away, from when to when (Unix time); `long` enough that it must have been told."""

    of: str
    began: float
    ended: float
    long: bool


class Watching:
    """An exporter that passes on the service's metrics, and Prometheus that asks it."""

    def __init__(self, folder: Path, service: str, disk: Path) -> None:
        folder.mkdir()
        self._url, self.exporter_url = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        self._absences: list[Absence] = []
        self.alarms: Counter[str] = Counter()  # how often an alert had to become true, and did
        command = [sys.executable, "-m", "monitoring.exporter", "--gpu", "off", "--docker", "off"]
        command += [
            "--listen",
            self.exporter_url.partition("//")[2],
            "--state",
            str(folder / "exporter.state"),
        ]
        command += ["--relay", f"{service}/metrics", "--disk", str(disk)]
        self.exporter = Program(command, folder / "exporter.log")
        asked = {"host": self.exporter_url}
        self.prometheus = Program(
            prometheus_command(folder, self._url, asked, None, _SECONDS), folder / "prometheus.log"
        )

    def start(self) -> None:
        """Returns when the first readings and limits are there."""
        self.exporter.start()
        self.prometheus.start()
        self.wait_until_it_answers()
        until(lambda: self.value(_RELAY) == 1 and self.query("threshold:asr_disk_free_bytes:min"))

    def wait_until_it_answers(self) -> None:
        """Prometheus has read what it wrote before, and takes questions."""
        until(self._answers, lambda: f"Prometheus does not answer:\n{_end_of(self.prometheus.log)}")

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            get_json(self._url + "/api/v1/status/runtimeinfo")
            return True
        return False

    def close(self) -> None:
        self.prometheus.close()
        self.exporter.close()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What it answers now."""
        return query(self._url, expression)

    def value(self, expression: str) -> float | None:
        """The value of the one series that an expression gives; None without one."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if len(found) == 1 else None

    def until_alarmed(self, alert: str) -> None:
        """Until the alert's expression is true."""
        until(lambda: self.is_alarmed(alert), lambda: f"{alert} was not told")
        self.alarms[alert] += 1

    def until_calm(self, alert: str) -> None:
        """Until it is not true any more."""
        until(lambda: not self.is_alarmed(alert), lambda: f"{alert} does not end")

    def until_seen(self) -> None:
        """Until the service was scraped anew, and answered."""
        now = time.time()
        until(
            lambda: (self.value(f"timestamp({_RELAY} == 1)") or 0.0) > now,
            lambda: f"the service is there and not scraped: {self.series()}",
        )

    def is_alarmed(self, alert: str) -> bool:
        return bool(self.query(alerts()[alert]["expr"]))

    def alarmed(self) -> set[str]:
        """Every alert whose expression is true now."""
        return {alert for alert in alerts() if self.is_alarmed(alert)}

    @contextlib.contextmanager
    def absence(self, of: str, *, long: bool = False) -> Iterator[None]:
        """While this lasts, `of` (exporter, service) may be told to be down, and must be when it is `long`."""
        began = time.time()
        try:
            yield
        finally:
            self._absences.append(Absence(of, began, time.time(), long))

    def samples(self, selector: str) -> Samples:
        """All that is kept of one series of the last hour, as it was scraped."""
        kept: Samples = {}
        for series in self.query(f"{selector}[1h]"):
            kept |= {float(when): float(value) for when, value in series["values"]}
        return kept

    def series(self) -> dict[str, Samples]:
        """What is kept of the two series that tell who is there."""
        return {selector: self.samples(selector) for selector in (_UP, _RELAY)}

    def lies(self) -> list[str]:
        """What it told that was not so, or did not tell."""
        slow = self.samples('scrape_duration_seconds{job="asr"}')
        told = self.series()
        return [
            f"{of} {lie}"
            for of, selector in (("exporter", _UP), ("service", _RELAY))
            for lie in lies_in(told[selector], slow, [one for one in self._absences if one.of == of])
        ]


def lies_in(told: Samples, slow: Samples, absences: list[Absence]) -> list[str]:
    """What samples of 1 and 0 say against when their subject was away.

    Args:
        told: Unix time -> 1 there, 0 away.
        slow: Unix time -> seconds that this scrape took.
        absences: of the subject.
    """
    away = [when for when, value in told.items() if value == 0]
    busy = [when for when, seconds in slow.items() if seconds >= _BUSY_SECONDS]
    false = [
        f"told to be away at {when:.1f} by a scrape of {slow.get(when, 0.0):.3f} s, and was there"
        for when in away
        if not any(when - _SHARED_SECONDS <= one <= when for one in busy)
        and not any(one.began - _LATE_SECONDS <= when <= one.ended + _LATE_SECONDS for one in absences)
    ]
    untold = [
        f"away from {one.began:.1f} to {one.ended:.1f}, and not told"
        for one in absences
        # A scrape bears the time at which it began: one that the loss cut off began before.
        if one.long and not any(one.began - _SECONDS <= when <= one.ended + _LATE_SECONDS for when in away)
    ]
    return false + untold


def _end_of(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-2000:]

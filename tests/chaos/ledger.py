"""What clients sent and got, and what was wrong about it. Many threads write, the campaign reads."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

# What may happen to a request while the fault of that kind lasts, or the service is on its way up again.
TRANSPORT, REFUSED = "no answer", "refused"


@dataclass
class SentJob:
    """A job of one idempotency key: its ids (more than one when a damaged database lost it), its end."""

    key: str
    file: str
    ids: list[str] = field(default_factory=list)
    state: str = ""
    epoch: int = 0  # how many databases had been lost when it was sent

    @property
    def id(self) -> str:
        return self.ids[-1]


@dataclass(frozen=True)
class Attempt:
    """A request that got no answer or a refusal, and from when to when (monotonic seconds)."""

    what: str
    began: float
    ended: float


class Ledger:
    """See the top of this module."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self.jobs: list[SentJob] = []
        self.violations: list[str] = []
        self.counts: Counter[str] = Counter()
        self.attempts: list[Attempt] = []
        self.epoch = 0
        self._disturbances: list[tuple[float, float]] = []

    def add(self, job: SentJob) -> None:
        with self._mutex:
            self.jobs.append(job)

    def count(self, what: str, number: int = 1) -> None:
        with self._mutex:
            self.counts[what] += number

    def wrong(self, what: str) -> None:
        """Something that no fault excuses."""
        with self._mutex:
            self.violations.append(what)

    def missed(self, what: str, began: float) -> None:
        """A request came to nothing just now; `unexplained` tells later whether that was in order."""
        with self._mutex:
            self.attempts.append(Attempt(what, began, time.monotonic()))
            self.counts[what.partition(":")[0]] += 1

    @contextmanager
    def disturbance(self) -> Iterator[None]:
        """While this lasts, a request may be refused or get no answer; no job may be lost for it."""
        began = time.monotonic()
        try:
            yield
        finally:
            with self._mutex:
                self._disturbances.append((began, time.monotonic()))

    def excuse(self, began: float) -> None:
        """What began at this moment (monotonic seconds) turns out to have been a disturbance, until now."""
        with self._mutex:
            self._disturbances.append((began, time.monotonic()))

    def unexplained(self) -> list[Attempt]:
        """Requests that came to nothing although nothing was wrong while they lasted."""
        return [
            attempt
            for attempt in self.attempts
            if not any(began <= attempt.ended and attempt.began <= end for began, end in self._disturbances)
        ]

    def forget_all(self) -> None:
        """The database is lost: whoever sent a job must send it again."""
        self.epoch += 1

    def is_forgotten(self, job: SentJob) -> bool:
        """Whether the database it was written into is gone."""
        return job.epoch < self.epoch

    def known(self) -> list[SentJob]:
        """Jobs that the service must know."""
        with self._mutex:
            return [job for job in self.jobs if not self.is_forgotten(job)]

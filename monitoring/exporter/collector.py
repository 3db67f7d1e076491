"""One reading of everything, limited in time: a source that hangs or fails costs its own series and nobody else's.

Here: the sources' common shape, their threads, their health. What they read is in gpu.py, host.py and the others; which
series come of it is render.py. Times are of the monotonic clock, except those that are shown.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from monitoring.exporter.errors import ReadingError

LOG = logging.getLogger(__name__)
DEADLINE_SECONDS = 3.0


@dataclass(frozen=True)
class Source:
    """Something to read.

    Args:
        name: of names.COLLECTORS, or of the relay and the canary, which report in series of their own.
        read: gives the value; raises ReadingError when there is none. Called in a thread, never twice at once.
        offered: whether this host has such a thing at all; without it there is neither value nor health.
    """

    name: str
    read: Callable[[], Any]
    offered: Callable[[], bool] = lambda: True


@dataclass(frozen=True)
class Health:
    """How a source's last reading went: seconds it took, Unix time of its last success, the failure if there is one."""

    seconds: float
    last_success: float | None
    failure: Exception | None

    @property
    def good(self) -> bool:
        """The reading is there, and whole."""
        return self.failure is None


@dataclass(frozen=True)
class Reading:
    """What all sources gave: values by name, only of those that succeeded, and the health of all."""

    values: Mapping[str, Any]
    health: Mapping[str, Health]


@dataclass
class _Run:
    """One call of a source, in its thread."""

    started: float
    done: threading.Event = field(default_factory=threading.Event)
    seconds: float = 0.0
    value: Any = None
    failure: Exception | None = None


class _Watched:
    """A source and what became of its readings."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._run: _Run | None = None
        self._last_success: float | None = None
        self._told: str | None = None

    def begin(self) -> None:
        """Starts a reading, unless the last one still hangs: then nothing is piled on top of it."""
        if self._run is not None and not self._run.done.is_set():
            return
        run = self._run = _Run(time.monotonic())
        threading.Thread(target=self._read, args=(run,), name=self.source.name, daemon=True).start()

    def _read(self, run: _Run) -> None:
        try:
            run.value = self.source.read()
        except ReadingError as error:
            run.failure = error
        except Exception as error:  # a fault of ours in one source must not take the others with it
            LOG.exception("The collector %s failed in a way that was not foreseen", self.source.name)
            run.failure = error
        finally:
            run.seconds = time.monotonic() - run.started
            run.done.set()

    def end(self, deadline: float) -> tuple[Any, Health]:
        """The value, None without one, and the health."""
        run = self._run
        if run is None:
            raise RuntimeError("a reading ends before it began")
        if not run.done.wait(max(0.0, deadline - time.monotonic())):
            seconds = time.monotonic() - run.started
            late = ReadingError(
                f"The collector {self.source.name} has not answered for {seconds:.1f} s",
                fix="It is asked again when it has; see what it reads in docs/exporter.md",
            )
            self._tell("hangs", late)
            return None, Health(seconds, self._last_success, late)
        if run.failure is None:
            self._last_success = time.time()
            self._tell(None, None)
        else:
            self._tell(str(run.failure), run.failure)
        return run.value, Health(run.seconds, self._last_success, run.failure)

    def _tell(self, kind: str | None, failure: Exception | None) -> None:
        """Logs a failure when it begins or changes and its end, not every scrape."""
        if kind != self._told:
            if failure is not None:
                LOG.warning("%s", failure)
            else:
                LOG.info("The collector %s reads again", self.source.name)
        self._told = kind


class Collector:
    """All sources. `collect` may be called by several scrapes at once; those that overlap share one reading."""

    def __init__(self, sources: Sequence[Source], deadline_seconds: float = DEADLINE_SECONDS) -> None:
        self._sources = [_Watched(source) for source in sources]
        self._deadline_seconds = deadline_seconds
        self._turn = threading.Condition()
        self._at_work = False
        self._latest = Reading(MappingProxyType({}), MappingProxyType({}))

    def collect(self) -> Reading:
        """A reading that was not finished when this was called; it takes the deadline at most, and never raises."""
        with self._turn:
            if self._at_work:
                self._turn.wait_for(lambda: not self._at_work)
                return self._latest
            self._at_work = True
        try:
            self._latest = self._collect()
        finally:
            with self._turn:
                self._at_work = False
                self._turn.notify_all()
        return self._latest

    def _collect(self) -> Reading:
        deadline = time.monotonic() + self._deadline_seconds
        wanted = [watched for watched in self._sources if watched.source.offered()]
        for watched in wanted:
            watched.begin()
        values: dict[str, Any] = {}
        health: dict[str, Health] = {}
        for watched in wanted:
            value, health[watched.source.name] = watched.end(deadline)
            if health[watched.source.name].good:
                values[watched.source.name] = value
        return Reading(MappingProxyType(values), MappingProxyType(health))

"""How much work is taken at once, in seconds of audio, and when somebody who was refused should come back.

Requests that wait for their answer hold a ticket here; jobs do not, they are durable and wait on disk. Whose segment
runs next is the scheduler's part.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from app.asr.audio import AudioReader
from app.asr.errors import ResourceError
from app.service.errors import Overloaded, ShuttingDown, TooLong
from app.service.recognising import EngineStatus
from app.service.settings import Settings

# Before anything was measured: a slow CPU. And what a file without a stated length is taken for: 64 kbit/s.
_GUESSED_RTF, _GUESSED_BYTES_A_SECOND = 0.3, 8000


@dataclass(eq=False)
class Ticket:
    """Work that was accepted; `done` tells how many of its seconds are recognised."""

    seconds: float
    done: Callable[[], float] = field(default=lambda: 0.0)

    @property
    def remaining(self) -> float:
        """Seconds of audio that still wait."""
        return max(0.0, self.seconds - self.done())


class Admission:
    """Decides for every request; nothing here waits."""

    def __init__(self, settings: Settings, status: Callable[[], EngineStatus]) -> None:
        self._settings, self._status = settings, status
        self._tickets: set[Ticket] = set()
        self._draining_since: float | None = None

    @property
    def draining(self) -> bool:
        """No new work is taken: the service is going down."""
        return self._draining_since is not None

    def drain(self) -> None:
        """From now on."""
        if self._draining_since is None:
            self._draining_since = time.monotonic()

    @property
    def grace_left(self) -> float:
        """Seconds until work that is not done is given up."""
        since = self._draining_since
        spent = time.monotonic() - since if since is not None else 0.0
        return max(0.0, self._settings.grace_seconds - spent)

    @property
    def accepted_seconds(self) -> float:
        """Audio of accepted requests that is not recognised yet."""
        return sum(ticket.remaining for ticket in self._tickets)

    def check(self) -> None:
        """Before an upload is read: is there any sense in it?

        Raises:
            ShuttingDown, Overloaded: no new work at all.
            ResourceError: the engine cannot be started.
        """
        if self.draining:
            raise ShuttingDown
        status = self._status()
        if status.state == "failed":
            raise ResourceError(
                f"The recognition engine does not run: {status.message}",
                fix="The operator of this service finds the reason at /readyz and in its log.",
            )
        if self.accepted_seconds >= self._settings.queue_seconds:
            raise self._overloaded(0.0)

    @contextlib.contextmanager
    def admit(self, seconds: float | None, size: int) -> Iterator[Ticket]:
        """A ticket for so many seconds of audio (None: not known, then `size` in bytes tells), while it is worked on.

        Raises:
            TooLong, Overloaded, ShuttingDown: it is not taken.
        """
        if self.draining:
            raise ShuttingDown
        longest = self._settings.max_audio_seconds
        if seconds is not None and seconds > longest:
            raise TooLong(longest, seconds)
        wanted = seconds if seconds is not None else min(longest, size / _GUESSED_BYTES_A_SECOND)
        waiting = self.accepted_seconds
        # A file that alone is longer than the queue is taken when nothing else waits.
        if waiting > 0 and waiting + wanted > self._settings.queue_seconds:
            raise self._overloaded(wanted)
        ticket = Ticket(wanted)
        self._tickets.add(ticket)
        try:
            yield ticket
        finally:
            self._tickets.discard(ticket)

    def _overloaded(self, wanted: float) -> Overloaded:
        waiting, limit = self.accepted_seconds, self._settings.queue_seconds
        speed = self._status().rtf or _GUESSED_RTF
        return Overloaded(
            (waiting + min(wanted, limit) - limit) * speed,
            f"{waiting:.0f} seconds of audio are waiting, and this service queues {limit:.0f}",
        )


async def seconds_of(path: Path) -> float | None:
    """How long an audio file says it is. Raises AudioError for what is none."""

    def read() -> float | None:
        with AudioReader(path) as reader:
            return reader.info.duration_seconds

    return await asyncio.to_thread(read)

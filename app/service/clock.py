"""The time of day, and how far it can be trusted: a machine's clock may step, by years, when it is set.

A host without a battery for its clock starts in the past and is corrected when it finds a time server; a wrong server,
or a wrong hand, moves it the other way. Ages of kept things must not be taken from such a clock at once.
"""

from __future__ import annotations

import time

# What the two clocks may differ by between two looks: a time server's slow correction and a busy machine, not a step.
_TOLERANCE_SECONDS = 60.0
# A wrong clock is corrected within minutes where a time server can be reached.
SETTLE_SECONDS = 3600.0


class Clock:
    """The time of day beside the time since the machine's start, which never steps and counts sleep too."""

    def __init__(self) -> None:
        self._seen, self._settled_since = self._both(), self.steady()

    def now(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def steady(self) -> float:
        """Seconds since the machine's start."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def look(self) -> float:
        """By how many seconds the time of day was set since the last look; 0 when it went on as time does."""
        before, self._seen = self._seen, self._both()
        step = (self._seen[0] - before[0]) - (self._seen[1] - before[1])
        if abs(step) <= _TOLERANCE_SECONDS:
            return 0.0
        self._settled_since = self._seen[1]
        return step

    def settled(self, seconds: float = SETTLE_SECONDS) -> bool:
        """Whether it has gone on for so long, as seen at the last look, without being set."""
        return self._seen[1] - self._settled_since >= seconds

    def _both(self) -> tuple[float, float]:
        return self.now(), self.steady()

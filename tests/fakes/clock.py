"""A clock that goes only when it is told to, and is set only when it is told to."""

from __future__ import annotations

from app.service.clock import Clock


class FakeClock(Clock):
    """Begins at `wall` seconds since 1970, a minute after the machine's start."""

    def __init__(self, wall: float = 1_790_000_000.0) -> None:
        self._wall, self._steady = wall, 60.0
        super().__init__()

    def now(self) -> float:
        return self._wall

    def steady(self) -> float:
        return self._steady

    def goes(self, seconds: float) -> None:
        """Time passes."""
        self._wall += seconds
        self._steady += seconds

    def is_set(self, seconds: float) -> None:
        """Somebody moves the hands; no time passes."""
        self._wall += seconds

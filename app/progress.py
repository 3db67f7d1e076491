"""The progress line on a terminal: how far, how fast. On anything but a terminal it stays silent."""

from __future__ import annotations

import shutil
import time
import unicodedata
from collections.abc import Callable
from typing import TextIO

_INTERVAL_SECONDS = 0.2
_BAR_CELLS = 20


class ProgressLine:
    """One line that redraws itself; `clear` it before anything else is printed.

    Args:
        stream: where it is drawn, if that is a terminal.
        clock: seconds from any origin.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._visible = stream.isatty()
        self._label = ""
        self._began = clock()
        self._drawn_at = float("-inf")
        self._drawn = False

    def begin(self, label: str) -> None:
        """A new file: the clock starts again."""
        self._label = label
        self._began = self._clock()
        self._drawn_at = float("-inf")

    def update(self, done: float, total: float | None) -> None:
        """Draw anew, unless that was done a moment ago. Both are seconds of audio."""
        now = self._clock()
        if not self._visible or now - self._drawn_at < _INTERVAL_SECONDS:
            return
        self._drawn_at = now
        speed = done / (now - self._began) if now > self._began else 0.0
        columns = shutil.get_terminal_size().columns
        self._write("\r\x1b[K" + fit(describe(self._label, done, total, speed), columns - 1))
        self._drawn = True

    def clear(self) -> None:
        """Take the line away."""
        if self._drawn:
            self._write("\r\x1b[K")
            self._drawn = False
            self._drawn_at = float("-inf")

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            self._visible = False  # the terminal is gone; the work is not


def describe(label: str, done: float, total: float | None, speed: float) -> str:
    """The line's text."""
    parts = []
    if total:
        share = min(1.0, max(0.0, done / total))
        filled = int(share * _BAR_CELLS)
        parts.append(f"[{'#' * filled}{'-' * (_BAR_CELLS - filled)}] {int(share * 100):3d} %")
        parts.append(f"{clock_time(done)} / {clock_time(total)}")
    else:
        parts.append(clock_time(done))
    parts.append(f"{speed:.1f}x real time")
    parts.append(label)
    return "  ".join(parts)


def clock_time(seconds: float) -> str:
    """1:02:03, or 2:03 under an hour."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def fit(text: str, columns: int) -> str:
    """Cut a text to so many terminal columns; Chinese characters take two."""
    used = 0
    for index, char in enumerate(text):
        used += 2 if unicodedata.east_asian_width(char) in "WF" else 1
        if used > columns:
            return text[:index]
    return text

"""The clock that the service sees: libfaketime moves its time of day and leaves the time since the start alone."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.packages import apt

_LIBRARIES = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu")
_NAME = "faketime/libfaketimeMT.so.1"


class Timepiece:
    """Steps at once, for every process that was started with `environment`.

    libfaketime refuses clock_nanosleep() with these settings (Debian 12), so the process must not use time.sleep().
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.offset = 0  # seconds that its time of day is ahead
        self.step_to(0)

    def step_to(self, offset: int) -> None:
        """Sets the clock so many seconds ahead of the true time."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{offset:+d}\n", encoding="ascii")
        new.replace(self._file)
        self.offset = offset

    @property
    def environment(self) -> dict[str, str]:
        """Of a process that is to see this clock."""
        return {
            "LD_PRELOAD": _library(),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",  # seconds until a step is seen
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }


def _library() -> str:
    """libfaketime, which is installed where it is missing and may be."""
    for attempt in range(2):
        for folder in _LIBRARIES:
            if (path := Path(folder) / _NAME).exists():
                return str(path)
        if attempt == 0 and os.getuid() == 0:
            apt("update")
            apt("install", "--yes", "--no-install-recommends", "libfaketime")
    raise AssertionError("the campaign needs libfaketime: apt-get install libfaketime")

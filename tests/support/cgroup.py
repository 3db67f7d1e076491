"""A control group with a memory limit, version 1 or 2, made for one test."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


class Group:
    """A control group with a memory limit, version 1 or 2."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        folder.mkdir()
        self._version_2 = (folder / "memory.max").exists()
        (folder / ("memory.max" if self._version_2 else "memory.limit_in_bytes")).write_text(str(limit))
        with contextlib.suppress(OSError):  # not there where swap is not counted
            (folder / ("memory.swap.max" if self._version_2 else "memory.memsw.limit_in_bytes")).write_text(
                "0" if self._version_2 else str(limit)
            )

    def add(self, pid: int) -> None:
        """Takes a process in; its children from then on belong to the group too."""
        (self.folder / "cgroup.procs").write_text(str(pid))

    def used(self) -> int:
        """Bytes held by the group's processes, page cache included."""
        name = "memory.current" if self._version_2 else "memory.usage_in_bytes"
        return int((self.folder / name).read_text())

    def held(self) -> int:
        """The same without the page cache, which the kernel takes back when it is wanted: how much there is of that
        hangs on what was read before on this machine."""
        rows = (line.split() for line in (self.folder / "memory.stat").read_text().splitlines())
        statistics = {name: int(value) for name, value in rows}
        total = "" if self._version_2 else "total_"
        return self.used() - statistics[f"{total}inactive_file"] - statistics[f"{total}active_file"]

    def kills(self) -> int:
        """Processes that the kernel killed here for want of memory."""
        name = "memory.events" if self._version_2 else "memory.oom_control"
        events = dict(line.split() for line in (self.folder / name).read_text().splitlines())
        return int(events["oom_kill"])

    def reached_its_limit(self) -> bool:
        """Whether something had to be dropped or killed because the limit was reached."""
        if not self._version_2:
            most = int((self.folder / "memory.max_usage_in_bytes").read_text())
            return most >= int((self.folder / "memory.limit_in_bytes").read_text())
        events = dict(line.split() for line in (self.folder / "memory.events").read_text().splitlines())
        return int(events["max"]) > 0

    def close(self) -> None:
        for _ in range(50):
            try:
                self.folder.rmdir()
            except OSError:
                time.sleep(0.1)
            else:
                return


@contextlib.contextmanager
def limited(limit: int, name: str | None = None) -> Iterator[Group]:
    """A group that may hold so many bytes; skips the test where none can be made."""
    for base in (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")):
        with contextlib.suppress(OSError):
            made = Group(base / (name or f"asr-test-{os.getpid()}"), limit)
            try:
                yield made
            finally:
                made.close()
            return
    pytest.skip(
        "no control group with a memory limit can be made here (needs root and a writable /sys/fs/cgroup)"
    )

"""inotify through libc: which cgroup appeared, went or counted something, told at the moment it happens.

The kill of a container's first process is in its memory.events for some milliseconds only, until the cgroup is removed:
who reads by the clock misses it. Nothing here knows what a container is.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from monitoring.exporter.errors import ReadingError

_MODIFY, _CREATE, _DELETE, _OVERFLOW, _IGNORED = 0x2, 0x100, 0x200, 0x4000, 0x8000
_HEAD = struct.Struct("iIII")
_BUFFER = 64 << 10


@dataclass(frozen=True)
class Notice:
    """What happened: `path` was written to, or `created` or removed there; None: notices were lost, look at all."""

    path: Path | None
    created: bool = False


class Notices:
    """One inotify instance.

    Raises:
        ReadingError: the kernel gives none (`__init__`).
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._file: int = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._file < 0:
            raise ReadingError(
                f"The kernel gives no inotify ({os.strerror(ctypes.get_errno())})",
                fix="Raise fs.inotify.max_user_instances; until then cgroups are read once a second",
            )
        self._paths: dict[int, Path] = {}

    def fileno(self) -> int:
        """For poll: readable when there are notices."""
        return self._file

    def close(self) -> None:
        os.close(self._file)

    def watch_directory(self, path: Path) -> bool:
        """Tells of directories that appear and go; False when it cannot be watched, or is gone."""
        return self._watch(path, _CREATE | _DELETE)

    def watch_file(self, path: Path) -> bool:
        """Tells of changes of a file; False when it cannot be watched, or is gone."""
        return self._watch(path, _MODIFY)

    def _watch(self, path: Path, mask: int) -> bool:
        number = self._libc.inotify_add_watch(self._file, os.fsencode(path), mask)
        if number < 0:
            return False
        self._paths[number] = path
        return True

    def read(self) -> Iterator[Notice]:
        """All notices that wait now."""
        while True:
            try:
                data = os.read(self._file, _BUFFER)
            except BlockingIOError:
                return
            place = 0
            while place < len(data):
                number, mask, _, length = _HEAD.unpack_from(data, place)
                name = os.fsdecode(data[place + _HEAD.size : place + _HEAD.size + length].rstrip(b"\0"))
                place += _HEAD.size + length
                if mask & _OVERFLOW:
                    yield Notice(None)
                elif mask & _IGNORED:
                    self._paths.pop(number, None)
                elif number in self._paths:
                    path = self._paths[number]
                    yield Notice(path / name if name else path, created=bool(mask & _CREATE))

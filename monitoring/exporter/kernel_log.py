"""/dev/kmsg: kills that the kernel reported, with the victim's cgroup. The ring is read from its beginning first, so
that kills from before count too; records known from the state file are skipped by their number.

The kernel reports at most ten kills in five seconds; the other witnesses (ledger.py) make up for that.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from monitoring.exporter.containers import container_of
from monitoring.exporter.errors import ReadingError

_RECORD = re.compile(r"\d+,(?P<sequence>\d+),\d+,[^;]*;(?P<text>.*)")
_KILL = re.compile(r"oom-kill:.*\btask_memcg=(?P<cgroup>[^,\n]*),task=")
_OLD_KILL = re.compile(r"Task in (?P<cgroup>\S+) killed as a result of limit of ")  # before Linux 5.0
_LONGEST_RECORD = 8192
_AT_ONCE = 100_000


@dataclass(frozen=True)
class KernelKill:
    """A kill: the record's number, the victim's container (None: in no container)."""

    sequence: int
    container: str | None


class KernelLog:
    """An open kernel log.

    Raises:
        ReadingError: it cannot be opened (`__init__`) or read (`kills`).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rest = b""
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise self._failure(error) from None

    def _failure(self, error: OSError) -> ReadingError:
        return ReadingError(
            f"The kernel log {self.path} cannot be read ({error.strerror})",
            fix="Run the exporter as root or with CAP_SYSLOG, and in a container with --device /dev/kmsg;"
            " or say --kernel-log off: cgroup files and Docker then tell of kills",
        )

    def fileno(self) -> int:
        """For poll: readable when there are new records."""
        return self._file

    def close(self) -> None:
        os.close(self._file)

    def kills(self) -> Iterator[KernelKill | int]:
        """Kills since the last call, and after each record its number, so that it need not be read again."""
        for line in self._lines():
            record = _RECORD.fullmatch(line)
            if not record:
                continue  # a continuation line, or something foreign
            sequence = int(record["sequence"])
            found = _KILL.search(record["text"]) or _OLD_KILL.search(record["text"])
            if found:
                yield KernelKill(sequence, container_of(found["cgroup"]))
            yield sequence

    def _lines(self) -> Iterator[str]:
        for _ in range(_AT_ONCE):
            try:
                data = os.read(self._file, _LONGEST_RECORD)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.EPIPE:  # records were overwritten before they were read
                    continue
                raise self._failure(error) from None
            if not data:
                return
            *lines, self._rest = (self._rest + data).split(b"\n")
            self._rest = self._rest[-_LONGEST_RECORD:]
            for line in lines:
                yield line.decode("utf-8", "replace")

"""A program around the service (gateway, exporter, Prometheus) as a process, to be killed and started again."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_PATIENCE = 30.0  # seconds


class Program:
    """`start` it as often as it was killed; what it says is added to `log`."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._command, self.log = command, log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Does not wait until it answers."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command, cwd=_ROOT, stdout=log, stderr=log)

    @property
    def pid(self) -> int:
        assert self._process is not None, "it was not started"
        return self._process.pid

    def children(self) -> list[int]:
        """Its child processes."""
        told = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text(encoding="ascii")
        return [int(pid) for pid in told.split()]

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def wait(self) -> None:
        """Until it has ended."""
        assert self._process is not None
        self._process.wait(_PATIENCE)

    def close(self) -> None:
        """Ends it, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self.wait()
            except subprocess.TimeoutExpired:
                self.kill()

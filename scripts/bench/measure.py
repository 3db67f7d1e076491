"""One process, measured from outside: when its lines came, how long it ran, how much memory it ever held."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MARK = "BENCH "  # runners begin their own lines with it; libraries print others
_CLEARED = ("OMP_", "MKL_", "OPENBLAS_", "ORT_", "ASR_", "FUNASR_")


class BenchError(Exception):
    """A process of the benchmark failed, or materials are missing; the message says what to do."""


@dataclass(frozen=True)
class Finished:
    """A process that ended well.

    Attributes:
        lines: (seconds from the start, line) for every line of standard output.
        seconds: from the start to the end of the process.
        peak_rss_bytes: the most memory it held at once, as the kernel counted.
    """

    lines: tuple[tuple[float, str], ...]
    seconds: float
    peak_rss_bytes: int

    @property
    def text(self) -> str:
        return "".join(line for _, line in self.lines)

    def event(self, name: str) -> tuple[float, dict[str, Any]]:
        """When a runner told `name` (seconds from the start), and what it said.

        Raises:
            BenchError: it never did.
        """
        for seconds, line in self.lines:
            if line.startswith(MARK):
                told = json.loads(line[len(MARK) :])
                if told["event"] == name:
                    return seconds, told
        raise BenchError(f"The runner never told {name!r}.")


def run(command: Sequence[str | Path], timeout: float = 7200.0) -> Finished:
    """Run a command to its end, with no thread settings of the caller's.

    Raises:
        BenchError: it could not be started, ended badly, or was killed for taking longer than `timeout` seconds.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_CLEARED)}
    words = [str(word) for word in command]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        start = time.perf_counter()
        try:
            process = subprocess.Popen(
                ["timeout", "--foreground", str(int(timeout)), *words],
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                text=True,
                encoding="utf-8",
            )
        except OSError as error:
            raise BenchError(
                f"{words[0]} cannot be run ({error.strerror}). Run make bench, which sets it up."
            ) from error
        with process:
            lines = [(time.perf_counter() - start, line) for line in process.stdout or ()]
            # The largest of `timeout` and the command below it, which is always the command.
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - start
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            tail = "".join(errors.readlines()[-12:])
            raise BenchError(f"{' '.join(words)}\nended with {process.returncode}:\n{tail}")
    return Finished(tuple(lines), seconds, usage.ru_maxrss * 1024)

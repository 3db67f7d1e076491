"""Asks the NVML process, never longer than allowed: one that hangs is killed and started again after a pause.

A process stuck in the kernel cannot even be killed; it is left behind, and when too many are, no more are started.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monitoring.exporter.errors import NvmlError

COMMAND = (sys.executable, "-m", "monitoring.exporter.nvml_process")
_ROOT = Path(__file__).resolve().parents[2]
_MOST_STUCK = 3
_LONGEST_ANSWER = 4 << 20
_CODES = {
    4: "no_permission",
    9: "driver_not_loaded",
    12: "library_not_found",
    15: "gpu_is_lost",
    18: "lib_rm_version_mismatch",
}
_FIXES = {
    "no_permission": "Run the exporter as a user that may open /dev/nvidiactl",
    "driver_not_loaded": "Load the module (modprobe nvidia); if that fails, see dmesg and install the driver again",
    "library_not_found": "Install the NVIDIA driver, and give the exporter's container the GPU (utility capability)",
    "gpu_is_lost": "Reboot the host; if it comes again, look at power supply, slot and temperature",
    "lib_rm_version_mismatch": "Reboot the host, or unload and load the nvidia modules while nothing uses the GPU",
    "starting": "Wait; a driver without persistence mode wakes for some seconds",
    "hang": "Look for Xid errors in dmesg; a host whose driver hangs needs a reboot",
    "died": "See the exporter's log; it is started again by itself",
    "no_gpu_answers": "Look for Xid errors in dmesg; a card that fell off the bus needs a reboot",
    "other": "Compare with nvidia-smi on the host; it is tried again by itself",
}


@dataclass(frozen=True)
class Patience:
    """Seconds: for an answer, for the start (drivers wake slowly), and the pause after a failure."""

    answer: float = 1.5
    start: float = 20.0
    pause: float = 30.0


def failure(problem: str, code: str) -> NvmlError:
    """A failure with the remedy for its kind."""
    return NvmlError(problem, code=code, fix=_FIXES[code])


def failure_of(told: Mapping[str, Any]) -> NvmlError:
    """What NVML said, as a failure."""
    code = _CODES.get(int(told.get("number", 0)), "other")
    return failure(f"NVML gives no reading: {told.get('error')}", code)


class NvmlClient:
    """One NVML process and its successors. Safe for threads: who asks meanwhile waits, not longer than it may."""

    def __init__(self, command: Sequence[str] = COMMAND, patience: Patience | None = None) -> None:
        self._command, self._patience = tuple(command), patience or Patience()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stuck: list[subprocess.Popen[bytes]] = []
        self._buffer = b""
        self._ready = False
        self._started = 0.0
        self._not_before = 0.0
        self._failure: NvmlError | None = None

    def start(self, seconds: float = 0.0) -> None:
        """Starts the process, which may take the driver seconds, and waits for it no longer than told."""
        with self._lock, contextlib.suppress(NvmlError):
            self._make_ready(time.monotonic() + seconds)

    def ask(self, what: str) -> Mapping[str, Any]:
        """The answer to `gpus` or `processes` (nvml_process.py).

        Raises:
            NvmlError: there is none.
        """
        deadline = time.monotonic() + self._patience.answer
        if not self._lock.acquire(timeout=self._patience.answer):
            raise failure("The NVML process is busy with another question", "hang")
        try:
            self._make_ready(deadline)
            told = self._exchange(what, deadline)
        finally:
            self._lock.release()
        if "error" in told:
            raise failure_of(told)
        return told

    def begin_anew(self, why: NvmlError | None = None) -> None:
        """Lets go of the process; the next one is started after the pause with `why`, at once without."""
        with self._lock:
            if why is not None:
                self._give_up(why)
            else:
                self._end()
                self._failure = None

    def close(self) -> None:
        """Ends the process; it may finish what it asks, since a driver does not like to be left in the middle."""
        with self._lock:
            self._end(gentle_seconds=self._patience.answer)

    def _make_ready(self, deadline: float) -> None:
        if self._process is None:
            if self._failure is not None and time.monotonic() < self._not_before:
                raise self._failure
            self._begin()
        if self._ready:
            return
        told = self._read_line(deadline)
        if told is None:
            if time.monotonic() - self._started < self._patience.start:
                raise failure("NVML is still starting", "starting")
            raise self._give_up(failure(f"NVML did not start in {self._patience.start:g} s", "hang"))
        if "error" in told:
            raise self._give_up(failure_of(told))
        self._ready, self._failure = True, None

    def _exchange(self, what: str, deadline: float) -> Mapping[str, Any]:
        process = self._process
        if process is None or process.stdin is None:
            raise failure("There is no NVML process", "died")
        try:
            process.stdin.write(f"{what}\n".encode())
            process.stdin.flush()
        except OSError:
            raise self._give_up(self._death()) from None
        told = self._read_line(deadline)
        if told is None:
            raise self._give_up(
                failure(
                    f"NVML did not answer within {self._patience.answer:g} s, its process was killed", "hang"
                )
            )
        if "error" in told:  # a fresh process finds what changed: a driver updated, a device taken away
            raise self._give_up(failure_of(told))
        return told

    def _begin(self) -> None:
        self._stuck = [process for process in self._stuck if process.poll() is None]
        if len(self._stuck) >= _MOST_STUCK:
            raise failure(f"{len(self._stuck)} processes hang in the driver and cannot be killed", "hang")
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_ROOT,
        )
        self._buffer, self._ready, self._started = b"", False, time.monotonic()

    def _read_line(self, deadline: float) -> Mapping[str, Any] | None:
        """The next line; None when it does not come in time.

        Raises:
            NvmlError: the process ended, or spoke nonsense.
        """
        process = self._process
        if process is None or process.stdout is None:
            raise failure("There is no NVML process", "died")
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left < 0 or not select.select([process.stdout], [], [], left)[0]:
                return None
            data = os.read(process.stdout.fileno(), 1 << 16)
            self._buffer += data
            if not data or len(self._buffer) > _LONGEST_ANSWER:
                raise self._give_up(self._death())
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            told = json.loads(line)
        except ValueError:
            told = None
        if not isinstance(told, dict):
            raise self._give_up(failure("The NVML process wrote something that is not an answer", "died"))
        return told

    def _death(self) -> NvmlError:
        process = self._process
        code = None
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(timeout=0.2)
        return failure(f"The NVML process ended by itself (exit code {code})", "died")

    def _give_up(self, why: NvmlError) -> NvmlError:
        self._end()
        self._failure = why
        self._not_before = time.monotonic() + self._patience.pause
        return why

    def _end(self, gentle_seconds: float = 0.0) -> None:
        process, self._process, self._ready = self._process, None, False
        if process is None:
            return
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
        if gentle_seconds:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(gentle_seconds)
        if process.stdout is not None:
            process.stdout.close()
        process.kill()
        try:
            process.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
            self._stuck.append(process)

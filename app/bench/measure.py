"""One setting, once: a process is started, waited for and measured, and its result is read.

Times and memory are those of the whole process, as the kernel counts them, beside what the program tells of
itself. What several runs mean together is in summary.py.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import app
from app.asr.errors import ResourceError
from app.asr.host import peak_rss_bytes

LIMIT_SECONDS = 12 * 3600.0  # a run that takes longer hangs
_GRACE_SECONDS = 5.0
_MARKS = ("error: ", "usage error: ")
_LONGEST_REASON = 300


@dataclass(frozen=True)
class Result:
    """What a run says of itself; None where it does not say.

    Attributes:
        text: all that was recognised.
        audio_seconds: length of the recording.
        rtf: seconds of recognition for one second of audio; the model is loaded before.
        peak_rss_bytes: the most memory the process held until its result was written.
        device_peak_bytes: the most memory taken of the GPU.
        hotwords: how many hot words were used.
    """

    text: str
    audio_seconds: float
    rtf: float
    peak_rss_bytes: int | None = None
    device_peak_bytes: int | None = None
    device: str | None = None
    precision: str | None = None
    model: str | None = None
    hotwords: int | None = None


@dataclass(frozen=True)
class Run:
    """One process that has ended.

    Attributes:
        code: its exit code; negative for a signal, as subprocess has it.
        seconds: from its start to its end.
        kernel_peak_bytes: the most memory it ever held, as the kernel counted; None where that cannot be told
            from what this process holds (a new process begins with its parent's figure).
        result: None when it failed.
        reason: why it failed; empty when it did not.
        told: whether the program itself said so, as it does of what it cannot do; a crash says something else.
    """

    code: int
    seconds: float
    kernel_peak_bytes: int | None
    result: Result | None
    reason: str = ""
    told: bool = False

    @property
    def peak_bytes(self) -> int | None:
        """The larger of both readings of memory."""
        told = self.result.peak_rss_bytes if self.result else None
        return max((value for value in (told, self.kernel_peak_bytes) if value is not None), default=None)


def run(command: Sequence[str], limit_seconds: float = LIMIT_SECONDS) -> Run:
    """Run a command that prints a transcript as JSON, to its end.

    When this is interrupted, the process is ended first.

    Raises:
        ResourceError: the process could not be started.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        floor = peak_rss_bytes()
        start = time.perf_counter()
        try:
            process = subprocess.Popen(
                list(command), stdin=subprocess.DEVNULL, stdout=output, stderr=errors, env=_environment()
            )
        except OSError as error:
            raise ResourceError(
                f"{command[0]} cannot be started ({error.strerror})",
                fix="Free memory or processes, and run it again.",
            ) from error
        code, peak, late = _wait(process, limit_seconds)
        seconds = time.perf_counter() - start
        result, told = None, False
        if late:
            reason = f"took longer than {limit_seconds:g} s"
        elif code:
            reason, told = _reason(code, _text(errors))
        else:
            result = read_result(_text(output))
            reason = "" if result else "the result is not the JSON that was asked for"
        return Run(code, seconds, peak if peak > floor else None, result, reason, told)


def read_result(text: str) -> Result | None:
    """The figures in a transcript's JSON; None when it is not one."""
    try:
        told = json.loads(text)
        memory, hotwords = told.get("device_memory"), told.get("hotwords")
        return Result(
            text=str(told["text"]),
            audio_seconds=float(told["duration"]),
            rtf=float(told["rtf"]),
            peak_rss_bytes=_whole(told.get("peak_rss_bytes")),
            device_peak_bytes=_whole(memory.get("peak_bytes")) if isinstance(memory, dict) else None,
            device=_word(told.get("device")),
            precision=_word(told.get("precision")),
            model=_word(told.get("model")),
            hotwords=len(hotwords["used"]) if isinstance(hotwords, dict) else None,
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _wait(process: subprocess.Popen[bytes], limit_seconds: float) -> tuple[int, int, bool]:
    """Exit code, peak memory in bytes, and whether it had to be ended for taking too long."""
    late = threading.Event()

    def expire() -> None:
        late.set()
        os.kill(process.pid, signal.SIGKILL)

    timer = threading.Timer(limit_seconds, expire)
    timer.daemon = True
    timer.start()
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        _end(process)
        raise
    finally:
        timer.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, _bytes(usage.ru_maxrss), late.is_set()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        return
    finally:
        process.kill()  # does nothing to a process that has ended
        process.wait()


def _reason(code: int, errors: str) -> tuple[str, bool]:
    """The last failure told on standard error, as one line, and whether the program told it in its own form."""
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        hint = " (the kernel does this when memory runs out)" if -code == signal.SIGKILL else ""
        return f"ended by {name}{hint}", False
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    told = [line.partition(": ")[2] for line in lines if line.startswith(_MARKS)]
    reason = told[-1] if told else (lines[-1] if lines else f"exit code {code}, without a word")
    return reason if len(reason) <= _LONGEST_REASON else reason[: _LONGEST_REASON - 1] + "…", bool(told)


def _environment() -> dict[str, str]:
    """Of this process, with this program findable from whatever directory it was started in."""
    root = str(Path(app.__file__).resolve().parent.parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONIOENCODING": "utf-8"}


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", errors="replace")


def _bytes(maximum: int) -> int:
    return maximum if sys.platform == "darwin" else maximum * 1024


def _whole(value: Any) -> int | None:
    return int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None

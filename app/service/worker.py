"""Supervision of the worker process: started, restarted with back-off, put to sleep when idle, never waited for long.

Here: one process at a time, batches out and results back, and what its death means for the batches in flight. What is
run again after a death is the scheduler's decision; what the process does is worker_main.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from app.asr import errors as asr_errors
from app.asr.engine import EngineOptions
from app.asr.errors import AsrError, DeviceLostError, ResourceError
from app.asr.joining import Recognition
from app.asr.resampling import SAMPLE_RATE
from app.service.frames import (
    CANNOT_START,
    DEVICE_LOST,
    ChannelClosed,
    Frame,
    batch_frame,
    read_frame,
    results_of,
)

LOG = logging.getLogger(__name__)

WORKER_MODULE = "app.service.worker_main"
State = Literal["starting", "ready", "asleep", "failed"]
# Why a worker may end, as far as that is known before; the others are named after their signal or exit code.
CAUSES = ("killed", "hung", "device lost")
_BACK_OFF_SECONDS = (0.2, 1.0, 3.0, 10.0, 30.0)
# So many deaths in a row are an absence that work waits out; more may go on for minutes.
_SHORT_ABSENCES = 3


class WorkerDied(Exception):  # noqa: N818 - an event; whether it is an error is for the scheduler to say
    """The process ended with this batch in its hands; `cause` is for people and metrics."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


@dataclass(frozen=True)
class WorkerSettings:
    """How the process is treated.

    Args:
        idle_seconds: without work for so long it is ended, which frees all it held; None keeps it.
        start_seconds: a start that takes longer has hung.
        batch_seconds: so long a batch may take, and `batch_factor` times its audio in addition.
        lost_devices: a device lost so many times in a row is not coming back in this container.
        try_again_seconds: a model that could not be opened is tried again after so long.
    """

    idle_seconds: float | None = None
    start_seconds: float = 600.0
    batch_seconds: float = 60.0
    batch_factor: float = 5.0
    lost_devices: int = 2
    try_again_seconds: float = 30.0


@dataclass
class Outcome:
    """Results of a batch; `tokens` are the words themselves where ids mean nothing outside the worker, `seconds` what
    the worker took."""

    results: list[Recognition]
    tokens: list[list[str]] | None
    seconds: float


class Worker:
    """One worker process and its successors. All methods belong to one event loop.

    Args:
        module: what the process runs; tests put another in its place.
    """

    def __init__(
        self, options: EngineOptions, settings: WorkerSettings | None = None, module: str = WORKER_MODULE
    ) -> None:
        self._module = module
        self._options, self.settings = options, settings or WorkerSettings()
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._idling: asyncio.Task[None] | None = None
        self._ready: asyncio.Event = asyncio.Event()
        self._starting = asyncio.Lock()
        self._batches: dict[int, asyncio.Future[Frame]] = {}
        self._next = 0
        self._deaths_in_a_row = 0
        self._lost_in_a_row = 0
        self._hung = False
        self._failed_at = 0.0
        self._told = ""
        self._closing = False
        self._last_work = time.monotonic()
        # Set when the device was lost again and again: only a new container can bring it back.
        self.device_gone = asyncio.Event()
        self.state: State = "asleep"
        self.message = "not started yet"
        self.error: AsrError | None = None
        self.description: Mapping[str, Any] = {}
        self.statistics: Mapping[str, Any] = {}
        self.restarts: Counter[str] = Counter()

    @property
    def pid(self) -> int | None:
        """The process now running."""
        return self._process.pid if self._process is not None else None

    @property
    def resumes(self) -> bool:
        """Whether it is on its way up again after it was ready: work waits a moment for it."""
        been_ready = bool(self.description)
        return self.state == "starting" and been_ready and self._deaths_in_a_row <= _SHORT_ABSENCES

    async def start(self) -> None:
        """Makes sure that a process is ready; waits for it.

        Raises:
            AsrError: the model cannot be opened; the reason is the worker's own.
        """
        async with self._starting:
            while not (self._process is not None and self._ready.is_set()):
                if self._closing:
                    raise ResourceError("the service is shutting down", fix="Try again in a moment.")
                waited = time.monotonic() - self._failed_at
                if self.error is not None and waited < self.settings.try_again_seconds:
                    raise self.error
                await self._start_once()

    async def run(
        self, segments: Sequence[NDArray[np.float32]], hotwords: Sequence[Sequence[int]]
    ) -> Outcome:
        """Recognises segments (16 kHz mono samples each) as one batch.

        Raises:
            WorkerDied: the process ended meanwhile; the batch may be run again.
            AsrError: the batch cannot be recognised.
        """
        await self.start()
        if self._writer is None:
            raise WorkerDied("ended before the batch reached it")
        self._next += 1
        number, self._last_work = self._next, time.monotonic()
        answer: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._batches[number] = answer
        seconds = sum(len(segment) for segment in segments) / SAMPLE_RATE
        limit = self.settings.batch_seconds + self.settings.batch_factor * seconds
        try:
            send = self._exchange(batch_frame(number, segments, hotwords), answer)
            frame = await asyncio.wait_for(send, limit * max(1, len(self._batches)))
        except asyncio.TimeoutError:
            await self._end(f"hung: no answer to {seconds:.0f} s of audio within {limit:.0f} s")
            raise WorkerDied("hung") from None
        finally:
            self._batches.pop(number, None)
            self._last_work = time.monotonic()
        self._deaths_in_a_row = self._lost_in_a_row = 0
        self.statistics = frame.header["statistics"]
        return Outcome(results_of(frame), frame.header.get("tokens"), float(frame.header["seconds"]))

    async def _exchange(self, question: Frame, answer: asyncio.Future[Frame]) -> Frame:
        """Sends a batch and waits for its answer. A process that hangs does not even take the question."""
        if self._writer is not None:
            with contextlib.suppress(OSError):  # its death is told by the reading task
                self._writer.write(question.encode())
                await self._writer.drain()
        return await answer

    async def close(self) -> None:
        """Ends the process for good."""
        self._closing = True
        if self._idling is not None:
            self._idling.cancel()
            await asyncio.gather(self._idling, return_exceptions=True)
        await self._stop("closed")

    async def _start_once(self) -> None:
        pause = _BACK_OFF_SECONDS[min(self._deaths_in_a_row, len(_BACK_OFF_SECONDS)) - 1]
        if self._deaths_in_a_row:
            self.message = f"starting again in {pause:g} s"
            await asyncio.sleep(pause)
        self.state, self.message, self.error = "starting", f"loading {self._options.model}", None
        self._ready = asyncio.Event()
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", self._module, str(theirs.fileno())]
            self._process = await asyncio.create_subprocess_exec(
                *command,
                json.dumps(asdict(self._options)),
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # Ctrl-C is for the web process, which ends this one in order
            )
        reader, self._writer = await asyncio.open_connection(sock=ours, limit=1 << 20)
        self._reading = asyncio.create_task(self._read(reader, self._writer, self._process))
        ready = asyncio.create_task(self._ready.wait())
        done, _ = await asyncio.wait(
            {ready, self._reading}, timeout=self.settings.start_seconds, return_when=asyncio.FIRST_COMPLETED
        )
        if not done:
            await self._end(f"hung while loading for {self.settings.start_seconds:.0f} s")
        if ready not in done:
            ready.cancel()
        if self.error is not None:
            raise self.error
        if self._idling is None and self.settings.idle_seconds is not None:
            self._idling = asyncio.create_task(self._watch_idleness(self.settings.idle_seconds))

    async def _read(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        process: asyncio.subprocess.Process,
    ) -> None:
        """Takes what the process says until it is gone, then tells those who waited."""
        lost = False
        try:
            while True:
                frame = await read_frame(reader)
                if frame.kind == "ready":
                    self.description, self.state = frame.header, "ready"
                    self.statistics = frame.header.get("statistics", {})
                    self.message = f"ready on {frame.header['device']} in {frame.header['precision']}"
                    self._ready.set()
                    self._told = ""
                elif frame.kind == "cannot start":
                    self.error, self._failed_at = _error(frame), time.monotonic()
                    if str(self.error) != self._told:  # it is tried again and again, and told once
                        self._told = str(self.error)
                        LOG.error("the model cannot be opened: %s", self._told)
                elif frame.kind == "failed":
                    lost = lost or bool(frame.header["lost"])
                    self._answer(frame, _error(frame))
                else:
                    self._answer(frame, None)
        except ChannelClosed:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            code = await process.wait()
            cause = "hung" if self._hung else _cause(code, lost=lost)
            self._hung = False
            self._gone(cause, expected=self._process is not process)

    def _answer(self, frame: Frame, error: AsrError | None) -> None:
        answer = self._batches.get(int(frame.header["id"]))
        if answer is None or answer.done():
            return  # given up long ago
        if isinstance(error, DeviceLostError):
            return  # the process ends now, and the batch can be run again elsewhere
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(frame)

    def _gone(self, cause: str, *, expected: bool) -> None:
        """The process has ended: by our wish, or not."""
        if expected:
            return
        self._process = self._writer = None
        self._ready.clear()
        if cause == "device lost":
            self._lost_in_a_row += 1
            if self._lost_in_a_row >= self.settings.lost_devices:
                self.device_gone.set()
        if self.error is not None:
            self.state, self.message = "failed", str(self.error)
        else:
            self._deaths_in_a_row += 1
            self.restarts[cause] += 1
            self.state, self.message = "starting", f"the worker ended ({cause}) and is started again"
            LOG.warning("worker ended: %s; %d batches in flight", cause, len(self._batches))
        for answer in self._batches.values():
            if not answer.done():
                answer.set_exception(WorkerDied(cause))

    async def _end(self, reason: str) -> None:
        """Kills a process that does not answer."""
        process = self._process
        if process is not None:
            LOG.error("worker killed: %s", reason)
            self._hung = True
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            if self._reading is not None:
                await asyncio.wait({self._reading}, timeout=10)

    async def _stop(self, why: str) -> None:
        """Ends an idle process in peace."""
        process, self._process = self._process, None
        writer, self._writer = self._writer, None
        listens = self._ready.is_set()
        self._ready.clear()
        if process is None:
            self.state, self.message = "asleep", why
            return
        if not listens:  # it loads, and would hear only afterwards
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        elif writer is not None:
            with contextlib.suppress(OSError):
                writer.write(Frame({"kind": "stop"}).encode())
        try:
            await asyncio.wait_for(process.wait(), 10)
        except asyncio.TimeoutError:
            process.kill()
            await process.wait()
        if self._reading is not None:
            await asyncio.gather(self._reading, return_exceptions=True)
        self.state, self.message = "asleep", why

    async def _watch_idleness(self, limit: float) -> None:
        while not self._closing:
            await asyncio.sleep(max(0.05, limit / 10))
            idle = time.monotonic() - self._last_work
            if self._process is not None and self._ready.is_set() and not self._batches and idle > limit:
                async with self._starting:
                    if not self._batches:
                        LOG.info("worker ended after %.0f s without work; its memory is free", idle)
                        await self._stop("asleep; wakes with the next request")


def _cause(code: int, *, lost: bool) -> str:
    if lost or code == DEVICE_LOST:
        return "device lost"
    if code == CANNOT_START:
        return "cannot start"
    if code == -9:
        return "killed"  # by the kernel for memory, or by somebody
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _error(frame: Frame) -> AsrError:
    """The worker's error, as its own class where that is known."""
    kind = getattr(asr_errors, str(frame.header["error"]), AsrError)
    made: AsrError = kind(str(frame.header["problem"]), fix=str(frame.header["fix"]))
    return made

"""Segments of all requests to batches of the one worker, fairly, each exactly once.

Clients take turns, and so do the requests of one client: a three-hour file beside a five-second one delays it by a
batch or two. Segments of several requests share batches where their hot words are the same. A batch that dies with
the worker is run again, its segments one by one: so the one that kills is found, and only its request fails. A
segment for which there is no memory at the moment is tried again for a while.
Not here: files and words (recogniser.py), the process (worker.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from app.asr.errors import AsrError, MemoryShortageError, ResourceError
from app.asr.joining import Recognition
from app.asr.resampling import SAMPLE_RATE
from app.service.worker import Outcome, WorkerDied

LOG = logging.getLogger(__name__)

# Batches at the worker at once: one is computed while the next one's features are made.
IN_FLIGHT = 2
# A segment with which the worker died so many times, each time alone with it, is not sent again.
MOST_ATTEMPTS = 5
# A segment that finds no memory is tried again after these pauses, the last one again and again, for so long in all:
# what other programs take, they often give back, and a worker that was killed is loaded again within seconds.
_SHORTAGE_PAUSES, SHORTAGE_SECONDS = (0.5, 1.0, 2.0, 4.0), 60.0
# Weight of the newest batch in the measured speed.
_NEWEST = 0.2

Hotwords = tuple[tuple[int, ...], ...]


class BatchWorker(Protocol):
    """What the scheduler needs of a worker."""

    async def run(
        self, segments: Sequence[NDArray[np.float32]], hotwords: Sequence[Sequence[int]]
    ) -> Outcome: ...


@dataclass(frozen=True)
class Recognised:
    """What became of one segment; `tokens` are its words where ids mean nothing outside the worker."""

    result: Recognition
    tokens: list[str] | None
    waited_seconds: float


@dataclass(eq=False)
class _Item:
    samples: NDArray[np.float32]
    hotwords: Hotwords
    future: asyncio.Future[Recognised]
    submitted: float = field(default_factory=time.monotonic)
    attempts: int = 0
    refusals: int = 0
    refused: float = 0.0  # when it first found no memory

    @property
    def seconds(self) -> float:
        return len(self.samples) / SAMPLE_RATE


class Scheduler:
    """Call `start`, submit segments from any task of the loop, and `close` at the end.

    Args:
        most_rows: segments that the worker gains from taking at once; may change when it is ready.
    """

    def __init__(self, worker: BatchWorker, *, most_rows: int = 1) -> None:
        self._worker = worker
        self.most_rows = most_rows
        # client -> request -> its waiting segments; the first of each level is next.
        self._clients: OrderedDict[str, OrderedDict[str, deque[_Item]]] = OrderedDict()
        self._unfinished: set[_Item] = set()
        self._suspects: deque[_Item] = deque()  # were in the worker's hands when it died: run alone
        self._something = asyncio.Event()
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.Task[None] | None = None
        self.rtf: float | None = None

    def start(self) -> None:
        """Begins to hand out work."""
        self._loop = asyncio.create_task(self._run(), name="scheduler")

    async def close(self) -> None:
        """Stops; what still waits is cancelled."""
        tasks = [task for task in (self._loop, *self._tasks) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for item in list(self._unfinished):
            item.future.cancel()

    async def submit(
        self, client: str, request: str, samples: NDArray[np.float32], hotwords: Hotwords
    ) -> Recognised:
        """Recognises one segment; returns when that is done. Cancelling takes it out of the queue.

        Raises:
            AsrError: it cannot be recognised.
        """
        item = _Item(samples, hotwords, asyncio.get_running_loop().create_future())
        self._unfinished.add(item)
        item.future.add_done_callback(lambda _: self._unfinished.discard(item))
        self._clients.setdefault(client, OrderedDict()).setdefault(request, deque()).append(item)
        self._something.set()
        return await item.future

    @property
    def waiting(self) -> int:
        """Segments that have not reached the worker."""
        return len(self._waiting()) + len(self._suspects)

    @property
    def oldest_seconds(self) -> float:
        """How long the oldest segment that waits or is at work has been here; 0 when there is none."""
        return max((time.monotonic() - item.submitted for item in self._unfinished), default=0.0)

    def _waiting(self) -> list[_Item]:
        return [item for requests in self._clients.values() for items in requests.values() for item in items]

    async def _run(self) -> None:
        while True:
            await self._slots.acquire()
            slots = 1
            while slots < IN_FLIGHT and self._suspects:
                await (
                    self._slots.acquire()
                )  # a suspect runs alone: else it could not be told from its neighbour
                slots += 1
            batch = self._suspect() if slots == IN_FLIGHT else self._next_batch()
            if not batch:
                for _ in range(slots):
                    self._slots.release()
                if not self._suspects and not self.waiting:
                    self._something.clear()
                    await self._something.wait()
                continue
            task = asyncio.create_task(self._attempt(batch, slots))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _suspect(self) -> list[_Item]:
        while self._suspects:
            item = self._suspects.popleft()
            if not item.future.done():
                return [item]
        return []

    def _next_batch(self) -> list[_Item]:
        batch: list[_Item] = []
        while len(batch) < self.most_rows:
            item_or_none = self._take(batch[0].hotwords if batch else None)
            if item_or_none is None:
                break
            batch.append(item_or_none)
        return batch

    def _take(self, hotwords: Hotwords | None) -> _Item | None:
        """The next segment in turn, of those with these hot words; None when there is none."""
        for client in list(self._clients):
            requests = self._clients[client]
            for request in list(requests):
                items = requests[request]
                while items and items[0].future.done():
                    items.popleft()  # its request has gone
                if not items:
                    del requests[request]
                elif hotwords is None or items[0].hotwords == hotwords:
                    requests.move_to_end(request)
                    self._clients.move_to_end(client)
                    return items.popleft()
            if not requests:
                del self._clients[client]
        return None

    async def _attempt(self, batch: list[_Item], slots: int) -> None:
        """Runs a batch, and tells or queues again what came of it; `slots` are free again then."""
        try:
            started = time.monotonic()
            outcome = await self._worker.run([item.samples for item in batch], batch[0].hotwords)
        except WorkerDied as death:
            self._again(batch, death.cause, alone=slots == IN_FLIGHT)
        except AsrError as error:
            if len(batch) == 1:
                self._refused(batch[0], error)
            else:
                self._suspects.extend(batch)  # one of them; each alone will show
        else:
            seconds = sum(item.seconds for item in batch)
            newest = outcome.seconds / max(seconds, 1e-3)
            self.rtf = newest if self.rtf is None else (1 - _NEWEST) * self.rtf + _NEWEST * newest
            for place, item in enumerate(batch):
                tokens = outcome.tokens[place] if outcome.tokens is not None else None
                if not item.future.done():
                    waited = started - item.submitted
                    item.future.set_result(Recognised(outcome.results[place], tokens, waited))
        finally:
            for _ in range(slots):
                self._slots.release()
            self._something.set()

    def _refused(self, item: _Item, error: AsrError) -> None:
        """The worker cannot recognise it: for want of memory, then perhaps later; or at all."""
        now = time.monotonic()
        item.refused = item.refused or now
        pause = _SHORTAGE_PAUSES[min(item.refusals, len(_SHORTAGE_PAUSES) - 1)]
        if not isinstance(error, MemoryShortageError) or now + pause > item.refused + SHORTAGE_SECONDS:
            _fail(item, error)
            return
        if not item.refusals:
            LOG.warning("a segment waits for memory: %s", error.problem)
        item.refusals += 1
        asyncio.get_running_loop().call_later(pause, self._return, item)

    def _return(self, item: _Item) -> None:
        self._suspects.append(item)
        self._something.set()

    def _again(self, batch: list[_Item], cause: str, *, alone: bool) -> None:
        for item in batch:
            # With others at the worker nobody knows whose fault it was.
            item.attempts += 1 if alone else 0
            if item.attempts < MOST_ATTEMPTS:
                self._suspects.append(item)
                continue
            _fail(
                item,
                ResourceError(
                    f"the worker died {item.attempts} times over {item.seconds:.0f} s of this audio ({cause})",
                    fix="Use shorter segments, or give the service more memory.",
                ),
            )
        LOG.warning("%d segments are run again after the worker died (%s)", len(batch), cause)


def _fail(item: _Item, error: AsrError) -> None:
    with contextlib.suppress(asyncio.InvalidStateError):
        item.future.set_exception(error)

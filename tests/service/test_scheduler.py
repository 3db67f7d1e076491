"""Turns, shared batches, and what becomes of segments when the worker dies: with a worker that does as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from app.asr.errors import AsrError, MemoryShortageError, ResourceError
from app.asr.joining import Recognition
from app.service import scheduler as scheduler_module
from app.service.scheduler import MOST_ATTEMPTS, Hotwords, Recognised, Scheduler
from app.service.worker import Outcome, WorkerDied


def _segment(name: int) -> NDArray[np.float32]:
    """A segment that says its own number."""
    return np.full(1600, name, np.float32)


class FakeWorker:
    """Recognises a segment as its number. `poison` kills it, `bad` is refused, `deaths` come whatever it is given,
    and so does want of memory, `shortages` times."""

    def __init__(self, *, poison: int = -1, bad: int = -1, deaths: int = 0, shortages: int = 0) -> None:
        self.poison, self.bad, self.deaths, self.shortages = poison, bad, deaths, shortages
        self.ran: list[tuple[list[int], Hotwords]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def run(
        self, segments: Sequence[NDArray[np.float32]], hotwords: Sequence[Sequence[int]]
    ) -> Outcome:
        await self.gate.wait()
        await asyncio.sleep(0)
        names = [int(segment[0]) for segment in segments]
        self.ran.append((names, tuple(tuple(word) for word in hotwords)))
        if self.deaths > 0:
            self.deaths -= 1
            raise WorkerDied("killed")
        if self.poison in names:
            raise WorkerDied("killed")
        if self.shortages > 0:
            self.shortages -= 1
            raise MemoryShortageError("no room", fix="stop others")
        if self.bad in names:
            raise ResourceError("too much", fix="less")
        time = np.zeros(1, np.float32)
        return Outcome([Recognition(np.array([name], np.int32), time, time) for name in names], None, 0.01)


def _with(worker: FakeWorker, work: Callable[[Scheduler], Awaitable[None]], most_rows: int = 1) -> None:
    async def all_of_it() -> None:
        scheduler = Scheduler(worker, most_rows=most_rows)
        scheduler.start()
        try:
            await asyncio.wait_for(work(scheduler), 10)
        finally:
            await scheduler.close()

    asyncio.run(all_of_it())


def _submit(
    scheduler: Scheduler, client: str, request: str, name: int, hotwords: Hotwords = ()
) -> asyncio.Task[Recognised]:
    return asyncio.create_task(scheduler.submit(client, request, _segment(name), hotwords))


async def _all(tasks: Sequence[asyncio.Task[Recognised]]) -> list[int]:
    return [int(found.result.ids[0]) for found in await asyncio.gather(*tasks)]


def test_clients_take_turns_and_so_do_their_requests() -> None:
    worker = FakeWorker()

    async def work(scheduler: Scheduler) -> None:
        worker.gate.clear()
        tasks = [_submit(scheduler, "a", "long", name) for name in range(10)]
        tasks += [_submit(scheduler, "a", "other", 20), _submit(scheduler, "b", "short", 30)]
        await asyncio.sleep(0.01)
        worker.gate.set()
        assert await _all(tasks) == [*range(10), 20, 30]

    _with(worker, work)
    order = [names[0] for names, _ in worker.ran]
    # Two were at the worker already when the others came.
    assert order.index(30) <= 3 and order.index(20) <= 4
    assert [name for name in order if name < 10] == list(range(10))


def test_the_oldest_segment_counts_from_when_it_came_to_when_it_is_done() -> None:
    """At the worker it still counts: one that hangs there is what somebody must hear of."""
    worker = FakeWorker(deaths=1)

    async def work(scheduler: Scheduler) -> None:
        assert scheduler.oldest_seconds == 0.0
        worker.gate.clear()
        task = _submit(scheduler, "a", "file", 1)
        await asyncio.sleep(0.02)
        _submit(scheduler, "a", "gone", 2).cancel()
        before = scheduler.oldest_seconds
        assert before >= 0.02
        await asyncio.sleep(0.01)
        assert scheduler.oldest_seconds > before
        worker.gate.set()
        await task
        assert scheduler.oldest_seconds == 0.0

    _with(worker, work)


def test_requests_share_batches_when_their_hot_words_are_the_same() -> None:
    worker = FakeWorker()

    async def work(scheduler: Scheduler) -> None:
        worker.gate.clear()
        words: Hotwords = ((5, 6),)
        tasks = [_submit(scheduler, "c", str(name), name, words if name % 2 else ()) for name in range(20)]
        await asyncio.sleep(0.01)
        worker.gate.set()
        assert await _all(tasks) == list(range(20))

    _with(worker, work, most_rows=8)
    assert max(len(names) for names, _ in worker.ran) >= 5
    for names, words in worker.ran:
        assert {name % 2 for name in names} == {1 if words else 0}


def test_a_death_costs_nobody_a_word() -> None:
    worker = FakeWorker(deaths=4)

    async def work(scheduler: Scheduler) -> None:
        tasks = [_submit(scheduler, "c", str(name), name) for name in range(12)]
        assert await _all(tasks) == list(range(12))

    _with(worker, work, most_rows=4)


def test_the_segment_that_kills_is_found_and_only_its_request_fails() -> None:
    worker = FakeWorker(poison=3)

    async def work(scheduler: Scheduler) -> None:
        tasks = [_submit(scheduler, "c", str(name), name) for name in range(12)]
        poisoned = tasks.pop(3)
        assert await _all(tasks) == [name for name in range(12) if name != 3]
        with pytest.raises(ResourceError, match=f"worker died {MOST_ATTEMPTS} times"):
            await poisoned

    _with(worker, work, most_rows=4)
    alone = [names for names, _ in worker.ran if names == [3]]
    assert len(alone) >= MOST_ATTEMPTS


def test_want_of_memory_is_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler_module, "_SHORTAGE_PAUSES", (0.001, 0.002))
    worker = FakeWorker(shortages=30)

    async def work(scheduler: Scheduler) -> None:
        assert await _all([_submit(scheduler, "c", str(name), name) for name in range(6)]) == list(range(6))

    _with(worker, work, most_rows=4)
    assert worker.shortages == 0


def test_want_of_memory_that_lasts_fails_the_request_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler_module, "_SHORTAGE_PAUSES", (0.001,))
    monkeypatch.setattr(scheduler_module, "SHORTAGE_SECONDS", 0.02)
    worker = FakeWorker(shortages=1_000_000)

    async def work(scheduler: Scheduler) -> None:
        with pytest.raises(MemoryShortageError, match="no room"):
            await _submit(scheduler, "c", "r", 1)
        assert scheduler.oldest_seconds == 0.0

    _with(worker, work)
    assert len(worker.ran) > 2


def test_an_error_in_a_batch_is_that_of_one_segment() -> None:
    worker = FakeWorker(bad=2)

    async def work(scheduler: Scheduler) -> None:
        tasks = [_submit(scheduler, "c", str(name), name) for name in range(6)]
        bad = tasks.pop(2)
        assert await _all(tasks) == [0, 1, 3, 4, 5]
        with pytest.raises(AsrError, match="too much"):
            await bad

    _with(worker, work, most_rows=6)


def test_a_request_that_goes_takes_its_segments_out_of_the_queue() -> None:
    worker = FakeWorker()

    async def work(scheduler: Scheduler) -> None:
        worker.gate.clear()
        gone = [_submit(scheduler, "a", "gone", name) for name in range(50)]
        stays = _submit(scheduler, "b", "stays", 99)
        await asyncio.sleep(0.01)
        for task in gone:
            task.cancel()
        worker.gate.set()
        assert await _all([stays]) == [99]

    _with(worker, work)
    assert len(worker.ran) <= 3


def test_speed_is_measured() -> None:
    worker = FakeWorker()

    async def work(scheduler: Scheduler) -> None:
        assert scheduler.rtf is None
        await _all([_submit(scheduler, "c", "r", 1)])
        assert scheduler.rtf == pytest.approx(0.1)

    _with(worker, work)

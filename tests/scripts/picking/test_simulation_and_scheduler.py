"""The simulated instance beside the service's own scheduler, on a clock that only computing moves: the same waits."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from app.asr.joining import Recognition
from app.asr.resampling import SAMPLE_RATE
from app.service.scheduler import Scheduler
from app.service.worker import Outcome
from scripts.picking.simulation import Rules, Server, simulate

SERVER, SEGMENT = Server(rtf=0.05), 15.0
# Segments that a file has at the scheduler: app/service/file_run.py cuts no further ahead.
AHEAD = 4


class ClockOfWork(asyncio.SelectorEventLoop):
    """An event loop whose time stands still while anything can run, and else jumps to the next timer."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self.now = max(self.now, self._scheduled[0].when())  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


class FakeWorker:
    """Computes one segment after another, for as long as an instance of that speed would."""

    def __init__(self) -> None:
        self._busy = asyncio.Lock()

    async def run(
        self, segments: Sequence[NDArray[np.float32]], hotwords: Sequence[Sequence[int]]
    ) -> Outcome:
        seconds = sum(len(segment) for segment in segments) / SAMPLE_RATE * SERVER.rtf
        async with self._busy:
            await asyncio.sleep(seconds)
        return Outcome([Recognition.nothing()] * len(segments), None, seconds)


async def waits_of(sent: Sequence[tuple[float, float]], *, one_client: bool) -> list[float]:
    scheduler = Scheduler(FakeWorker())
    scheduler.start()
    clock = asyncio.get_running_loop()

    async def file(place: int, moment: float, audio: float) -> float:
        await asyncio.sleep(moment - clock.time())
        client, room = "all" if one_client else str(place), asyncio.Semaphore(AHEAD)

        async def segment(seconds: float) -> None:
            samples = np.broadcast_to(np.float32(0), (round(seconds * SAMPLE_RATE),))
            await scheduler.submit(client, str(place), samples, ())
            room.release()

        tasks = []
        while audio > 0:
            await room.acquire()
            tasks.append(asyncio.create_task(segment(min(SEGMENT, audio))))
            audio -= SEGMENT
        await asyncio.gather(*tasks)
        return clock.time() - moment

    answers = await asyncio.gather(*(file(place, *one) for place, one in enumerate(sent)))
    await scheduler.close()
    return [answer - SERVER.alone(audio) for answer, (_, audio) in zip(answers, sent, strict=True)]


@pytest.mark.parametrize("one_client", [True, False])
@pytest.mark.parametrize("load", [0.4, 0.9])
def test_files_wait_as_long_at_the_scheduler_as_in_the_simulation(load: float, *, one_client: bool) -> None:
    lengths = [2.0, 10.0, 31.0, 60.0, 300.0]
    rate = load / (sum(map(SERVER.alone, lengths)) / len(lengths))
    for seed in range(3):
        chance, now, sent = random.Random(seed), 0.0, []
        for _ in range(200):
            now += chance.expovariate(rate)
            sent.append((now, chance.choice(lengths)))
        clock = ClockOfWork()
        try:
            real = clock.run_until_complete(waits_of(sent, one_client=one_client))
        finally:
            clock.close()
        simulated = simulate([SERVER], sent, Rules(queue=1e9, connections=None)).waits
        assert simulated == pytest.approx(real, abs=1e-6)
        assert max(real) > 1

"""The service's engine with a real worker process and the shipped model: the right words, whatever happens."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from app.asr.catalogue import DEMO_PACKS
from app.asr.engine import EngineOptions
from app.asr.errors import AsrError, AudioError, InputError, PackError
from app.asr.marks import NamedMarker
from app.service.recogniser import Recogniser
from app.service.recognising import EngineStatus, RecognitionRequest, StoredSegment
from app.service.worker import WorkerSettings
from tests.fakes.marker import FakeMarker

RECORDINGS = DEMO_PACKS.parent / "recordings"
LISTED = {
    row["file"]: row
    for row in json.loads((RECORDINGS / "recordings.json").read_text(encoding="utf-8"))["recordings"]
}
MEETING = LISTED["meeting.ogg"]["text"]


@asynccontextmanager
async def _engine(
    settings: WorkerSettings | None = None, punctuation: NamedMarker | None = None, **options: object
) -> AsyncIterator[Recogniser]:
    chosen = EngineOptions(threads=1, **options)  # type: ignore[arg-type]
    recogniser = Recogniser(chosen, settings, punctuation)
    await recogniser.start()
    try:
        yield recogniser
    finally:
        await recogniser.close()


def _run(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 120))


async def _text(recogniser: Recogniser, name: str = "golden.wav", **more: object) -> str:
    request = RecognitionRequest(RECORDINGS / name, **more)  # type: ignore[arg-type]
    async with recogniser.recognise(request) as run:
        return "".join([word.text async for utterance in run for word in utterance.words])


async def _state(recogniser: Recogniser, wanted: str) -> EngineStatus:
    for _ in range(3000):
        if recogniser.status().state == wanted:
            break
        await asyncio.sleep(0.02)
    return recogniser.status()


def test_words_hot_words_and_figures() -> None:
    async def work() -> None:
        async with _engine() as recogniser:
            request = RecognitionRequest(RECORDINGS / "meeting.ogg")
            async with recogniser.recognise(request) as run:
                words = [word async for utterance in run for word in utterance.words]
            assert "".join(word.text for word in words) == MEETING
            assert 170 < run.audio_seconds < 200 and run.elapsed_seconds > 0
            assert run.progress[0] == pytest.approx(run.audio_seconds, abs=3)
            name = next(file for file, row in LISTED.items() if row["hotwords"])
            wanted = LISTED[name]
            assert await _text(recogniser, name, hotwords="，".join(wanted["hotwords"])) == wanted["text"]
            status = recogniser.status()
            assert (status.state, status.device, status.precision) == ("ready", "cpu", "int8")
            assert status.has_hotwords and "golden clip" in status.self_check and status.rtf is not None
            assert status.waiting_seconds == status.oldest_seconds == 0 and not status.restarts
            # On a CPU nothing is told of a device's memory; counters are there from the start.
            assert status.statistics["device_budget_bytes"] is None
            assert status.statistics["out_of_memory"] == 0

    _run(work)


def test_punctuation_changes_no_word_and_does_not_hold_up_the_event_loop() -> None:
    class SlowMarker(FakeMarker):
        """Takes its time, and notes where."""

        threads: ClassVar[set[str]] = set()

        def best(self, rows: NDArray[np.float32]) -> list[int]:
            self.threads.add(threading.current_thread().name)
            time.sleep(0.05)
            return super().best(rows)

    async def work() -> None:
        marker = SlowMarker({MEETING[10]: "。"})
        async with _engine(punctuation=marker) as recogniser:
            request = RecognitionRequest(RECORDINGS / "meeting.ogg")
            async with recogniser.recognise(request) as run:
                said = [utterance async for utterance in run]
            words = [word for utterance in said for word in utterance.words]
            assert "".join(word.text for word in words) == MEETING
            assert {word.mark for word in words} == {"", "。"} and words[-1].mark == "。"
            assert not any(word.mark for utterance in said for word in utterance.words[:-1])
            assert recogniser.status().punctuation == "fake, fp32"
            assert marker.threads and threading.main_thread().name not in marker.threads

    _run(work)


def test_requests_that_come_while_the_model_loads_wait_for_it() -> None:
    async def work() -> None:
        async with _engine() as recogniser:
            texts = await asyncio.gather(*(_text(recogniser) for _ in range(6)))
            assert texts == [LISTED["golden.wav"]["text"]] * 6

    _run(work)


def test_many_at_once_and_a_short_one_does_not_wait_for_a_long_one() -> None:
    async def work() -> None:
        async with _engine() as recogniser:
            await _text(recogniser)
            order: list[str] = []

            async def one(name: str, client: str) -> None:
                text = await _text(recogniser, name, client=client)
                assert text == LISTED[name]["text"]
                order.append(name)

            long = [one("meeting.ogg", "a") for _ in range(3)]
            short = [one("golden.wav", "b") for _ in range(10)]
            await asyncio.gather(*long, *short)
            assert order[:10] == ["golden.wav"] * 10

    _run(work)


def test_a_worker_that_is_killed_loses_nothing() -> None:
    async def work() -> None:
        rng = random.Random(5)
        async with _engine() as recogniser:
            await _text(recogniser)
            killed = 0

            async def kill() -> None:
                nonlocal killed
                while killed < 4:
                    await asyncio.sleep(rng.uniform(0.1, 1.0))
                    pid = recogniser.worker_pid
                    if pid is not None and recogniser.status().state == "ready":
                        os.kill(pid, signal.SIGKILL)
                        killed += 1

            killing = asyncio.create_task(kill())
            texts = await asyncio.gather(*(_text(recogniser, "meeting.ogg", client=str(n)) for n in range(3)))
            while not killing.done():
                texts.append(await _text(recogniser, "meeting.ogg"))
            assert texts == [MEETING] * len(texts)
            assert recogniser.status().restarts["killed"] == killed == 4

    _run(work)


def test_a_worker_that_hangs_is_ended_and_its_work_done_again() -> None:
    async def work() -> None:
        async with _engine(WorkerSettings(batch_seconds=2.0, batch_factor=0.1)) as recogniser:
            await _text(recogniser)
            pid = recogniser.worker_pid
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
            assert await _text(recogniser) == LISTED["golden.wav"]["text"]
            assert recogniser.status().restarts == {"hung": 1}
            assert recogniser.worker_pid != pid

    _run(work)


def test_it_sleeps_when_idle_and_wakes_with_work() -> None:
    async def work() -> None:
        async with _engine(WorkerSettings(idle_seconds=0.3)) as recogniser:
            await _text(recogniser)
            pid = recogniser.worker_pid
            await _state(recogniser, "asleep")
            assert recogniser.worker_pid is None and pid is not None
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
            assert await _text(recogniser) == LISTED["golden.wav"]["text"]
            assert not recogniser.status().restarts

    _run(work)


def test_a_run_that_is_left_takes_its_segments_along() -> None:
    async def work() -> None:
        async with _engine() as recogniser:
            request = RecognitionRequest(RECORDINGS / "meeting.ogg")
            async with recogniser.recognise(request) as run:
                async for _ in run:
                    break
            assert recogniser.status().waiting_seconds == 0
            assert await _text(recogniser) == LISTED["golden.wav"]["text"]

    _run(work)


def test_stored_segments_are_not_recognised_again() -> None:
    async def work() -> None:
        async with _engine() as recogniser:
            request = RecognitionRequest(RECORDINGS / "meeting.ogg")
            stored: list[StoredSegment] = []
            async with recogniser.recognise(request, stored.append) as run:
                first = [utterance async for utterance in run]
            again: list[StoredSegment] = []
            half = stored[: len(stored) // 2]
            resumed = RecognitionRequest(RECORDINGS / "meeting.ogg", resume=half)
            async with recogniser.recognise(resumed, again.append) as run:
                second = [utterance async for utterance in run]
            assert [u.words for u in first] == [u.words for u in second]
            assert [segment.index for segment in again] == [s.index for s in stored[len(half) :]]
            # Segments of another cutting are of no use: they are recognised, and told, again.
            fresh: list[StoredSegment] = []
            other = RecognitionRequest(RECORDINGS / "meeting.ogg", resume=stored, segment_seconds=5)
            async with recogniser.recognise(other, fresh.append) as run:
                third = [utterance async for utterance in run]
            assert "".join(word.text for u in third for word in u.words) == MEETING
            assert len(fresh) > len(stored)

    _run(work)


def test_what_is_wrong_with_a_file_or_a_model_is_said(tmp_path: Path) -> None:
    (tmp_path / "no.wav").write_text("this is text", encoding="utf-8")

    async def work() -> None:
        async with _engine() as recogniser:
            with pytest.raises(AudioError):
                await _text(recogniser, str(tmp_path / "no.wav"))
            assert await _text(recogniser) == LISTED["golden.wav"]["text"]
        async with _engine(hotwords=False) as recogniser:
            with pytest.raises(InputError, match="no hot words"):
                await _text(recogniser, hotwords="天气")
        async with _engine(model=str(tmp_path / "nowhere")) as recogniser:
            with pytest.raises(PackError, match="no model pack") as raised:
                await _text(recogniser)
            status = recogniser.status()
            assert status.state == "failed" and "no model pack" in status.message
            assert isinstance(raised.value, AsrError) and not status.restarts

    _run(work)


def test_a_model_that_comes_later_is_found(tmp_path: Path) -> None:
    async def work() -> None:
        model = tmp_path / "pack"
        async with _engine(WorkerSettings(try_again_seconds=0.2), model=str(model)) as recogniser:
            assert (await _state(recogniser, "failed")).state == "failed"
            shutil.copytree(DEMO_PACKS / "int8", model)
            assert (await _state(recogniser, "ready")).state == "ready"
            assert await _text(recogniser) == LISTED["golden.wav"]["text"]

    _run(work)


def test_the_event_loop_stays_free_while_a_long_file_runs() -> None:
    async def work() -> None:
        async with _engine() as recogniser:
            await _text(recogniser)
            task = asyncio.create_task(_text(recogniser, "meeting.ogg"))
            waits = []
            while not task.done():
                started = asyncio.get_running_loop().time()
                await asyncio.sleep(0.01)
                waits.append(asyncio.get_running_loop().time() - started)
            assert len(waits) > 10
            assert np.median(waits) < 0.1

    _run(work)

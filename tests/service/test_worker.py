"""The worker's supervision, with a process that does what a test tells it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path

import numpy as np
import pytest

from app.asr.engine import EngineOptions
from app.asr.errors import PackError
from app.service import worker as worker_module
from app.service.worker import Worker, WorkerDied, WorkerSettings


@pytest.mark.parametrize(
    ("steps", "gone"),
    [("l", False), ("lwl", False), ("ll", True), ("wlwll", True)],
)
def test_a_device_lost_twice_without_work_in_between_is_given_up(
    tmp_path: Path, steps: str, gone: bool
) -> None:
    plan = tmp_path / "plan"
    plan.write_text(steps, encoding="ascii")

    async def scene() -> None:
        worker = Worker(EngineOptions(model=str(plan)), module="tests.fakes.losing_worker")
        try:
            for step in steps:
                assert not worker.device_gone.is_set()
                batch = worker.run([np.zeros(1600, np.float32)], [])
                if step == "l":
                    with pytest.raises(WorkerDied) as died:
                        await batch
                    assert died.value.cause == "device lost"
                else:
                    assert len((await batch).results) == 1
            assert worker.device_gone.is_set() == gone
            assert worker.restarts == {"device lost": steps.count("l")}
        finally:
            await worker.close()

    asyncio.run(asyncio.wait_for(scene(), 60))


def test_work_waits_for_a_worker_that_dies_or_wakes_and_not_for_one_that_keeps_dying(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "_BACK_OFF_SECONDS", (0.0,))
    plan = tmp_path / "plan"
    plan.write_text("wwllll", encoding="ascii")

    async def scene() -> None:
        settings = WorkerSettings(lost_devices=9)
        worker = Worker(EngineOptions(model=str(plan)), settings, module="tests.fakes.losing_worker")
        seen: list[bool] = []

        async def batch() -> None:
            running = asyncio.create_task(worker.run([np.zeros(1600, np.float32)], []))
            while worker.state != "starting" and not running.done():  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0.001)
            seen.append(worker.resumes)
            await asyncio.gather(running, return_exceptions=True)

        try:
            await batch()
            assert seen == [False], "it was never ready before"
            await worker._stop("asleep")
            await batch()
            assert seen[1:] == [True], "woken"
            for deaths in range(1, 5):
                with contextlib.suppress(WorkerDied):
                    await worker.run([np.zeros(1600, np.float32)], [])
                assert (worker.state, worker.resumes) == ("starting", deaths <= 3)
        finally:
            await worker.close()

    asyncio.run(asyncio.wait_for(scene(), 60))


def test_why_a_model_cannot_be_opened_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A supervisor's log is where a person looks first; it is tried again every few seconds."""

    async def scene() -> None:
        worker = Worker(EngineOptions(model=str(tmp_path)), WorkerSettings(try_again_seconds=0.0))
        for _ in range(2):
            with pytest.raises(PackError):
                await worker.start()
        await worker.close()

    with caplog.at_level(logging.ERROR):
        asyncio.run(asyncio.wait_for(scene(), 60))
    told = [record.getMessage() for record in caplog.records if "cannot be opened" in record.getMessage()]
    assert len(told) == 1
    assert str(tmp_path) in told[0]

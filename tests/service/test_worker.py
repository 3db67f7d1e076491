"""The worker's supervision, with a process that does what a test tells it."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import numpy as np
import pytest

from app.asr.engine import EngineOptions
from app.asr.errors import PackError
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

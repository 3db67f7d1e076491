"""A device that fails at every call there is: each segment is recognised in the end, once, with its own words."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from app.asr.engine import EngineOptions
from app.service.scheduler import Scheduler
from app.service.worker import Worker
from tests.fakes.backend import speech

SEGMENTS = [[number, 100 + number, 7] for number in range(1, 6)]
# What the supervisor counts: a shortage is no reason to end a process.
RESTARTS = {"memory": {}, "lost": {"device lost": 1}, "unknown": {"exit code 1": 1}}


@pytest.mark.parametrize("error", RESTARTS)
@pytest.mark.parametrize("call", ["prepare", "encode_hotwords", "recognise"])
def test_a_fault_at_any_call_costs_no_word(tmp_path: Path, call: str, error: str) -> None:
    plan = tmp_path / "plan"
    plan.write_text(f"{call} {error}\n", encoding="ascii")

    async def scene() -> list[list[int]]:
        worker = Worker(EngineOptions(model=str(plan)), module="tests.fakes.faulty_worker")
        scheduler = Scheduler(worker, most_rows=2)
        scheduler.start()
        try:
            waiting = [
                scheduler.submit("client", "request", speech(tokens)[:, 0], ((1, 2),)) for tokens in SEGMENTS
            ]
            found = await asyncio.gather(*waiting)
            assert worker.restarts == RESTARTS[error]
            return [[int(token) for token in one.result.ids] for one in found]
        finally:
            await scheduler.close()
            await worker.close()

    assert asyncio.run(asyncio.wait_for(scene(), 60)) == SEGMENTS
    assert plan.read_text(encoding="ascii") == "", "the fault did not happen"

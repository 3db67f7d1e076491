"""A service with nothing but jobs, to be killed: `python -m tests.service.job_process DIRECTORY LOG SECONDS`.

Runs the jobs in DIRECTORY to their end, and then ends itself. Every segment that is recognised, not taken from the
store, is a line in LOG before its result is known. A job whose upload begins with `poison` kills the process.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from app.service.job_runner import JobRules, JobRunner
from app.service.job_store import JobStore
from app.service.recognising import RecognitionRequest
from tests.fakes.recogniser import FakeRecogniser, Step, segment


def script_of(request: RecognitionRequest, log: Path, seconds: float) -> list[Step]:
    """Two characters of the upload are a segment."""
    text = request.source.read_text(encoding="utf-8")
    known = {part.index for part in request.resume}
    steps: list[Step] = []

    def note(index: int) -> None:
        if text.startswith("poison") and index > 0:
            os.kill(os.getpid(), signal.SIGKILL)
        with log.open("a") as file:
            file.write(f"{request.request_id} {index}\n")

    for index in range(len(text) // 2):
        if index not in known:
            steps += [seconds, lambda index=index: note(index)]  # type: ignore[misc]
        steps.append(segment(index, text[2 * index : 2 * index + 2]))
    return steps


async def main(directory: Path, log: Path, seconds: float) -> None:
    store = JobStore(directory)
    all_ended = asyncio.Event()

    def look(_: object) -> None:
        if not {"queued", "running"} & set(store.totals().jobs):
            all_ended.set()

    runner = JobRunner(
        store,
        FakeRecogniser(lambda request: script_of(request, log, seconds)),
        # In the test that kills at random, a job may be unlucky three times.
        JobRules(at_once=3, most_deaths=3 if seconds == 0 else 1000),
        on_end=look,
    )
    await runner.start()
    look(None)
    await all_ended.wait()
    await runner.close()
    store.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])))

"""Runs accepted jobs through the recogniser, a few at a time, and sees to it that each one ends.

Finished segments go to the store as they come, so that a job goes on where it was after kill -9. When the service
goes down in good order, running jobs go back into the queue. What is on disk is job_store.py's part.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from app.asr.errors import AsrError, InputError, MemoryShortageError
from app.asr.subtitles import ResultDetails
from app.asr.transcript import Transcript
from app.service.errors import Overloaded, ShuttingDown, TooLong, failure_of
from app.service.job_database import is_refusal
from app.service.job_records import Ending, Job, result_of
from app.service.job_store import JobStore
from app.service.recognising import Recognising, RecognitionRequest, Run, StoredSegment

_T = TypeVar("_T")
LOG = logging.getLogger(__name__)

_RETRY_SECONDS = 5.0  # after the disk refused something, or the recogniser said that it has too much to do


@dataclass(frozen=True)
class JobRules:
    """How jobs are run and kept.

    Attributes:
        at_once: jobs that run at the same time; their segments share batches.
        longest_seconds: of audio in one file; a longer one fails.
        most_deaths: of the process in a row, while a job ran and showed no sign of life; then it has failed.
        keep_seconds: ended jobs are forgotten when they are older.
        keep_bytes: of results and waiting uploads; beyond it the oldest ended jobs are forgotten.
        sweep_seconds: how often that is looked after.
        shortage_seconds: how long a job that does not get on waits for memory before it has failed.
    """

    at_once: int = 4
    longest_seconds: float = 12 * 3600.0
    most_deaths: int = 3
    keep_seconds: float = 7 * 24 * 3600.0
    keep_bytes: int = 20 << 30
    sweep_seconds: float = 60.0
    shortage_seconds: float = 1800.0


@dataclass
class _Running:
    """A job in work; what its status tells beyond the store's row."""

    job: Job
    task: asyncio.Task[None] | None = None
    began: float = field(default_factory=time.monotonic)
    run: Run | None = None
    done_before: float = 0.0  # seconds of audio that were recognised before this start
    cancelled: bool = False
    heard: bool = False  # all its segments have come
    got_on_to: float = -1.0  # seconds of audio done at the last shortage of memory
    short_since: float = 0.0  # no further than there since then
    unsaved: list[StoredSegment] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)


class JobRunner:
    """Call `start`, `wake` after jobs were accepted, and `close` at the end; all from one event loop.

    Args:
        on_end: told of each job that has ended, after that is on the disk.
    """

    def __init__(
        self,
        store: JobStore,
        recogniser: Recognising,
        rules: JobRules | None = None,
        on_end: Callable[[Job], None] | None = None,
    ) -> None:
        self._store, self._recogniser = store, recogniser
        self.rules = rules or JobRules()
        self._on_end = on_end
        self._running: dict[str, _Running] = {}
        self._something = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._closing = False

    async def start(self) -> None:
        """Takes up what was left, then begins to work."""
        ended = await asyncio.to_thread(self._store.recover, self.rules.most_deaths)
        for job in ended:
            self._tell(job)
        self._loop = asyncio.create_task(self._work(), name="jobs")

    async def close(self, grace_seconds: float = 0.0) -> None:
        """Takes no more jobs, lets those end that will within the grace period, puts the others back."""
        self._closing = True
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        tasks = [running.task for running in self._running.values() if running.task is not None]
        short = [
            running.task
            for running in self._running.values()
            if running.task is not None and self._ends_within(running.job, grace_seconds)
        ]
        if short:
            await asyncio.wait(short, timeout=grace_seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def wake(self) -> None:
        """There may be a job to take."""
        self._something.set()

    async def cancel(self, job_id: str) -> Job | None:
        """Cancels a waiting or running job and returns when that is done; an ended job stays as it is."""
        ended_here = await asyncio.to_thread(self._store.ask_to_cancel, job_id)
        running = self._running.get(job_id)
        if running is not None and running.task is not None:
            running.cancelled = True
            running.task.cancel()
            await asyncio.wait([running.task])
        job = await asyncio.to_thread(self._store.get, job_id)
        if ended_here and job is not None:
            self._tell(job)
        return job

    def progress(self, job: Job, ahead_seconds: float = 0.0) -> tuple[float, float | None, float | None]:
        """Seconds of audio done, in all, and the seconds of work left; None where that is not known.

        Args:
            ahead_seconds: of audio in waiting jobs that come before this one.
        """
        running = self._running.get(job.id)
        if job.is_ended:
            return job.done_seconds, job.total_seconds, 0.0
        if running is None or running.run is None:
            speed, total = self.speed, job.total_seconds
            if speed is None or total is None:
                return job.done_seconds, total, None
            before = sum(
                self._seconds_to_do(other) for other in self._running.values() if other is not running
            )
            return job.done_seconds, total, (before + ahead_seconds + total - job.done_seconds) * speed
        done, total = running.run.progress
        done, total = max(done, job.done_seconds), total or job.total_seconds
        worked = time.monotonic() - running.began
        rate = worked / (done - running.done_before) if done > running.done_before else self.speed
        left = max(total - done, 0.0) * rate if total is not None and rate is not None else None
        return done, total, left

    def _ends_within(self, job: Job, seconds: float) -> bool:
        left = self.progress(job)[2]
        return left is not None and left <= seconds

    def _seconds_to_do(self, running: _Running) -> float:
        done, total = running.run.progress if running.run is not None else (0.0, None)
        total = total or running.job.total_seconds or 0.0
        return max(total - max(done, running.job.done_seconds), 0.0)

    def seconds_left(self, otherwise: float) -> float:
        """When the first of the running jobs should be done; `otherwise` while that cannot be told."""
        left = [self.progress(running.job)[2] for running in self._running.values()]
        return min((seconds for seconds in left if seconds is not None), default=otherwise)

    @property
    def speed(self) -> float | None:
        """Seconds of work for a second of audio, as the recogniser measured it lately."""
        return self._recogniser.status().rtf

    async def _work(self) -> None:
        swept = -float("inf")
        while not self._closing:
            self._something.clear()
            try:
                if time.monotonic() - swept >= self.rules.sweep_seconds:
                    swept = time.monotonic()
                    await asyncio.to_thread(self._store.sweep, self.rules.keep_seconds, self.rules.keep_bytes)
                while self._may_take() and await self._take():
                    pass
            except sqlite3.Error as error:
                LOG.warning("the job database refused a change, it is tried again: %s", error)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._something.wait(), min(self.rules.sweep_seconds, 60.0))

    def _may_take(self) -> bool:
        # With an engine that does not run, jobs wait: it is not their fault.
        engine_runs = self._recogniser.status().state != "failed"
        return engine_runs and not self._closing and len(self._running) < self.rules.at_once

    async def _take(self) -> bool:
        claim = asyncio.ensure_future(asyncio.to_thread(self._store.claim))
        try:
            job = await asyncio.shield(claim)
        except asyncio.CancelledError:  # the thread goes on: what it takes must not stay "running"
            job = await claim
            if job is not None:
                await asyncio.to_thread(self._store.release, job.id)
            raise
        if job is None:
            return False
        running = self._running[job.id] = _Running(job, done_before=job.done_seconds)
        running.task = asyncio.create_task(self._run(running), name=job.id)
        return True

    async def _run(self, running: _Running) -> None:
        """One job from here to its end, or back into the queue."""
        job = running.job
        try:
            ending: Ending | None = None
            try:
                # It may have been cancelled between being taken and being known here.
                cancelled = (await self._now(job)).cancel
                ending = Ending("cancelled") if cancelled else await self._recognise(running)
            except asyncio.CancelledError:
                if running.cancelled or (await self._now(job)).cancel:
                    ending = Ending("cancelled", worked_seconds=time.monotonic() - running.began)
            if ending is None:
                await self._insist(lambda: self._store.release(job.id))
            else:
                final = ending
                self._tell(await self._insist(lambda: self._end(job, final)))
        finally:
            del self._running[job.id]
            self.wake()

    async def _recognise(self, running: _Running) -> Ending | None:
        """How the job ends; None when it goes back into the queue."""
        job = running.job
        while True:
            try:
                result = await self._listen(running)
            except Overloaded as error:
                await asyncio.sleep(min(max(error.retry_after_seconds, 0.0), 60.0))
            except ShuttingDown:
                await asyncio.sleep(_RETRY_SECONDS)  # until this runner is closed too
                return None
            except AsrError as error:
                if not isinstance(error, InputError) and self._recogniser.status().state == "failed":
                    return None
                if isinstance(error, MemoryShortageError) and self._may_wait(running):
                    await asyncio.sleep(_RETRY_SECONDS)  # finished segments are kept: it goes on where it was
                    continue
                code = failure_of(error).code or "failed"
                return self._failed(running, code, self._clean(job, error.problem), error.fix)
            except Exception as error:
                if is_refusal(error):  # a full disk is not the job's fault
                    LOG.warning("job %s waits, the job database refused a change: %s", job.id, error)
                    await asyncio.sleep(_RETRY_SECONDS)
                    continue
                LOG.exception("job %s met an error of the service itself", job.id)
                fix = "Send it again; if it fails again, report it with the log of the service."
                return self._failed(running, "internal_error", "The service failed inside", fix)
            else:
                return result

    def _may_wait(self, running: _Running) -> bool:
        """Whether a job that met a shortage of memory has patience left; it is counted anew from where it got on."""
        done = running.run.progress[0] if running.run is not None else 0.0
        if done > running.got_on_to:
            running.got_on_to, running.short_since = done, time.monotonic()
        return time.monotonic() - running.short_since < self.rules.shortage_seconds

    async def _listen(self, running: _Running) -> Ending:
        job, transcript = running.job, Transcript()
        stored = await asyncio.to_thread(self._store.segments, job.id)
        request = RecognitionRequest(
            source=self._store.upload(job.id),
            hotwords=job.hotwords,
            client=job.client,
            request_id=job.id,
            resume=tuple(stored),
        )

        def keep(segment: StoredSegment) -> None:
            running.unsaved.append(segment)
            running.arrived.set()

        running.heard = passed = False
        saver = asyncio.create_task(self._save(running))
        try:
            async with self._recogniser.recognise(request, on_segment=keep) as run:
                running.run = run
                await asyncio.to_thread(self._store.begin, job.id)
                async for utterance in run:
                    transcript.add(utterance)
                    self._check_length(run)
                    if stored and not passed:
                        await asyncio.to_thread(self._store.lives, job.id)
                        passed = True
                self._check_length(run)
        finally:
            running.heard = True
            running.arrived.set()
            await _see_through(saver)
        details = self._details(job, run, whole=not stored)
        result = await asyncio.to_thread(result_of, transcript, details)
        return Ending(
            "done",
            result=result,
            worked_seconds=job.worked_seconds + time.monotonic() - running.began,
            audio_seconds=run.audio_seconds,
        )

    async def _save(self, running: _Running) -> None:
        """Writes finished segments until all have come, those that came meanwhile in one go."""
        while not running.heard or running.unsaved:
            await running.arrived.wait()
            running.arrived.clear()
            segments, running.unsaved = running.unsaved, []
            if not segments:
                continue
            total = running.run.progress[1] if running.run is not None else None
            try:
                await asyncio.to_thread(self._store.add_segments, running.job.id, segments, total)
            except (sqlite3.Error, OSError) as error:  # after a restart they are recognised again, no worse
                LOG.warning("finished segments of job %s could not be kept: %s", running.job.id, error)
            self.wake()  # a job that was suspected may run beside others now

    def _check_length(self, run: Run) -> None:
        done, total = run.progress
        seconds = max(done, total or 0.0, run.audio_seconds)
        if seconds > self.rules.longest_seconds:
            raise TooLong(self.rules.longest_seconds, seconds)

    def _details(self, job: Job, run: Run, *, whole: bool) -> ResultDetails:
        status, words = self._recogniser.status(), run.hotwords
        return ResultDetails(
            duration=run.audio_seconds,
            model=status.model,
            precision=status.precision,
            device=status.device,
            # Of a job that was taken up again, only the rest was timed.
            rtf=run.elapsed_seconds / run.audio_seconds if whole and run.audio_seconds else None,
            hotwords_used=words.used if words is not None else (),
            hotwords_unusable=words.unusable if words is not None else (),
            file=job.name,
        )

    def _end(self, job: Job, ending: Ending) -> Job:
        """Runs in a thread."""
        self._store.end(job.id, ending)
        return self._store.get(job.id) or job

    async def _insist(self, change: Callable[[], _T]) -> _T:
        """Does with the store what must be done: through cancellation, and again while the disk refuses it."""
        while True:
            attempt = asyncio.ensure_future(asyncio.to_thread(change))
            await _see_through(attempt)
            error = attempt.exception()
            if error is None:
                return attempt.result()
            LOG.error("the state of a job could not be read or written: %s", error)
            if self._closing or not isinstance(error, (sqlite3.Error, OSError)):
                raise error
            await asyncio.sleep(_RETRY_SECONDS)

    async def _now(self, job: Job) -> Job:
        return await self._insist(lambda: self._store.get(job.id)) or job

    def _failed(self, running: _Running, code: str, problem: str, fix: str) -> Ending:
        return Ending(
            "failed", code=code, problem=problem, fix=fix, worked_seconds=time.monotonic() - running.began
        )

    def _clean(self, job: Job, problem: str) -> str:
        """The caller knows the file by another name than the disk does."""
        return problem.replace(str(self._store.upload(job.id)), job.name)

    def _tell(self, job: Job) -> None:
        LOG.info(
            "job %s %s",
            job.id,
            job.state,
            extra={
                "fields": {
                    "id": job.id,
                    "audio_seconds": round(job.done_seconds, 3),
                    "elapsed_seconds": round(job.worked_seconds, 3),
                    "outcome": job.code or job.state,
                }
            },
        )
        if self._on_end is not None:
            self._on_end(job)


async def _see_through(task: asyncio.Future[Any]) -> None:
    """Waits until it has ended, whatever happens to the caller meanwhile; the caller is on its way out."""
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([task])

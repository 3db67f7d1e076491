"""HTTP for durable jobs: POST, list, state, result, cancel, delete under /v1/jobs.

An answer of 202 means that the upload and the job are on the disk. Jobs are seen by the key they were sent with, or
by everybody where the service needs no key. Running them is job_runner.py's part, keeping them job_store.py's.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel

from app.asr.errors import InputError, ResourceError
from app.asr.subtitles import FORMATS, SUFFIXES, render
from app.service.admission import seconds_of
from app.service.errors import Overloaded, RequestError, ShuttingDown, TooLong
from app.service.job_records import ENDED, STATES, Job, JobCounts, NewJob, Result, transcript_of
from app.service.job_runner import JobRules, JobRunner
from app.service.job_store import JobStore
from app.service.job_views import FORM, MAX_FILES, DeletedJob, JobList, JobView, view_of
from app.service.recognising import Recognising
from app.service.schemas import error_responses
from app.service.security import client_of
from app.service.settings import Settings
from app.service.uploads import Form, StoredFile, limits_of, received_form

MAX_WAITING = 10_000  # jobs that have not ended
_FILE_FIELDS = {"file", "files", "file[]", "files[]"}
_MAX_KEY = 255
# What can come back about one job, besides what was asked for.
_OF_ONE_JOB = error_responses(400, 401, 404, 422, 503)
_CHUNK = 64 << 10
_TYPES = {
    "text": "text/plain; charset=utf-8",
    "json": "application/json",
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
    "tsv": "text/tab-separated-values; charset=utf-8",
}


class Jobs:
    """The jobs of a service. Include `router()`, `start` before requests come and `close` after the last one.

    Args:
        rules: how they are run and kept; from the settings without it.
        on_end: told of each job that has ended.
        on_error: told whenever the disk refuses to read or to change a job; from any thread.
    """

    def __init__(
        self,
        settings: Settings,
        recogniser: Recognising,
        rules: JobRules | None = None,
        on_end: Callable[[Job], None] | None = None,
        on_error: Callable[[], None] = lambda: None,
    ) -> None:
        self.settings, self._recogniser = settings, recogniser
        self._on_end, self._on_error = on_end, on_error
        self.rules = rules or JobRules(
            at_once=settings.jobs_at_once,
            longest_seconds=settings.max_audio_seconds,
            keep_seconds=settings.jobs_keep_seconds,
            keep_bytes=settings.jobs_keep_bytes,
        )
        self._opened: tuple[JobStore, JobRunner] | None = None

    async def start(self) -> None:
        """Opens the store, takes up what was left, begins to work.

        Raises:
            InputError, ResourceError: the data directory cannot be used.
        """
        directory = self.settings.data_dir / "jobs"
        store = await asyncio.to_thread(JobStore, directory, on_error=self._on_error)
        runner = JobRunner(store, self._recogniser, self.rules, self._on_end)
        try:
            await runner.start()
        except sqlite3.Error as error:
            await asyncio.to_thread(store.close)
            raise ResourceError(
                f"The jobs in {directory} cannot be taken up ({error})",
                fix="Make room on the disk of the data directory, and see that it is writable.",
            ) from error
        self._opened = store, runner

    async def close(self, grace_seconds: float = 0.0) -> None:
        """Ends work that is short, puts the rest back into the queue on disk."""
        if self._opened is not None:
            (store, runner), self._opened = self._opened, None
            await runner.close(grace_seconds)
            await asyncio.to_thread(store.close)

    @property
    def store(self) -> JobStore:
        """What is kept. Raises ShuttingDown when it is not open."""
        if self._opened is None:
            raise ShuttingDown
        return self._opened[0]

    @property
    def runner(self) -> JobRunner:
        """What runs. Raises ShuttingDown when it does not."""
        if self._opened is None:
            raise ShuttingDown
        return self._opened[1]

    def counts(self) -> JobCounts:
        """For the metrics; blocks. What cannot be read is None."""
        by_state: Mapping[str, int] | None = None
        set_aside: int | None = None
        with contextlib.suppress(sqlite3.Error, ShuttingDown):
            by_state = self.store.totals().jobs
        with contextlib.suppress(OSError, ShuttingDown):
            set_aside = self.store.set_aside
        return JobCounts(by_state, set_aside)

    def router(self) -> APIRouter:
        """The addresses below /v1/jobs."""
        routes = APIRouter(prefix="/v1/jobs", tags=["jobs"])
        _add_sending(routes, self)
        _add_reading(routes, self)
        _add_ending(routes, self)
        return routes

    def owner(self, request: Request) -> str:
        """Who may see the jobs of a request: holders of the same key, or everybody where there are no keys."""
        return client_of(request.scope) if self.settings.api_keys else ""

    async def find(self, request: Request, job_id: str) -> Job:
        job = await asyncio.to_thread(self.store.get, job_id)
        if job is None or job.owner != self.owner(request):
            raise RequestError(
                f"There is no job {job_id[:60]!r}",
                fix="Check the id; ended jobs are forgotten after some time.",
                status=404,
                param="job_id",
                code="job_not_found",
            )
        return job

    async def finished(self, request: Request, job_id: str) -> tuple[Job, Result]:
        job = await self.find(request, job_id)
        result = await asyncio.to_thread(self.store.result, job_id) if job.state == "done" else None
        if result is not None:
            return job, result
        reasons = {
            "failed": (f"The job has failed: {job.problem}", job.fix or "Send it again."),
            "cancelled": ("The job was cancelled", "Send it again."),
        }
        waits = (
            f"The job is not done, it is {job.state}",
            f"Ask again later; /v1/jobs/{job.id} tells its progress.",
        )
        problem, fix = reasons.get(job.state, waits)
        code = f"job_{job.state}" if job.is_ended else "job_not_done"
        raise RequestError(problem, fix=fix, status=409, code=code)

    async def accept(self, request: Request, form: Form) -> tuple[Sequence[Job], bool]:
        """The files of a form as jobs, on the disk when this returns."""
        key = request.headers.get("idempotency-key")
        if key is not None and not 1 <= len(key) <= _MAX_KEY:
            raise RequestError(
                f"The Idempotency-Key has {len(key)} characters",
                fix=f"Use 1 to {_MAX_KEY}, for example a UUID.",
                param="Idempotency-Key",
            )
        hotwords = "\n".join(form.all("hotwords")) or "\n".join(form.all("prompt")) or None
        self._check_hotwords(hotwords)
        formats = _formats(form.all("formats", "formats[]"))
        files = [file for file in form.files if file.field in _FILE_FIELDS]
        if not files:
            raise RequestError(
                "The form holds no file",
                fix="Send the recording as the form field file.",
                param="file",
                code="no_file",
            )
        for file in files:
            if file.size == 0:
                problem = f"The file {file.name[:80]!r} is empty (0 bytes)"
                raise RequestError(
                    problem, fix="Check that it is complete.", param="file", code="invalid_file"
                )
        owner, client = self.owner(request), client_of(request.scope)
        jobs = [
            NewJob(
                file.path, file.name or "audio", owner, client, hotwords, formats, await self._seconds(file)
            )
            for file in files
        ]
        size = sum(file.size for file in files)
        await asyncio.to_thread(self._make_room, len(jobs), size)
        fingerprint = await asyncio.to_thread(_fingerprint, jobs) if key is not None else ""
        accepted = await asyncio.to_thread(self.store.accept, jobs, key=key, fingerprint=fingerprint)
        self.runner.wake()
        return accepted

    async def _seconds(self, file: StoredFile) -> float | None:
        """How long a recording says it is. Raises AudioError for what is none, and TooLong."""
        try:
            seconds = await seconds_of(file.path)
        except InputError as error:
            named = error.problem.replace(str(file.path), file.name[:80])
            raise type(error)(named, fix=error.fix) from error
        if seconds is not None and seconds > self.runner.rules.longest_seconds:
            raise TooLong(self.runner.rules.longest_seconds, seconds)
        return seconds

    def _check_hotwords(self, hotwords: str | None) -> None:
        size, limit = len((hotwords or "").encode()), self.settings.max_hotword_bytes
        if size > limit:
            raise RequestError(
                f"The hot words have {size} bytes, more than {limit}",
                fix="Keep the words this recording needs.",
                param="hotwords",
                code="string_above_max_length",
            )

    def _make_room(self, count: int, size: int) -> None:
        """Raises Overloaded when there is no room for so many more, not even after forgetting old ones."""
        rules, held = self.runner.rules, self.store.totals()
        if held.bytes + size > rules.keep_bytes:
            self.store.sweep(rules.keep_seconds, max(rules.keep_bytes - size, 0))
            held = self.store.totals()
        waiting = sum(number for state, number in held.jobs.items() if state not in ENDED)
        if waiting + count > MAX_WAITING or held.bytes + size > rules.keep_bytes:
            raise Overloaded(
                self.runner.seconds_left(60.0), f"{waiting} jobs are waiting, there is no room for more"
            )

    async def view(self, job: Job) -> JobView:
        """A job as it is shown now."""
        waits = job.state == "queued"
        place, before = await asyncio.to_thread(self.store.ahead, job) if waits else (None, 0.0)
        return view_of(job, place, self.runner.progress(job, before))


def _add_sending(routes: APIRouter, desk: Jobs) -> None:
    @routes.post(
        "",
        status_code=202,
        summary="Send recordings to be transcribed in the background",
        response_model=JobView | JobList,
        responses={
            200: {"model": JobView | JobList, "description": "The Idempotency-Key is known."},
            **error_responses(400, 401, 408, 413, 415, 429, 503),
        },
        openapi_extra=FORM,
    )
    async def submit(request: Request) -> Response:
        """One file gives a job, several give a list of jobs. With an `Idempotency-Key` header, sending the same
        request again gives the same jobs. An answer means that the jobs outlive a crash of the service."""
        async with received_form(
            request, desk.store.incoming, limits_of(desk.settings, max_files=MAX_FILES)
        ) as form:
            jobs, is_new = await desk.accept(request, form)
        views = [await desk.view(job) for job in jobs]
        answer: BaseModel = views[0] if len(views) == 1 else JobList(data=views)
        headers = {"Location": f"/v1/jobs/{jobs[0].id}"} if len(jobs) == 1 else {}
        return JSONResponse(answer.model_dump(), 202 if is_new else 200, headers)


def _add_reading(routes: APIRouter, desk: Jobs) -> None:
    @routes.get("", summary="List jobs, the newest first", responses=error_responses(400, 401, 422, 503))
    async def newest(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        after: Annotated[
            str | None, Query(max_length=100, description="the last id of the page before")
        ] = None,
        state: Annotated[str | None, Query(max_length=20, description="only jobs in this state")] = None,
    ) -> JobList:
        """The jobs of this key."""
        if state is not None and state not in STATES:
            raise RequestError(f"There is no state {state!r}", fix=f"Use {_either(STATES)}.", param="state")
        found = await asyncio.to_thread(desk.store.newest, desk.owner(request), limit + 1, after, state)
        views = [await desk.view(job) for job in found[:limit]]
        return JobList(data=views, has_more=len(found) > limit)

    @routes.get("/{job_id}", summary="State and progress of a job", responses=_OF_ONE_JOB)
    async def state_of(request: Request, job_id: str) -> JobView:
        """How far it is, or what came of it."""
        return await desk.view(await desk.find(request, job_id))

    @routes.get(
        "/{job_id}/result",
        summary="The transcript of a job that is done",
        response_class=Response,
        responses={
            200: {"content": {kind.split(";")[0]: {} for kind in _TYPES.values()}},
            **_OF_ONE_JOB,
            **error_responses(409),
        },
    )
    async def result_of(
        request: Request,
        job_id: str,
        form: Annotated[str, Query(alias="format", max_length=20, description=_either(FORMATS))] = "json",
    ) -> Response:
        """Any format may be had, as often as wanted, until the job is deleted or its time has run out."""
        if form not in FORMATS:
            raise RequestError(
                f"There is no format {form!r}",
                fix=f"Use {_either(FORMATS)}.",
                param="format",
                code="unknown_format",
            )
        job, result = await desk.finished(request, job_id)
        name = quote(Path(job.name).stem[:100] + SUFFIXES[form], safe="")
        headers = {"Content-Disposition": f"inline; filename*=UTF-8''{name}"}
        return StreamingResponse(_chunks(result, form), media_type=_TYPES[form], headers=headers)


def _add_ending(routes: APIRouter, desk: Jobs) -> None:
    @routes.post("/{job_id}/cancel", summary="Cancel a job", responses=_OF_ONE_JOB)
    async def cancel(request: Request, job_id: str) -> JobView:
        """A job that has ended stays as it is."""
        job = await desk.find(request, job_id)
        return await desk.view(await desk.runner.cancel(job.id) or job)

    @routes.delete(
        "/{job_id}",
        summary="Cancel a job if need be, and forget it with all that belongs to it",
        responses={**_OF_ONE_JOB, **error_responses(409)},
    )
    async def delete(request: Request, job_id: str) -> DeletedJob:
        """Upload, result and state are removed."""
        job = await desk.find(request, job_id)
        await desk.runner.cancel(job.id)
        deleted = await asyncio.to_thread(desk.store.delete, job.id)
        if not deleted and await asyncio.to_thread(desk.store.get, job.id) is not None:
            raise RequestError(
                "The job is being cancelled",
                fix="Delete it again in a second.",
                status=409,
                code="job_running",
            )
        return DeletedJob(id=job.id)


def _formats(values: Sequence[str]) -> tuple[str, ...]:
    wished = [part.strip().lower() for value in values for part in value.split(",") if part.strip()]
    for form in wished:
        if form not in FORMATS:
            raise RequestError(
                f"There is no format {form[:40]!r}",
                fix=f"Use {_either(FORMATS)}.",
                param="formats",
                code="unknown_format",
            )
    return tuple(dict.fromkeys(wished))


def _fingerprint(jobs: Sequence[NewJob]) -> str:
    """Of what was sent: two requests with the same are the same request."""
    whole = hashlib.sha256()
    for job in jobs:
        with job.upload.open("rb") as file:
            part = hashlib.sha256()
            while data := file.read(1 << 20):
                part.update(data)
        whole.update(repr((part.hexdigest(), job.name, job.hotwords, job.formats)).encode("utf-8", "replace"))
    return whole.hexdigest()


def _chunks(result: Result, form: str) -> Iterator[str]:
    """The result in pieces worth a trip to the network; made in a thread, by the framework."""
    held: list[str] = []
    size = 0
    for piece in render(*_ordered(result, form)):
        held.append(piece)
        size += len(piece)
        if size >= _CHUNK:
            yield "".join(held)
            held, size = [], 0
    yield "".join(held)


def _ordered(result: Result, form: str) -> tuple[Any, str, Any]:
    transcript, details = transcript_of(result)
    return transcript, form, details


def _either(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + f" or {names[-1]}"

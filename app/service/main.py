"""The web application: routers, middleware, error handlers, and the life of the recogniser around them.

`create_app` puts the parts together; what they do is theirs. The process around it is app/serve_command.py.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, RedirectResponse

from app.asr.errors import AsrError
from app.service import funasr_socket, health, transcriptions
from app.service.admission import Admission
from app.service.context import Service
from app.service.errors import Failure, failure_of, failure_of_status
from app.service.job_database import is_refusal, unavailable
from app.service.job_records import Job
from app.service.jobs import Jobs
from app.service.logs import CLIENT_GONE, Observed, record_of
from app.service.metrics import Metrics
from app.service.recognising import Recognising
from app.service.security import Guard
from app.service.settings import Settings
from app.service.uploads import remove_leftovers

if TYPE_CHECKING:
    from app.service.page.gate import Page

LOG = logging.getLogger(__name__)
VERSION = "0.1.0"


class OwnedRecogniser(Recognising, Protocol):
    """A recogniser that the application starts and closes."""

    async def start(self) -> None: ...

    async def close(self, grace_seconds: float = 0.0) -> None: ...


def create_app(settings: Settings, recogniser: OwnedRecogniser) -> FastAPI:
    """The application. `app.state.service` is what its parts share."""
    service = Service(
        settings=settings,
        recogniser=recogniser,
        metrics=Metrics(recogniser.status, image=settings.variant, version=VERSION),
        admission=Admission(settings, recogniser.status),
        version=VERSION,
        started=time.time(),
    )

    def job_ended(job: Job) -> None:
        if job.state == "done" and job.total_seconds is not None:
            service.metrics.recognised(job.total_seconds, job.worked_seconds)

    jobs = Jobs(settings, recogniser, on_end=job_ended, on_error=service.metrics.job_database_errors.inc)
    service.metrics.count_jobs = jobs.counts

    @contextlib.asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        remove_leftovers(settings.uploads)
        await jobs.start()
        await recogniser.start()
        try:
            async with page.life() if page is not None else contextlib.nullcontext():
                yield
        finally:
            # Requests have ended by now: the server waits for them first. Jobs that will not end within what is left
            # of the grace period go on after the next start.
            await jobs.close(service.admission.grace_left)
            await recogniser.close()

    shown = settings.docs != "off"
    app = FastAPI(
        title="Speech to text",
        version=VERSION,
        description="OpenAI's transcription API on your own machine, with hot words.",
        lifespan=life,
        docs_url="/docs" if shown else None,
        openapi_url="/openapi.json" if shown else None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    app.include_router(health.router(service))
    app.include_router(transcriptions.router(service))
    app.include_router(jobs.router())
    funasr_socket.mount(app, service)
    page = _mount_page(app, service) if settings.page == "on" else None
    _add_error_handlers(app)
    # The last one added is the outermost: it sees what the others answer.
    app.add_middleware(Guard, settings=settings)
    app.add_middleware(Observed, metrics=service.metrics)
    return app


def _mount_page(app: FastAPI, service: Service) -> Page:
    """The page at /ui/, and the ways that lead there."""
    # Imported here: without the page, what it needs is neither loaded nor needs to be there.
    from app.service.page.gate import Page

    page = Page(service.settings, app, service.admission, lambda: service.recogniser.status().state)

    async def lead(request: Request) -> Response:
        # A relative address is right below any path of a proxy.
        del request
        return RedirectResponse("./ui/")

    app.add_route("/", lead, include_in_schema=False)
    app.add_route("/ui", lead, include_in_schema=False)
    app.mount("/ui", page)
    return page


def _add_error_handlers(app: FastAPI) -> None:
    async def expected(request: Request, error: Exception) -> Response:
        failure = failure_of(error) if isinstance(error, AsrError) else failure_of_status(500, "")
        return _answer(request, failure)

    async def by_job_database(request: Request, error: Exception) -> Response:
        if not isinstance(error, sqlite3.Error) or not is_refusal(error):
            raise error  # a fault of ours
        LOG.error("the job database refused a request: %s", error)
        return _answer(request, failure_of(unavailable(error)))

    async def by_framework(request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            return _answer(request, failure_of_status(500, ""))
        detail = error.detail
        if error.status_code == 404 and detail == "Not Found":
            detail = "There is nothing at this address; the API is described at /docs"
        if error.status_code == 405:
            detail = "This address takes no such method; the API is described at /docs"
        headers = tuple((error.headers or {}).items())
        return _answer(request, failure_of_status(error.status_code, detail, headers))

    async def invalid(request: Request, error: Exception) -> Response:
        faults = error.errors() if isinstance(error, RequestValidationError) else []
        place = ".".join(str(part) for part in faults[0]["loc"][1:]) if faults else None
        message = f"{place or 'The request'}: {faults[0]['msg'] if faults else 'not valid'}"
        failure = failure_of_status(422, message)
        return _answer(request, Failure(422, failure.message, failure.type, place, "invalid_value"))

    async def gone(request: Request, error: Exception) -> Response:
        del error
        record_of(request.scope).outcome = "client_gone"
        return Response(status_code=CLIENT_GONE)  # nobody reads it

    app.add_exception_handler(AsrError, expected)
    app.add_exception_handler(sqlite3.Error, by_job_database)
    app.add_exception_handler(HTTPException, by_framework)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(ClientDisconnect, gone)


def _answer(request: Request, failure: Failure) -> Response:
    record = record_of(request.scope)
    record.outcome = failure.code or ""
    told = replace(failure, message=record.shown(failure.message))
    return JSONResponse(told.body, told.status, headers=dict(told.headers))

"""POST /v1/audio/transcriptions and /v1/models, as OpenAI defines them.

Here the parts meet: upload (uploads.py), options (schemas.py), admission, recognition (attending.py), answer
(answers.py). Whatever way a request ends, its file is removed and its work cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from app.asr.catalogue import entry
from app.asr.errors import AsrError
from app.asr.transcript import Transcript, Utterance
from app.service.admission import seconds_of
from app.service.answers import EVENT_STREAM, MEDIA_TYPES, DeltaWriter, body_of, event, in_chunks
from app.service.attending import Attendance, AttendedRun
from app.service.context import Service
from app.service.errors import RequestError, failure_of
from app.service.logs import RequestRecord, record_of
from app.service.recognising import RecognitionRequest, Run
from app.service.schemas import (
    TRANSCRIPTION_FORM,
    ModelBody,
    ModelListBody,
    Offer,
    TranscriptionBody,
    TranscriptionOptions,
    VerboseTranscriptionBody,
    error_responses,
    options_of,
    unknown_model,
)
from app.service.security import client_of
from app.service.uploads import Form, StoredFile, limits_of, received_form

_ERRORS = error_responses(400, 401, 404, 408, 413, 415, 429, 503, 504)


def router(service: Service) -> APIRouter:
    """The addresses of OpenAI's API."""
    made = APIRouter(tags=["OpenAI"])

    @made.post(
        "/v1/audio/transcriptions",
        response_model=TranscriptionBody | VerboseTranscriptionBody,
        responses={
            200: {"content": {"text/plain": {"schema": {"type": "string"}}, EVENT_STREAM: {}}},
            **_ERRORS,
        },
        openapi_extra={"requestBody": TRANSCRIPTION_FORM},
        summary="Speech to text",
    )
    async def transcribe(request: Request) -> Response:
        service.admission.check()
        stack = contextlib.AsyncExitStack()
        try:
            attended, options = await _begin(service, request, stack)
            content = await (_stream if options.stream else _whole)(
                attended, options, record_of(request.scope)
            )
        except BaseException:
            await stack.aclose()
            raise
        kind = EVENT_STREAM if options.stream else MEDIA_TYPES[options.form]
        return _OwningResponse(content, kind, stack)

    @made.get("/v1/models", responses=error_responses(401), summary="Names of the model")
    async def models() -> ModelListBody:
        return ModelListBody(data=[_model_body(service, name) for name in model_names(service)])

    @made.get("/v1/models/{model:path}", responses=error_responses(401, 404), summary="One name")
    async def model(model: str) -> ModelBody:
        for name in model_names(service):
            if name.casefold() == model.casefold():
                return _model_body(service, name)
        raise unknown_model(model, model_names(service))

    return made


def model_names(service: Service) -> tuple[str, ...]:
    """Names that stand for the model served: its own, its spellings in the catalogue, and the aliases."""
    served = service.recogniser.status().model
    known = entry(served) or entry(service.settings.model)
    spellings = (known.name, *known.aliases) if known is not None else ()
    configured = (service.settings.model,) if "/" not in service.settings.model else ()
    return tuple(dict.fromkeys((served, *configured, *spellings, *service.settings.model_aliases)))


def _offer(service: Service) -> Offer:
    names, settings = model_names(service), service.settings
    known = entry(names[0]) or entry(settings.model)
    # Nearly all models know some English; many clients name the language of their own pages.
    languages = (
        None
        if known is None or known.more_languages
        else tuple(dict.fromkeys((*known.languages, "zh", "en")))
    )
    return Offer(names, languages, settings.max_hotword_bytes)


def _model_body(service: Service, name: str) -> ModelBody:
    return ModelBody(id=name, created=int(service.started), owned_by="local")


async def _begin(
    service: Service, request: Request, stack: contextlib.AsyncExitStack
) -> tuple[AttendedRun, TranscriptionOptions]:
    """Upload, checks, admission; the recognition runs when this returns. What must be undone is in `stack`."""
    settings = service.settings
    form = await stack.enter_async_context(received_form(request, settings.uploads, limits_of(settings)))
    options = options_of(form, _offer(service))
    file = record_of(request.scope).upload = _file_of(form)
    ticket = stack.enter_context(service.admission.admit(await seconds_of(file.path), file.size))
    wanted = RecognitionRequest(
        source=file.path,
        hotwords=_hotwords(service, options),
        client=client_of(request.scope),
        request_id=record_of(request.scope).id,
    )
    attendance = Attendance(request.receive, settings.request_seconds, settings.max_audio_seconds)
    attended = AttendedRun(service.recogniser, wanted, ticket, attendance)
    return await stack.enter_async_context(attended), options


def _file_of(form: Form) -> StoredFile:
    files = [file for file in form.files if file.field == "file"]
    if not files:
        raise RequestError(
            "The field file is missing",
            fix="Add the recording, for example: curl -F file=@talk.mp3.",
            param="file",
            code="missing_required_parameter",
        )
    if files[0].size == 0:
        raise RequestError("The file is empty", fix="Send a recording.", param="file", code="invalid_file")
    return files[0]


def _hotwords(service: Service, options: TranscriptionOptions) -> str | None:
    """A prompt is not refused by a model without hot words: many clients send one with everything."""
    status = service.recogniser.status()
    if options.hotwords is None or status.has_hotwords or status.state != "ready":
        return options.hotwords
    if options.hotwords_wanted:
        raise RequestError(
            f"The model {status.model} has no hot words", fix="Leave them out.", param="hotwords"
        )
    return None


def _finished(attended: AttendedRun, record: RequestRecord) -> Run:
    run = attended.run
    if run is None:
        raise RuntimeError("a run that ended without an error has begun")
    record.audio_seconds, record.elapsed_seconds = run.audio_seconds, run.elapsed_seconds
    record.queue_seconds = run.queue_seconds
    return run


async def _whole(
    attended: AttendedRun, options: TranscriptionOptions, record: RequestRecord
) -> AsyncIterator[bytes]:
    """The body, once everything is recognised."""
    transcript = Transcript()
    async for utterance in attended:
        transcript.add(utterance)
    run = _finished(attended, record)
    return in_chunks(body_of(transcript, options, run, [record.shown(note) for note in run.notes]))


async def _stream(
    attended: AttendedRun, options: TranscriptionOptions, record: RequestRecord
) -> AsyncIterator[bytes]:
    """Server-sent events, from the first words on: what is wrong with a file shows by then, and can still be said
    with a status."""
    del options
    utterances = attended.__aiter__()
    first = await anext(utterances, None)
    return _events(first, utterances, attended, record)


async def _events(
    first: Utterance | None,
    others: AsyncIterator[Utterance],
    attended: AttendedRun,
    record: RequestRecord,
) -> AsyncIterator[bytes]:
    """Server-sent events; an error that comes late is the last of them."""
    writer = DeltaWriter()
    try:
        if first is not None:
            yield writer.delta(first)
        async for utterance in others:
            yield writer.delta(utterance)
        yield writer.done(_finished(attended, record))
    except AsrError as error:
        record.outcome = "failed_in_stream"
        failure = failure_of(error)
        yield event(replace(failure, message=record.shown(failure.message)).body, "error")
    except (ClientDisconnect, asyncio.CancelledError) as gone:
        record.outcome = "client_gone"
        if isinstance(gone, asyncio.CancelledError):
            raise


class _OwningResponse(StreamingResponse):
    """Holds what must be undone, until the last byte is sent or nobody wants it."""

    def __init__(self, content: AsyncIterator[bytes], kind: str, stack: contextlib.AsyncExitStack) -> None:
        super().__init__(content, media_type=kind, headers={"X-Accel-Buffering": "no"})
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._stack:
            await super().__call__(scope, receive, send)

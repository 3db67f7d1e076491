"""FunASR's websocket protocol for whole recordings, at `/`: clients of its runtime work here as they are.

A client says in JSON what comes, sends bytes in frames of any size, and ends with {"is_speaking": false}; it gets one
message with text and times, and may go on with the next recording. Whatever is wrong is said in a message with
`error`, then the connection is closed. What the JSON means is funasr_frames.py's part.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.requests import ClientDisconnect
from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from app.asr.errors import AsrError, InputError
from app.asr.transcript import Transcript
from app.service.admission import seconds_of
from app.service.attending import Attendance, AttendedRun
from app.service.context import Service
from app.service.errors import Failure, RequestError, TimedOut, failure_of, internal_failure
from app.service.funasr_frames import Wishes, answer, error_answer, read_frame
from app.service.funasr_recording import Recording
from app.service.logs import new_id
from app.service.recognising import RecognitionRequest, Run
from app.service.security import client_of

LOG = logging.getLogger("app.service.requests")

SUBPROTOCOL = "binary"
# Between two recordings a client may be quiet for so long; within one it is the limit for uploads.
BETWEEN_SECONDS = 600.0
# What is read ahead while a recording is recognised, so that a client that goes away is noticed.
_AHEAD_BYTES = 4 << 20
_AHEAD_FRAMES = 1000
_CLOSE_CODES = {413: 1009, 429: 1013, 500: 1011, 503: 1013, 504: 1013}
_POLICY = 1008
_SEND_SECONDS = 30.0  # a client that does not take its answer


def mount(app: FastAPI, service: Service) -> None:
    """Adds the websocket to an application."""

    @app.websocket("/")
    async def funasr(websocket: WebSocket) -> None:
        offered = websocket.scope.get("subprotocols") or ()
        try:
            await websocket.accept(SUBPROTOCOL if SUBPROTOCOL in offered else None)
        except (WebSocketDisconnect, RuntimeError, OSError):
            return  # gone before it began
        await _Conversation(websocket, service).run()


class _Gone(Exception):  # noqa: N818 - not a fault of anybody
    """The client is not there any more."""


class _Conversation:
    """One connection."""

    def __init__(self, websocket: WebSocket, service: Service) -> None:
        self._websocket, self._service = websocket, service
        self._inbox = _Inbox(websocket)
        self._wishes = Wishes()
        self._recording: Recording | None = None
        self._id = new_id()

    async def run(self) -> None:
        """Until the client has gone or was told why not."""
        reading = asyncio.create_task(self._inbox.fill(), name="funasr-socket")
        try:
            while True:
                await self._take(await self._next())
        except (_Gone, ClientDisconnect, WebSocketDisconnect):
            pass
        except AsrError as error:
            await self._refuse(failure_of(error))
        except Exception:
            LOG.exception("a fault on a websocket", extra={"fields": {"id": self._id}})
            await self._refuse(internal_failure(self._id))
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await self._forget()

    async def _next(self) -> Message:
        limit = self._service.settings.upload_idle_seconds
        limit = max(limit, BETWEEN_SECONDS) if self._recording is None else limit
        try:
            return await asyncio.wait_for(self._inbox.next(), limit)
        except (asyncio.TimeoutError, TimeoutError):
            raise TimedOut(
                f"Nothing arrived for {limit:g} seconds",
                fix='End a recording with {"is_speaking": false}, then wait for the answer.',
                client=True,
            ) from None

    async def _take(self, message: Message) -> None:
        data, text = message.get("bytes"), message.get("text")
        if data is not None:
            if self._recording is None:
                self._service.admission.check()
                settings = self._service.settings
                self._recording = Recording(
                    settings.uploads, settings.max_upload_bytes, pcm=self._wishes.is_pcm
                )
            await self._recording.add(data)
        elif text is not None:
            limit = self._service.settings.max_hotword_bytes + (64 << 10)
            if len(text.encode("utf-8", "replace")) > limit:
                raise RequestError(
                    f"A text frame is longer than {limit} bytes", fix="Send audio as binary frames."
                )
            self._wishes, ends = read_frame(text, self._wishes)
            if ends:
                await self._answer()

    async def _answer(self) -> None:
        """Recognises what has come and sends the result; without any sound, that is an empty one."""
        transcript, notes = Transcript(), list[str]()
        recording = self._recording
        if recording is not None and recording.size > 0:
            await recording.finish(self._wishes.audio_fs)
            notes += await self._recognise(recording, transcript)
        await self._forget()
        await self._send(await asyncio.to_thread(answer, self._wishes, transcript, notes))

    async def _recognise(self, recording: Recording, transcript: Transcript) -> list[str]:
        """Fills the transcript; returns notes for the client."""
        service, wishes = self._service, self._wishes
        hotwords, notes = self._hotwords()
        request = RecognitionRequest(
            source=recording.path,
            hotwords=hotwords,
            client=client_of(self._websocket.scope),
            request_id=f"{self._id}-{recording.path.stem[:8]}",
        )
        attendance = Attendance(
            self._inbox.until_gone, service.settings.request_seconds, service.settings.max_audio_seconds
        )
        try:
            seconds = recording.seconds(wishes.audio_fs)
            seconds = seconds if seconds is not None else await seconds_of(recording.path)
            with service.admission.admit(seconds, recording.size) as ticket:
                async with AttendedRun(service.recogniser, request, ticket, attendance) as attended:
                    async for utterance in attended:
                        transcript.add(utterance)
                    run = attended.run
        except InputError as error:
            raise type(error)(
                _renamed(error.problem, recording.path, wishes.wav_name), fix=error.fix
            ) from error
        if run is None:
            raise RuntimeError("a run that ended without an error has begun")
        self._count(run)
        return [*notes, *(_renamed(note, recording.path, wishes.wav_name) for note in run.notes)]

    def _hotwords(self) -> tuple[str | None, list[str]]:
        """FunASR's clients send hot words to every model, and its server ignores them where there are none."""
        words, status = self._wishes.hotwords, self._service.recogniser.status()
        if words is None:
            return None, []
        if len(words.encode()) > self._service.settings.max_hotword_bytes:
            raise RequestError(
                f"The hot words have more than {self._service.settings.max_hotword_bytes} bytes",
                fix="Keep the words this recording needs.",
                param="hotwords",
            )
        if status.state == "ready" and not status.has_hotwords:
            return None, [f"the model {status.model} has no hot words; those sent were ignored"]
        return words, []

    def _count(self, run: Run) -> None:
        self._service.metrics.recognised(run.audio_seconds, run.elapsed_seconds, run.queue_seconds)
        fields: Mapping[str, Any] = {
            "id": self._id,
            "route": "websocket /",
            "audio_seconds": round(run.audio_seconds, 3),
            "elapsed_seconds": round(run.elapsed_seconds, 3),
            "outcome": "ok",
        }
        LOG.info("recording", extra={"fields": fields})

    async def _send(self, text: str) -> None:
        try:
            await asyncio.wait_for(self._websocket.send_text(text), _SEND_SECONDS)
        except (asyncio.TimeoutError, TimeoutError, WebSocketDisconnect, RuntimeError, OSError) as error:
            raise _Gone from error

    async def _refuse(self, failure: Failure) -> None:
        """Says what is wrong, and closes; if nobody listens any more, so be it."""
        LOG.info(
            "recording",
            extra={"fields": {"id": self._id, "route": "websocket /", "outcome": failure.code or "refused"}},
        )
        with contextlib.suppress(_Gone):
            await self._send(error_answer(self._wishes, failure.message, failure.code))
        if self._websocket.application_state is WebSocketState.CONNECTED:
            code = _CLOSE_CODES.get(failure.status, _POLICY)
            reason = failure.message.encode()[:120].decode("utf-8", "ignore")
            with contextlib.suppress(
                asyncio.TimeoutError, TimeoutError, WebSocketDisconnect, RuntimeError, OSError
            ):
                await asyncio.wait_for(self._websocket.close(code, reason), _SEND_SECONDS)

    async def _forget(self) -> None:
        recording, self._recording = self._recording, None
        if recording is not None:
            await recording.remove()


class _Inbox:
    """Reads ahead of the conversation, within bounds, so that it can be told when the client goes away."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._messages: deque[Message] = deque()
        self._bytes = 0
        self._changed = asyncio.Condition()
        self._gone = asyncio.Event()

    async def fill(self) -> None:
        """Runs beside the conversation until the client has gone."""
        try:
            while True:
                message = await self._websocket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                async with self._changed:
                    self._messages.append(message)
                    self._bytes += _size(message)
                    self._changed.notify_all()
                    await self._changed.wait_for(self._has_room)
        except (WebSocketDisconnect, RuntimeError, OSError):
            pass  # all of them: the connection is no more
        finally:
            self._gone.set()
            async with self._changed:
                self._changed.notify_all()

    async def next(self) -> Message:
        """The next message. Raises _Gone after the last one."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._messages or self._gone.is_set())
            if not self._messages:
                raise _Gone
            message = self._messages.popleft()
            self._bytes -= _size(message)
            self._changed.notify_all()
            return message

    async def until_gone(self) -> Message:
        """What HTTP handlers await to hear that the client has gone."""
        await self._gone.wait()
        return {"type": "http.disconnect"}

    def _has_room(self) -> bool:
        return self._bytes <= _AHEAD_BYTES and len(self._messages) <= _AHEAD_FRAMES


def _size(message: Message) -> int:
    return len(message.get("bytes") or message.get("text") or "")


def _renamed(sentence: str, path: Path, name: str) -> str:
    """The client knows its recording by another name than the disk does."""
    return sentence.replace(str(path), name)

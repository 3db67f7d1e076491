"""One log line a request, and the request id that binds a line to an answer; how lines are written: log_lines.py.

`Observed` is the outermost ASGI middleware: it gives every request its id, times it, counts it, logs it, and answers
when nothing else did. Headers, query strings, file names and what was said are never logged.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from dataclasses import dataclass
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.service.errors import ShuttingDown, failure_of, internal_failure
from app.service.metrics import Metrics
from app.service.security import DOCS, header_of
from app.service.uploads import StoredFile

LOG = logging.getLogger("app.service.requests")
REQUEST_ID = "X-Request-ID"
_GOOD_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_KEY = "asr.record"
UNKNOWN_ROUTE = "other"
_QUIET = frozenset(
    {"/healthz", "/readyz", "/metrics", "/v1/capacity", "/ui"}
)  # asked every few seconds, told only on the debug level
CLIENT_GONE = 499  # as nginx logs a client that did not wait for its answer


@dataclass
class RequestRecord:
    """What is known of a request when it ends; whoever learns something fills it in."""

    id: str
    audio_seconds: float | None = None
    elapsed_seconds: float | None = None
    queue_seconds: float | None = None
    outcome: str = ""
    upload: StoredFile | None = None

    def shown(self, text: str) -> str:
        """A sentence for the client, who knows the file by another name than the disk does."""
        if self.upload is None:
            return text
        path, name = self.upload.path, self.upload.name or "the file"
        return text.replace(str(path), name).replace(path.name, name)


def record_of(scope: Scope) -> RequestRecord:
    """The record of a request; one of its own where no middleware gave it one."""
    found = scope.setdefault("state", {}).setdefault(_KEY, None)
    if found is None:
        found = scope["state"][_KEY] = RequestRecord(new_id())
    return found if isinstance(found, RequestRecord) else RequestRecord(new_id())


def new_id() -> str:
    """A request id that nobody has guessed."""
    return secrets.token_hex(8)


class Observed:
    """Outermost middleware; see the top of this module."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = header_of(scope, REQUEST_ID.lower().encode())
        record = RequestRecord(given if _GOOD_ID.fullmatch(given) else new_id())
        scope.setdefault("state", {})[_KEY] = record
        started, answer = time.monotonic(), _Answer(send, record.id)
        try:
            await self._app(scope, receive, answer.send)
        except asyncio.CancelledError:  # the service ends, and waits no longer
            record.outcome = "shutting_down"
            if answer.code:
                raise  # half an answer must not look like a whole one
            failure = failure_of(ShuttingDown())
            told = JSONResponse(failure.body, failure.status, headers=dict(failure.headers))
            await told(scope, receive, answer.send)
        except Exception:
            LOG.exception("a fault while answering", extra={"fields": {"id": record.id}})
            record.outcome = "internal_error"
            if answer.code == 0:
                failure = internal_failure(record.id)
                await JSONResponse(failure.body, failure.status)(scope, receive, answer.send)
            else:
                raise  # the server breaks the connection, so that half an answer is not taken for a whole one
        finally:
            self._conclude(scope, record, answer.code or CLIENT_GONE, time.monotonic() - started)

    def _conclude(self, scope: Scope, record: RequestRecord, code: int, duration: float) -> None:
        route = _route_of(scope)
        self._metrics.requests.labels(route, str(code)).inc()
        if record.audio_seconds is not None and record.elapsed_seconds is not None:
            self._metrics.recognised(record.audio_seconds, record.elapsed_seconds, record.queue_seconds)
        level = logging.DEBUG if route in _QUIET and code < 500 else logging.INFO
        if LOG.isEnabledFor(level):
            LOG.log(level, "request", extra={"fields": _fields(scope, record, (route, code, duration))})


class _Answer:
    """Passes an answer on, with the request id; remembers its code."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send, self._id, self.code = send, request_id.encode("ascii"), 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.code = int(message["status"])
            message["headers"] = [
                *message.get("headers", ()),
                (REQUEST_ID.lower().encode("ascii"), self._id),
            ]
        await self._send(message)


def _route_of(scope: Scope) -> str:
    """The pattern of the address, never the address itself: that would make a series for every id."""
    known = scope["path"] if scope["path"] in DOCS else UNKNOWN_ROUTE
    return str(getattr(scope.get("route"), "path", known))


def _fields(scope: Scope, record: RequestRecord, ended: tuple[str, int, float]) -> dict[str, Any]:
    route, code, duration = ended
    fields: dict[str, Any] = {
        "id": record.id,
        "method": scope["method"],
        "route": route,
        "code": code,
        "duration": round(duration, 4),
        "outcome": record.outcome or ("ok" if code < 400 else "refused" if code < 500 else "failed"),
    }
    if record.audio_seconds is not None:
        fields["audio_seconds"] = round(record.audio_seconds, 3)
        if record.elapsed_seconds is not None and record.audio_seconds > 0:
            fields["rtf"] = round(record.elapsed_seconds / record.audio_seconds, 5)
    if record.queue_seconds is not None:
        fields["queue_seconds"] = round(record.queue_seconds, 3)
    return fields

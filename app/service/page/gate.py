"""Everything below /ui: who gets in, what of Gradio can be reached, and the headers a browser needs to stay within us.

Gradio takes seconds to import, so it is loaded in a thread after the engine; until then a small page waits for it. Of
Gradio's many addresses only those that the page uses are open. What the page shows is blocks.py's part.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import math
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Callable, Sequence
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import ClientDisconnect, Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.asr.errors import ResourceError
from app.service.admission import Admission
from app.service.errors import Failure
from app.service.page.api import ApiClient, Caller
from app.service.page.documents import (
    CSP_OF_FILES,
    PERMISSIONS,
    csp_of_page,
    document_of,
    login_document,
    waiting_document,
)
from app.service.page.holdings import SWEEP_SECONDS, Holdings
from app.service.page.texts import OWN
from app.service.page.zipping import chunks, zip_results
from app.service.security import ApiKeys, header_of, session_cookie
from app.service.settings import Settings

# The engine is started first; on two processors both at once would make it late.
_HEAD_START_SECONDS, _LOOK_SECONDS = 15.0, 0.1
_LOOK_END_SECONDS = 0.5
_KEEP_FREE_BYTES = 64 << 20
_MAX_LOGIN_BYTES = 4096
_MAX_ZIP_JOBS = 100
_GRADIO_API = ("upload", "upload_progress", "run/predict", "queue/join", "queue/data", "cancel", "app_id")
_OPEN = frozenset({"config", "theme.css", *(f"gradio_api/{name}" for name in _GRADIO_API)})
_OPEN_BELOW = ("assets/", "static/", "gradio_api/heartbeat/", "gradio_api/file=")
_HASHED = "public, max-age=31536000, immutable"  # their names change with what is in them
_KINDS = {".js": "text/javascript", ".css": "text/css", ".json": "application/json", ".svg": "image/svg+xml"}


class Page:
    """The ASGI application below /ui. `life` must be around the time it serves."""

    def __init__(
        self, settings: Settings, app: ASGIApp, admission: Admission, state: Callable[[], str]
    ) -> None:
        if importlib.util.find_spec("gradio") is None:
            raise ResourceError(
                "The page needs the Python package gradio, which is not installed here",
                fix="Run scripts/make_venv.sh serve, or serve without the page: --page off.",
            )
        self._settings, self._admission, self._state = settings, admission, state
        self._keys = ApiKeys(settings.api_keys)
        self._api = ApiClient(app, settings.root_path)
        self._gradio: ASGIApp | None = None
        self._holdings: Holdings | None = None
        self._uploads = 0  # under way
        self._wanted = asyncio.Event()
        self._own = {path.name: path for path in OWN.iterdir() if path.suffix in _KINDS}
        self._router = Router(
            [
                Route("/", self._index),
                Route("/session", self._enter, methods=["POST"]),
                Route("/session/end", self._leave, methods=["POST"]),
                Route("/results.zip", self._zip),
                Route("/own/{name}", self._own_file),
            ],
            default=self._rest,
            redirect_slashes=False,
        )

    @contextlib.asynccontextmanager
    async def life(self) -> AsyncIterator[None]:
        """Loads Gradio beside everything else, and removes what was uploaded to it at the end."""
        task = asyncio.create_task(self._live(), name="page")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._router(scope, receive, send)
        scope["route"] = SimpleNamespace(path="/ui")  # one series and one name in the log for all of the page

    async def _live(self) -> None:
        waited = 0.0
        while self._state() == "starting" and not self._wanted.is_set() and waited < _HEAD_START_SECONDS:
            await asyncio.sleep(_LOOK_SECONDS)
            waited += _LOOK_SECONDS
        holdings = self._holdings = await asyncio.to_thread(Holdings, self._settings.data_dir / "page")

        def load() -> Any:
            from app.service.page.blocks import make_gradio_app

            return make_gradio_app(self._settings, self._api, holdings)

        made = await asyncio.to_thread(load)
        async with made.router.lifespan_context(made):
            self._gradio = made
            while True:
                await asyncio.sleep(SWEEP_SECONDS)
                await asyncio.to_thread(holdings.sweep)

    def _is_let_in(self, scope: Scope) -> bool:
        return not self._keys or self._keys.accept(header_of(scope, b"authorization"))

    async def _index(self, request: Request) -> Response:
        language = request.headers.get("accept-language", "")
        self._wanted.set()
        if not self._is_let_in(request.scope):
            return HTMLResponse(*login_document(language, wrong=False))
        gradio = self._gradio
        if gradio is None:
            return HTMLResponse(*waiting_document(language))
        scope = dict(request.scope)
        # The document is changed on its way, so it must come as it is.
        scope["headers"] = [pair for pair in scope["headers"] if pair[0] != b"accept-encoding"]
        status, body = await _whole_answer(gradio, scope, request.receive)
        nonce = secrets.token_urlsafe(16)
        text = document_of(body.decode("utf-8"), nonce, language, with_keys=bool(self._keys))
        headers = {"Content-Security-Policy": csp_of_page(nonce), "Permissions-Policy": PERMISSIONS}
        return HTMLResponse(text, status, headers)

    async def _enter(self, request: Request) -> Response:
        """A key from the form; the browser keeps it in a cookie, this side keeps nothing."""
        key = await _key_in(request)
        if not self._keys.accept(f"Bearer {key}"):
            return HTMLResponse(*login_document(request.headers.get("accept-language", ""), wrong=True))
        return RedirectResponse("./", 303, {"Set-Cookie": session_cookie(request.scope, key)})

    async def _leave(self, request: Request) -> Response:
        return RedirectResponse("../", 303, {"Set-Cookie": session_cookie(request.scope, "")})

    async def _own_file(self, request: Request) -> Response:
        path = self._own.get(request.path_params["name"])
        if path is None:
            return _not_found()
        return FileResponse(path, media_type=_KINDS[path.suffix], headers={"Cache-Control": "no-cache"})

    async def _zip(self, request: Request) -> Response:
        jobs = request.query_params.getlist("job")[:_MAX_ZIP_JOBS]
        if not self._is_let_in(request.scope):
            return _answer(Failure(401, "Sign in at the page first.", code="invalid_api_key"))
        archive = await zip_results(self._api, _caller(request.scope), jobs)
        if archive is None:
            return _answer(Failure(404, "None of these jobs has a transcript.", code="job_not_found"))
        headers = {"Content-Disposition": 'attachment; filename="transcripts.zip"'}
        return StreamingResponse(chunks(archive), media_type="application/zip", headers=headers)

    async def _rest(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What the page needs of Gradio, and no more."""
        path = scope["path"].removeprefix(scope.get("root_path", "")).removeprefix("/")
        is_open = path in _OPEN or path.startswith(_OPEN_BELOW)
        refusal: Response | None = None
        if scope["type"] != "http" or not is_open or self._gradio is None:
            refusal = _not_found()
        elif not self._is_let_in(scope):
            refusal = _answer(Failure(401, "Sign in at the page first.", code="invalid_api_key"))
        elif path == "gradio_api/upload":
            refusal = self._refusal_of_upload(scope)
        if refusal is not None or self._gradio is None:
            await (refusal or _not_found())(scope, receive, send)
            return
        if path == "gradio_api/upload":
            await self._upload(self._gradio, scope, receive, send)
        else:
            await self._gradio(scope, self._bounded(receive, math.inf), _with_headers(send, path))

    async def _upload(self, gradio: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Gradio leaves on the disk what it has of an upload that is cut off; that is removed here."""
        self._uploads += 1
        try:
            await gradio(scope, self._bounded(receive, self._settings.upload_idle_seconds), send)
        except ClientDisconnect:
            pass  # nobody is there to be told
        finally:
            self._uploads -= 1
            if self._uploads == 0 and self._holdings is not None:
                await asyncio.to_thread(self._holdings.remove_unfinished)

    def _bounded(self, receive: Receive, idle_seconds: float) -> Receive:
        """What a browser sends, until it pauses for too long or the service ends: an open page holds a connection on
        which nothing comes, and that must not hold up the end."""

        async def received() -> Message:
            waiting, since = asyncio.ensure_future(receive()), time.monotonic()
            try:
                while not waiting.done():
                    if self._admission.draining or time.monotonic() - since > idle_seconds:
                        return {"type": "http.disconnect"}
                    await asyncio.wait({waiting}, timeout=_LOOK_END_SECONDS)
                return await waiting
            finally:
                waiting.cancel()

        return received

    def _refusal_of_upload(self, scope: Scope) -> Response | None:
        """Before a byte is read: is there room for so much?"""
        announced, settings = header_of(scope, b"content-length"), self._settings
        if self._admission.draining:
            return _answer(Failure(503, "This service is shutting down.", code="shutting_down"))
        if not (announced.isascii() and announced.isdigit()):
            return _answer(Failure(411, "An upload must say how long it is.", code="length_required"))
        size = int(announced)
        if size > settings.max_upload_bytes * settings.page_batch_files:
            return _answer(Failure(413, "The upload is too large.", code="file_too_large"))
        if shutil.disk_usage(settings.data_dir).free - size < _KEEP_FREE_BYTES:
            return _answer(Failure(507, "The disk of this service is full.", code="insufficient_resources"))
        return None


def _caller(scope: Scope) -> Caller:
    client = scope.get("client")
    return Caller(header_of(scope, b"authorization"), str(client[0]) if client else "")


def _answer(failure: Failure) -> Response:
    return JSONResponse(failure.body, failure.status)


def _not_found() -> Response:
    return _answer(Failure(404, "There is nothing at this address of the page.", code="unknown_url"))


async def _key_in(request: Request) -> str:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _MAX_LOGIN_BYTES:
            return ""
    return parse_qs(body.decode("latin-1")).get("key", [""])[0].strip()


async def _whole_answer(app: ASGIApp, scope: Scope, receive: Receive) -> tuple[int, bytes]:
    status, pieces = 500, list[bytes]()

    async def take(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = int(message["status"])
        elif message["type"] == "http.response.body":
            pieces.append(message.get("body", b""))

    await app(scope, receive, take)
    return status, b"".join(pieces)


def _with_headers(send: Send, path: str) -> Send:
    added: Sequence[tuple[bytes, bytes]] = ()
    if path.startswith("assets/"):
        added = ((b"cache-control", _HASHED.encode()),)
    elif path.startswith("gradio_api/file="):
        added = ((b"content-security-policy", CSP_OF_FILES.encode()),)

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start" and added:
            names = {name for name, _ in added}
            kept = [pair for pair in message.get("headers", ()) if pair[0].lower() not in names]
            message["headers"] = [*kept, *added]
        await send(message)

    return sending

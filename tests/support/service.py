"""The service in tests: an application with a fake recogniser, asked in memory or through a real socket."""

from __future__ import annotations

import asyncio
import io
import json
import threading
import time
import wave
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from app.serve_command import listen, make_server
from app.service.main import create_app
from app.service.settings import Settings, load_settings
from tests.fakes.recogniser import FakeRecogniser

PATIENCE = 10.0  # seconds until a test gives up


def wav(seconds: float = 0.5) -> bytes:
    """A silent recording."""
    held = io.BytesIO()
    with wave.open(held, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(2 * int(seconds * 16_000)))
    return held.getvalue()


def settings_in(folder: Path, **given: Any) -> Settings:
    """Settings with a data directory below `folder`; without the page, which takes seconds to load."""
    return load_settings({"data_dir": folder / "data", "port": 0, "grace_seconds": 1, "page": "off", **given})


def app_in(folder: Path, recogniser: FakeRecogniser | None = None, **given: Any) -> FastAPI:
    """An application; its service is `app.state.service`."""
    return create_app(settings_in(folder, **given), recogniser or FakeRecogniser())


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client that talks to the application in memory."""
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
    ):
        yield client


def ask(app: FastAPI, scene: Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]) -> httpx.Response:
    """One scene with a client of the application."""

    async def play() -> httpx.Response:
        async with client_of(app) as client:
            return await scene(client)

    return asyncio.run(asyncio.wait_for(play(), PATIENCE))


def get(app: FastAPI, path: str, **more: Any) -> httpx.Response:
    """GET in memory."""
    return ask(app, lambda client: client.get(path, **more))


def transcribe(
    app: FastAPI, fields: dict[str, Any] | None = None, content: bytes | None = None, **more: Any
) -> httpx.Response:
    """POST /v1/audio/transcriptions in memory; a field given as None is left out."""
    data = {"model": "whisper-1", **(fields or {})}
    data = {name: value for name, value in data.items() if value is not None}
    files = {"file": ("talk.wav", wav() if content is None else content)}
    return ask(app, lambda client: client.post("/v1/audio/transcriptions", data=data, files=files, **more))


def events_of(text: str) -> list[dict[str, Any]]:
    """The data of server-sent events."""
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines]


def uploads_of(app: FastAPI) -> list[Path]:
    """Files that requests have left behind."""
    return sorted(app.state.service.settings.uploads.iterdir())


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The application behind a real web server on 127.0.0.1; gives its address."""
    settings = app.state.service.settings
    listener = listen(settings)
    server = make_server(app, settings)

    async def live() -> None:
        async with app.router.lifespan_context(app):
            await server.serve(sockets=[listener])

    thread = threading.Thread(target=lambda: asyncio.run(live()))
    thread.start()
    try:
        until(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE)


def until(condition: Callable[[], object]) -> None:
    """Waits for something that another thread does; fails when it does not come."""
    give_up = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > give_up:
            raise AssertionError("what was waited for did not happen")
        time.sleep(0.01)

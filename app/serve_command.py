"""`python -m app serve`: the service as a process, from its settings to its exit code.

Here: the options of the verb, the web server, and what SIGTERM means. What is served is app.service.main.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import math
import signal
import socket
from types import FrameType
from typing import TYPE_CHECKING, Any

from app.asr.errors import InputError, ResourceError
from app.console import printable, say

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

    from app.service.settings import Settings

# A device that was lost twice in a row is not coming back here; a restart policy gives the next container a fresh one.
_DONE, _FAILED, _DEVICE_GONE = 0, 2, 3
_BACKLOG = 512
# Longer than clients and HAProxy keep connections that idle: who keeps one longer than the server may send a request
# into one that is just being closed.
_KEEP_ALIVE_SECONDS = 75
_TEXT_OPTIONS = {
    "host": "address to listen on (default: 127.0.0.1, this machine only)",
    "port": "port to listen on (default: 8000)",
    "model": "model name or pack directory (default: demo)",
    "device": "auto, cpu, cuda or cuda:N (default: auto)",
    "precision": "auto, fp32, fp16 or int8 (default: auto)",
    "punctuation": "auto, off, or a punctuation pack (default: auto, ct-punc-c where its pack is)",
    "threads": "of computation (default: the processors granted)",
    "batch-size": "segments at once at most, whatever a client asks (default: planned from memory)",
    "vram-limit": "GPU memory for weights and batches, such as 1.5GiB (default: weights and 120 MiB)",
    "hotwords": "on, or off: do not load that part of the model (default: on)",
    "data-dir": "directory for uploads and jobs (default: data)",
    "idle-seconds": "unload the model after so long without work (default: never)",
    "page": "on or off: the page for people at /ui (default: on)",
    "log-format": "json or text (default: json)",
    "log-level": "debug, info, warning or error (default: info)",
}


def declare(verb: argparse.ArgumentParser) -> None:
    """The options of this verb; every setting can be given as ASR_NAME in the environment too."""
    for name, meaning in _TEXT_OPTIONS.items():
        verb.add_argument(f"--{name}", metavar=name.split("-")[-1].upper(), help=meaning)
    verb.epilog = (
        "All settings, also those without an option, are environment variables: ASR_API_KEYS, ASR_PORT ... "
        "docs/settings.md lists them."
    )


def serve(arguments: argparse.Namespace) -> int:
    """Serve until told to end; returns the exit code.

    Raises:
        AsrError: a setting cannot be used, or the address is taken.
    """
    told = Told()
    told.listen()
    names = [name.replace("-", "_") for name in _TEXT_OPTIONS]
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    try:
        return asyncio.run(_serve(given, told))
    except ModuleNotFoundError as error:
        raise ResourceError(
            f"Serving needs the Python package {error.name}, which is not installed here",
            fix="Run scripts/make_venv.sh serve, and use the environment's Python that it makes.",
        ) from error
    finally:
        told.ignore()


class Told:
    """SIGTERM and SIGINT, from here to the end of the process: at no moment do they end it half-way, with another code
    than its own. While the web server runs, it takes them itself."""

    def __init__(self) -> None:
        self.to_end = False
        self.server: uvicorn.Server | None = None

    def listen(self) -> None:
        """Only the main thread may."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._take)

    def ignore(self) -> None:
        """From here on the exit code is settled. Python gives handlers back before it ends, but not this one."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.to_end = True
        if self.server is not None:
            self.server.handle_exit(number, frame)


async def _serve(given: dict[str, Any], told: Told) -> int:
    from app.asr.catalogue import punctuation_directory
    from app.service.log_lines import set_up_logging
    from app.service.recogniser import Recogniser
    from app.service.settings import load_settings
    from app.service.worker import WorkerSettings

    settings = load_settings(given)
    listener = listen(settings)
    set_up_logging(settings.log_level, settings.log_format)
    punctuation = None
    if punctuation_directory(settings.punctuation) is not None:
        # Here, not above: without such a model this process needs no runtime for networks.
        from app.asr.punctuation import open_punctuation

        punctuation = open_punctuation(settings.punctuation)
    recogniser = Recogniser(
        settings.engine_options, WorkerSettings(idle_seconds=settings.idle_seconds), punctuation
    )
    # The worker loads the model while this process loads the web framework.
    await recogniser.start()
    try:
        web = await asyncio.to_thread(importlib.import_module, "app.service.main")
        app = web.create_app(settings, recogniser)
    except BaseException:
        await recogniser.close()
        raise
    return await run_until_told(app, settings, listener, recogniser.device_gone, told)


def listen(settings: Settings) -> socket.socket:
    """The socket, bound before a model is loaded. Raises InputError when the address cannot be had."""
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, settings.port))
            listener.listen(_BACKLOG)  # whoever comes before the server is up waits a moment
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise InputError(
            f"The address {settings.host}:{settings.port} cannot be used ({error.strerror or error})",
            fix="Give another with --host and --port, or stop what listens there.",
        ) from error
    return listener


def make_server(app: FastAPI, settings: Settings) -> uvicorn.Server:
    """The web server; `serve(sockets=[...])` runs it."""
    import uvicorn

    from app.service.heads import bounded_protocol
    from app.service.security import MAX_HEADER_BYTES

    class Server(uvicorn.Server):
        """Tells the application to drain; a second signal does not wait. No signal is raised again: exit code 0."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            del sig, frame
            app.state.service.admission.drain()
            self.force_exit = self.should_exit
            self.should_exit = True

    return Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",  # ours goes around the server, so that its errors are told like all others
            root_path=settings.root_path,
            timeout_graceful_shutdown=math.ceil(settings.grace_seconds),
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
            http=bounded_protocol(settings.upload_idle_seconds),
        )
    )


async def run_until_told(
    app: FastAPI,
    settings: Settings,
    listener: socket.socket,
    device_gone: asyncio.Event,
    told: Told | None = None,
) -> int:
    """Serve on a socket until SIGTERM, SIGINT, or the loss of the device, then end within the grace period."""
    told = told or Told()
    server = told.server = make_server(app, settings)
    if told.to_end:
        server.handle_exit(signal.SIGTERM, None)
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    shown_parts = "page at /ui/, API at /docs" if settings.page == "on" else "API at /docs"
    say(f"serving {printable(settings.model)} at http://{shown}:{port}{settings.root_path} ({shown_parts})")
    async with app.router.lifespan_context(app):
        watching = asyncio.create_task(_end_without_device(server, device_gone))
        await server.serve(sockets=[listener])
        watching.cancel()
    if device_gone.is_set():
        return _DEVICE_GONE
    return _DONE if server.started else _FAILED


async def _end_without_device(server: uvicorn.Server, device_gone: asyncio.Event) -> None:
    await device_gone.wait()
    say(
        "the GPU was lost twice in a row; ending, so that a restart policy can start a container with a fresh one"
    )
    server.handle_exit(signal.SIGTERM, None)

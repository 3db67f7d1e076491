"""What tests of the exporter share: the stand-in for NVML, and a small HTTP service."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from monitoring.exporter.nvml_client import NvmlClient, Patience
from tests.support.nvml import build_stand_in


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the stand-in library."""
    return build_stand_in(tmp_path_factory.mktemp("nvml"))


@dataclass
class Card:
    """A stand-in that is in place; writing to `file` changes what it says."""

    file: Path
    client: NvmlClient

    def says(self, text: str) -> None:
        self.file.write_text(text, encoding="utf-8")


@pytest.fixture
def card(nvml_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Card]:
    """The stand-in, with no GPU until it is told of some."""
    file = tmp_path / "capture.txt"
    file.write_text("driver 580.95.05\n", encoding="utf-8")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(nvml_library))
    monkeypatch.setenv("FAKE_NVML", str(file))
    client = NvmlClient(patience=Patience(answer=30.0, start=60.0, pause=0.0))
    yield Card(file, client)
    client.close()


@pytest.fixture
def raw_service() -> Iterator[Callable[[bytes, bool], str]]:
    """Makes a listener that answers one request with bytes, and then hangs up or not; gives its URL."""
    listeners: list[socket.socket] = []
    kept: list[socket.socket] = []

    def make(answer: bytes, hang_up: bool) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def serve() -> None:
            connection, _ = listener.accept()
            connection.recv(1000)
            connection.sendall(answer)
            if hang_up:
                connection.close()
            kept.append(connection)

        threading.Thread(target=serve, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield make
    for each in (*listeners, *kept):
        each.close()


@dataclass
class FakeService:
    """An HTTP service that answers what it is told to, and remembers what it was asked."""

    url: str
    answer: Callable[[], tuple[int, bytes]] = lambda: (200, b"")
    asked: list[tuple[str, str, bytes]] = field(default_factory=list)


@pytest.fixture
def service() -> Iterator[FakeService]:
    """A service on a free port of 127.0.0.1."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            there.asked.append((self.path, self.headers.get("Authorization", ""), body))
            status, answer = there.answer()
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_POST = do_GET  # noqa: N815 - the library's name

        def log_message(self, *_: object) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    there = FakeService(f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield there
    server.shutdown()
    server.server_close()

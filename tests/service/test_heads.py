"""Connections that do not say what they want, on a real web server with a short patience."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.fakes.recogniser import FakeRecogniser
from tests.support.service import PATIENCE, app_in, served, wav

LIMIT = 1.0  # seconds
WHOLE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
HALF = WHOLE[:-2]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(app_in(tmp_path_factory.mktemp("service"), upload_idle_seconds=LIMIT)) as url:
        yield url


@contextmanager
def connected(address: str) -> Iterator[socket.socket]:
    place = urlsplit(address)
    with socket.create_connection((str(place.hostname), int(place.port or 0)), PATIENCE) as connection:
        yield connection


def all_of(connection: socket.socket) -> str:
    """What comes until the server closes; fails when it does not."""
    said = b""
    while piece := connection.recv(65536):
        said += piece
    return said.decode()


def answer_of(connection: socket.socket) -> str:
    said = ""
    while not said.endswith("}"):
        piece = connection.recv(65536).decode()
        assert piece, "the server closed the connection"
        said += piece
    return said


def drip(connection: socket.socket, piece: bytes) -> None:
    """Sends small pieces, each well within the limit, until nobody takes them."""
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up:
        connection.sendall(piece)
        time.sleep(LIMIT / 8)


@pytest.mark.parametrize("begun", [b"G", HALF, HALF + b"X-Long: "])
def test_half_a_head_is_answered_and_the_connection_closed(address: str, begun: bytes) -> None:
    with connected(address) as connection:
        connection.sendall(begun)
        said = all_of(connection)
    assert said.startswith("HTTP/1.1 408 ") and '"code": "timeout"' in said


def test_a_connection_that_says_nothing_is_closed(address: str) -> None:
    with connected(address) as connection:
        assert all_of(connection) == ""


def test_bytes_that_drip_win_no_time(address: str) -> None:
    with connected(address) as connection, pytest.raises((BrokenPipeError, ConnectionResetError)):
        drip(connection, b"G")


def test_the_second_head_has_as_little_time_as_the_first(address: str) -> None:
    with connected(address) as connection:
        connection.sendall(WHOLE)
        assert answer_of(connection).startswith("HTTP/1.1 200 ")
        connection.sendall(HALF)
        assert all_of(connection).startswith("HTTP/1.1 408 ")


def test_a_body_that_nobody_wants_is_not_taken_for_ever(address: str) -> None:
    with connected(address) as connection:
        connection.sendall(
            b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"
        )
        assert answer_of(connection).startswith("HTTP/1.1 404 ")
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            drip(connection, b"1\r\na\r\n")


def test_work_that_takes_longer_is_not_disturbed(tmp_path: Path) -> None:
    recogniser = FakeRecogniser([2 * LIMIT])
    with served(app_in(tmp_path, recogniser, upload_idle_seconds=LIMIT)) as url:
        answer = httpx.post(
            f"{url}/v1/audio/transcriptions",
            data={"model": "whisper-1"},
            files={"file": ("talk.wav", wav())},
            timeout=PATIENCE,
        )
    assert answer.status_code == 200


def test_an_open_websocket_is_not_disturbed(tmp_path: Path) -> None:
    with served(app_in(tmp_path, upload_idle_seconds=LIMIT)) as url, connected(url) as connection:
        connection.sendall(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert connection.recv(65536).startswith(b"HTTP/1.1 101 ")
        connection.settimeout(2 * LIMIT)
        with pytest.raises(TimeoutError):
            connection.recv(65536)


def test_a_connection_that_idles_is_kept_longer_than_clients_keep_theirs(address: str) -> None:
    """httpx, and with it OpenAI's client, keeps one for five seconds."""
    with connected(address) as connection:
        for pause in (6.0, 0.0):
            connection.sendall(WHOLE)
            assert answer_of(connection).startswith("HTTP/1.1 200")
            time.sleep(pause)

"""The HTTP side: token, paths, many and odd clients."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from monitoring.exporter import server as server_module
from monitoring.exporter.errors import ConfigurationError
from monitoring.exporter.server import MetricsServer
from tests.support.waiting import wait_for

PAGE = b"asr_gpus 1.0\n"
Start = Callable[..., MetricsServer]


@pytest.fixture
def start() -> Iterator[Start]:
    running: list[MetricsServer] = []

    def make(
        page: Callable[[], bytes] = lambda: PAGE, token: str | None = None, host: str = "127.0.0.1"
    ) -> MetricsServer:
        made = MetricsServer((host, 0), page, token)
        threading.Thread(target=made.serve_forever, args=(0.05,), daemon=True).start()
        running.append(made)
        return made

    yield make
    for each in running:
        each.shutdown()
        each.server_close()


def get(
    server: MetricsServer, path: str = "/metrics", method: str = "GET", **headers: str
) -> tuple[int, bytes, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    try:
        connection.request(method, path, headers=headers)
        with connection.getresponse() as answer:
            return answer.status, answer.read(), answer.headers.get("Content-Type", "")
    finally:
        connection.close()


def test_the_page(start: Start) -> None:
    status, body, kind = get(start())
    assert (status, body) == (200, PAGE)
    assert kind.startswith("text/plain")


@pytest.mark.parametrize(
    ("path", "status"), [("/", 200), ("/healthz", 200), ("/metrics?x=1", 200), ("/other", 404)]
)
def test_other_paths(start: Start, path: str, status: int) -> None:
    assert get(start(), path)[0] == status


def test_only_get(start: Start) -> None:
    assert get(start(), method="POST")[0] == 501


@pytest.mark.parametrize(
    "given", ["", "secret-token", "Basic secret-token", "Bearer", "Bearer secret", "Bearer sécret-token"]
)
def test_without_the_token_there_are_no_metrics(start: Start, given: str) -> None:
    server = start(token="secret-token")
    status, body, _ = get(server, Authorization=given)
    assert status == 401
    assert PAGE not in body
    assert get(server, "/healthz")[0] == 200


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_with_the_token(start: Start, scheme: str) -> None:
    assert get(start(token="secret-token"), Authorization=f"{scheme} secret-token")[:2] == (200, PAGE)


@pytest.mark.parametrize(
    "garbage",
    [b"\x00\xff\x16\x03\x01garbage\r\n\r\n", b"GET", b"GET /metrics HTTP/9.9\r\n\r\n", b"\r\n" * 50],
)
def test_garbage_does_not_stop_it(start: Start, garbage: bytes) -> None:
    server = start()
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as client:
            client.sendall(garbage)
    assert get(server)[0] == 200


def test_a_page_that_fails_costs_one_answer(start: Start) -> None:
    pages = iter([None, PAGE])

    def page() -> bytes:
        made = next(pages)
        if made is None:
            raise ZeroDivisionError
        return made

    server = start(page)
    with pytest.raises((http.client.HTTPException, OSError)):
        get(server)
    assert get(server)[0] == 200


def test_many_that_never_ask_are_bounded_and_let_go(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module._Handler, "timeout", 0.3)
    server = start()
    idle = [socket.create_connection(("127.0.0.1", server.server_port), timeout=30) for _ in range(40)]
    most = threading.active_count()
    assert most < 40

    def answered() -> bool:
        try:
            return get(server)[0] == 200
        except (http.client.HTTPException, OSError):
            return False

    wait_for(answered, "an answer after the idle ones were let go")
    for client in idle:
        client.close()


def test_ipv6(start: Start) -> None:
    try:
        server = start(host="::1")
    except ConfigurationError:
        pytest.skip("this machine has no IPv6 on its loopback device")
    with socket.create_connection(("::1", server.server_port), timeout=30) as client:
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.0 200")


def test_an_address_that_is_taken(start: Start) -> None:
    with pytest.raises(ConfigurationError, match="--listen"):
        MetricsServer(("127.0.0.1", start().server_port), lambda: PAGE)
    with pytest.raises(ConfigurationError, match="--listen"):
        MetricsServer(("203.0.113.7", 0), lambda: PAGE)

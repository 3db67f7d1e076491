"""The real `openai` package and raw sockets against a real web server on 127.0.0.1."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import openai
import pytest
from fastapi import FastAPI

from tests.fakes.recogniser import FakeRecogniser, spoken
from tests.support.service import PATIENCE, app_in, served, until, uploads_of, wav

KEY = "key-of-anna"
SCRIPT = (spoken(0.0, "今", "天"), spoken(1.0, "New", "York"))
Serve = Callable[[FastAPI], str]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service that needs a key."""
    app = app_in(tmp_path_factory.mktemp("service"), FakeRecogniser(SCRIPT), api_keys=KEY)
    with served(app) as url:
        yield url


@contextmanager
def client_for(address: str, key: str = KEY) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0, timeout=PATIENCE) as client:
        yield client


@pytest.fixture
def client(address: str) -> Iterator[openai.OpenAI]:
    with client_for(address) as made:
        yield made


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as stack:

        def start(app: FastAPI) -> str:
            held: AbstractContextManager[str] = served(app)
            return stack.enter_context(held)

        yield start


def test_json(client: openai.OpenAI) -> None:
    answer = client.audio.transcriptions.create(file=("talk.wav", wav()), model="whisper-1")
    assert answer.text == "今天New York"


def test_verbose_json_with_word_times(client: openai.OpenAI) -> None:
    answer = client.audio.transcriptions.create(
        file=("talk.wav", wav()),
        model="whisper-1",
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
        language="zh",
        prompt="张筱雨",
        temperature=0.0,
    )
    assert answer.duration == 1.5
    assert answer.words is not None
    assert answer.segments is not None
    assert [(word.word, word.start, word.end) for word in answer.words][2:] == [
        ("New", 1.0, 1.2),
        ("York", 1.25, 1.45),
    ]
    assert [segment.text for segment in answer.segments] == ["今天", "New York"]


def test_srt(client: openai.OpenAI) -> None:
    answer = client.audio.transcriptions.create(
        file=("talk.wav", wav()), model="whisper-1", response_format="srt"
    )
    assert str(answer).startswith("1\n00:00:00,000 --> 00:00:00,800\n今天\n")


def test_stream(client: openai.OpenAI) -> None:
    stream = client.audio.transcriptions.create(
        file=("talk.wav", wav()), model="gpt-4o-transcribe", stream=True
    )
    events = list(stream)
    assert "".join(e.delta for e in events if e.type == "transcript.text.delta") == "今天New York"
    assert [e.text for e in events if e.type == "transcript.text.done"] == ["今天New York"]


def test_models(client: openai.OpenAI) -> None:
    assert "whisper-1" in [model.id for model in client.models.list()]
    assert client.models.retrieve("whisper-1").id == "whisper-1"


def test_errors_come_out_as_the_package_defines_them(client: openai.OpenAI, address: str) -> None:
    create = client.audio.transcriptions.create
    with pytest.raises(openai.NotFoundError) as missing:
        create(file=("talk.wav", wav()), model="whisper-9")
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as empty:
        create(file=("talk.wav", b""), model="whisper-1")
    assert empty.value.param == "file"
    with pytest.raises(openai.BadRequestError):
        create(file=("talk.pdf", b"%PDF-1.7" * 100), model="whisper-1")
    with pytest.raises(openai.BadRequestError) as bad:
        create(file=("talk.wav", wav()), model="whisper-1", extra_body={"response_format": "xml"})
    assert bad.value.param == "response_format"
    with client_for(address, "key-of-nobody") as stranger, pytest.raises(openai.AuthenticationError):
        stranger.models.list()


def raw(address: str, head: str, body: bytes = b"") -> socket.socket:
    """A connection on which a request was begun."""
    place = urlsplit(address)
    connection = socket.create_connection((str(place.hostname), int(place.port or 0)), timeout=PATIENCE)
    lines = head.strip().splitlines()
    connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
    return connection


HEAD = """
POST /v1/audio/transcriptions HTTP/1.1
Host: localhost
Authorization: Bearer key-of-anna
Content-Type: multipart/form-data; boundary=xyz
"""


def test_413_comes_before_the_body(address: str) -> None:
    """The client announces 100 GB, sends nothing, and has its answer."""
    with raw(address, HEAD + "Content-Length: 100000000000\n") as connection:
        answer = ""
        while "}}" not in answer:  # head and body may come one after the other
            answer += connection.recv(65536).decode()
    assert answer.startswith("HTTP/1.1 413 ")
    assert json.loads(answer.partition("\r\n\r\n")[2])["error"]["code"] == "file_too_large"


def test_413_comes_as_soon_as_an_unannounced_body_is_too_large(tmp_path: Path, serve: Serve) -> None:
    app = app_in(tmp_path, max_upload_bytes=100_000)
    part = b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + bytes(120_000)
    head = HEAD + "Transfer-Encoding: chunked\n"
    with raw(serve(app), head, b"%x\r\n%b\r\n" % (len(part), part)) as connection:  # and no last chunk
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert uploads_of(app) == []


def test_enormous_headers_are_refused(address: str) -> None:
    with raw(address, "GET /healthz HTTP/1.1\nHost: localhost\nX-Large: " + "x" * 100_000) as connection:
        assert connection.recv(65536).startswith(b"HTTP/1.1 431 ")


def test_health_answers_while_a_file_is_recognised(tmp_path: Path, serve: Serve) -> None:
    recogniser = FakeRecogniser([60.0])
    address = serve(app_in(tmp_path, recogniser))
    with raw(address, HEAD + f"Content-Length: {len(form())}\n", form()):
        until(lambda: recogniser.running)
        assert httpx.get(f"{address}/healthz", timeout=PATIENCE).status_code == 200


@pytest.mark.parametrize(
    "field", [b"", b'--xyz\r\nContent-Disposition: form-data; name="stream"\r\n\r\ntrue\r\n']
)
def test_a_client_that_goes_away_ends_its_work(tmp_path: Path, serve: Serve, field: bytes) -> None:
    recogniser = FakeRecogniser([spoken(0.0, "今"), 60.0])
    app = app_in(tmp_path, recogniser)
    body = field + form()
    with raw(serve(app), HEAD + f"Content-Length: {len(body)}\n", body):
        until(lambda: recogniser.running)
        assert len(uploads_of(app)) == 1
    until(lambda: recogniser.cancelled)
    until(lambda: not uploads_of(app))


def form() -> bytes:
    """A body with all that is needed."""
    return (
        b'--xyz\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
        b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        + wav()
        + b"\r\n--xyz--\r\n"
    )

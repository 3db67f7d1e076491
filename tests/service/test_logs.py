"""One line a request, and the id that binds it to the answer."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from app.service.log_lines import JsonFormatter, TextFormatter, set_up_logging
from tests.fakes.recogniser import FakeRecogniser, spoken
from tests.support.service import app_in, get, served, transcribe


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Any:
    """The fields of each request's line so far."""
    caplog.set_level(logging.INFO, logger="app.service.requests")

    def read() -> list[dict[str, Any]]:
        found = [json.loads(JsonFormatter().format(record)) for record in caplog.records]
        return [line for line in found if line["message"] == "request"]

    return read


def test_a_transcription_leaves_one_line(tmp_path: Path, lines: Any) -> None:
    app = app_in(tmp_path, FakeRecogniser([spoken(9.5, "今", "天")]))
    response = transcribe(app, headers={"X-Request-ID": "from-the-client"})
    (line,) = lines()
    assert line["id"] == response.headers["x-request-id"] == "from-the-client"
    assert (line["route"], line["code"], line["outcome"]) == ("/v1/audio/transcriptions", 200, "ok")
    assert (line["audio_seconds"], line["rtf"]) == (10.0, 0.1)
    assert line["duration"] >= 0


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "line\tbreak", "<script>"])
def test_an_id_that_is_none_is_replaced(tmp_path: Path, given: str) -> None:
    answered = get(app_in(tmp_path), "/healthz", headers={"X-Request-ID": given}).headers["x-request-id"]
    assert answered != given
    assert len(answered) == 16


def test_the_recogniser_knows_the_id(tmp_path: Path) -> None:
    recogniser = FakeRecogniser()
    transcribe(app_in(tmp_path, recogniser), headers={"X-Request-ID": "abc"})
    assert recogniser.requests[0][0].request_id == "abc"


def test_refusals_and_faults_are_told_apart(
    tmp_path: Path, lines: Any, caplog: pytest.LogCaptureFixture
) -> None:
    transcribe(app_in(tmp_path), {"model": "other"})
    response = transcribe(app_in(tmp_path, FakeRecogniser([RuntimeError("of ours")])))
    assert [line["outcome"] for line in lines()] == ["model_not_found", "internal_error"]
    assert response.headers["x-request-id"] in response.json()["error"]["message"]
    assert [record for record in caplog.records if record.exc_info]


def test_health_checks_are_not_worth_a_line(tmp_path: Path, lines: Any) -> None:
    get(app_in(tmp_path), "/healthz")
    assert lines() == []


@pytest.mark.parametrize("form", [JsonFormatter(), TextFormatter()])
def test_a_line_holds_fields_and_what_went_wrong(form: logging.Formatter) -> None:
    try:
        raise ValueError("of ours")
    except ValueError:
        record = logging.LogRecord("app", logging.ERROR, "x.py", 1, "a %s", ("fault",), sys.exc_info())
    record.__dict__["fields"] = {"id": "abc"}
    told = form.format(record)
    assert all(part in told for part in ("a fault", "abc", "error", "ValueError: of ours"))
    if isinstance(form, JsonFormatter):
        assert json.loads(told)["level"] == "error"
        assert "\n" not in told


@pytest.fixture
def own_logging() -> Iterator[None]:
    """The process's logging as it was before, whatever the test sets up."""
    loggers = [logging.getLogger(name) for name in ("", "app", "uvicorn", "uvicorn.error", "uvicorn.access")]
    before = [(logger, logger.level, logger.handlers[:], logger.propagate) for logger in loggers]
    yield
    for logger, level, handlers, propagate in before:
        logger.setLevel(level)
        logger.handlers[:], logger.propagate = handlers, propagate


@pytest.mark.parametrize("level", ["info", "debug"])
@pytest.mark.usefixtures("own_logging")
def test_a_websocket_leaves_neither_address_nor_headers_in_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], level: str
) -> None:
    """The web server's own lines hold both; they are not wanted."""
    set_up_logging(level, "json")

    async def scene(address: str) -> None:
        keys = ({"Authorization": "Bearer key-of-anna"}, {"Authorization": "Bearer key-of-nobody"})
        async with connect(f"{address}/?token=hush", additional_headers=keys[0]) as client:
            await client.send(json.dumps({"mode": "online", "wav_name": "talk-with-anna"}))
            await client.recv()
        with pytest.raises(InvalidStatus):
            await connect(f"{address}/?token=hush", additional_headers=keys[1])

    with served(app_in(tmp_path, api_keys="key-of-anna")) as address:
        asyncio.run(asyncio.wait_for(scene(address.replace("http://", "ws://")), 20))
    told = capsys.readouterr().err
    assert "websocket /" in told  # our own line
    assert not [word for word in ("hush", "key-of", "talk-with") if word in told]

"""Who may ask, and what every answer carries."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from app.service.security import ApiKeys, client_of
from tests.fakes.recogniser import FakeRecogniser
from tests.support.service import app_in, get, transcribe

KEY, OTHER = "key-of-anna", "key-of-bert"


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_each_key_opens_and_nothing_else_does() -> None:
    keys = ApiKeys([SecretStr(KEY), SecretStr(OTHER)])
    assert all(keys.accept(text) for text in (f"Bearer {KEY}", f"bearer  {OTHER}", f"BEARER {KEY} "))
    wrong = ("", KEY, "Bearer", "Bearer ", f"Basic {KEY}", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", "Bearer é")
    assert not any(keys.accept(text) for text in wrong)


def test_without_keys_everybody_may_ask(tmp_path: Path) -> None:
    assert get(app_in(tmp_path), "/v1/models").status_code == 200


@pytest.mark.parametrize("headers", [{}, bearer("key-of-nobody"), {"Authorization": KEY}])
def test_without_a_key_nothing_is_read(tmp_path: Path, headers: dict[str, str]) -> None:
    recogniser = FakeRecogniser()
    response = transcribe(app_in(tmp_path, recogniser, api_keys=f"{KEY},{OTHER}"), headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.json()["error"]["code"] == "invalid_api_key"
    assert "key-of" not in response.text
    assert recogniser.requests == []


@pytest.mark.parametrize("key", [KEY, OTHER])
def test_with_a_key_it_is(tmp_path: Path, key: str) -> None:
    app = app_in(tmp_path, api_keys=f"{KEY},{OTHER}")
    assert transcribe(app, headers=bearer(key)).status_code == 200
    assert get(app, "/v1/capacity", headers=bearer(key)).status_code == 200


@pytest.mark.parametrize(
    ("site", "status"), [("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)]
)
def test_without_keys_no_page_of_another_site_can_give_work(tmp_path: Path, site: str, status: int) -> None:
    recogniser = FakeRecogniser()
    app = app_in(tmp_path, recogniser)
    response = transcribe(app, headers={"Sec-Fetch-Site": site})
    assert response.status_code == status
    assert bool(recogniser.requests) is (status == 200)
    assert get(app, "/v1/models", headers={"Sec-Fetch-Site": site}).status_code == 200


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8000", "[::1]:8000", "192.168.1.7", "localhost", "asr", "ASR.:8000"]
)
def test_without_keys_it_is_asked_by_names_that_nobody_can_point_at_it(tmp_path: Path, host: str) -> None:
    app = app_in(tmp_path, allowed_hosts="asr, speech.example.org")
    assert get(app, "/v1/jobs", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["rebound.example", "localhost.example:8000", "127.0.0.1.example", "asr.example"]
)
def test_without_keys_no_name_that_was_pointed_at_it_is_answered(tmp_path: Path, host: str) -> None:
    """DNS rebinding: for the browser, the page of that name and this service are one site."""
    recogniser = FakeRecogniser()
    app = app_in(tmp_path, recogniser, allowed_hosts="asr")
    for path in ("/", "/ui/", "/docs", "/v1/jobs", "/v1/capacity", "/nothing"):
        assert get(app, path, headers={"Host": host}).status_code == 421
    refused = transcribe(app, headers={"Host": host}).json()["error"]
    assert refused["code"] == "unknown_host"
    assert f"'{host.partition(':')[0]}'" in refused["message"] and "ASR_ALLOWED_HOSTS" in refused["message"]
    assert recogniser.requests == []


def test_machines_ask_for_health_and_metrics_by_any_name(tmp_path: Path) -> None:
    named = {"Host": "rebound.example"}
    app = app_in(tmp_path)
    assert {get(app, path, headers=named).status_code for path in ("/healthz", "/readyz", "/metrics")} == {
        200
    }
    assert get(app_in(tmp_path, metrics="key"), "/metrics", headers=named).status_code == 421


def test_with_keys_or_where_the_operator_says_so_names_do_not_matter(tmp_path: Path) -> None:
    named = {"Host": "gateway.example"}
    assert get(app_in(tmp_path, allowed_hosts="*"), "/v1/jobs", headers=named).status_code == 200
    closed = app_in(tmp_path, api_keys=KEY)
    assert get(closed, "/v1/jobs", headers={**named, **bearer(KEY)}).status_code == 200
    assert get(closed, "/v1/jobs", headers=named).status_code == 401


def test_health_is_public_and_the_rest_is_not(tmp_path: Path) -> None:
    app = app_in(tmp_path, api_keys=KEY)
    open_to_all = {path: get(app, path).status_code for path in ("/healthz", "/readyz", "/metrics", "/docs")}
    assert set(open_to_all.values()) == {200}
    closed = ("/v1/models", "/v1/capacity", "/nothing", "/healthz/")
    assert {get(app, path).status_code for path in closed} == {401}


@pytest.mark.parametrize(
    ("exposure", "without", "given"), [("public", 200, 200), ("key", 401, 200), ("off", 401, 404)]
)
def test_metrics_and_docs_are_shown_to_whom_the_operator_wants(
    tmp_path: Path, exposure: str, without: int, given: int
) -> None:
    app = app_in(tmp_path, api_keys=KEY, metrics=exposure, docs=exposure)
    for path in ("/metrics", "/docs", "/openapi.json"):
        assert get(app, path).status_code == without
        assert get(app, path, headers=bearer(KEY)).status_code == given


@pytest.mark.parametrize("path", ["/healthz", "/nothing", "/v1/models"])
def test_every_answer_has_safe_headers_and_no_other_origin_is_let_in(tmp_path: Path, path: str) -> None:
    response = get(app_in(tmp_path, api_keys=KEY), path, headers={"Origin": "https://example.com"})
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["x-frame-options"] == "DENY"
    assert response.headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in response.headers


def test_a_websocket_needs_a_key_too(tmp_path: Path) -> None:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(dict(message))

    scope = {"type": "websocket", "path": "/", "headers": [], "client": ("127.0.0.1", 1), "state": {}}
    asyncio.run(app_in(tmp_path, api_keys=KEY)(scope, receive, send))
    assert [message["type"] for message in sent] == ["websocket.close"]


def test_a_client_is_known_by_its_key_or_its_address_and_the_key_is_not_told() -> None:
    scope = {"headers": [(b"authorization", b"Bearer " + KEY.encode())], "client": ("10.0.0.1", 1)}
    other = {"headers": [(b"authorization", b"Bearer " + OTHER.encode())], "client": ("10.0.0.1", 1)}
    assert client_of(scope) != client_of(other)
    assert KEY not in client_of(scope)
    assert client_of({"headers": [], "client": ("10.0.0.1", 1)}) == "10.0.0.1"
    assert client_of({"headers": [], "client": None}) == "anonymous"


def test_a_key_is_one_client_however_it_is_written() -> None:
    """Turns are by client, and jobs are seen by their sender: blanks in the header must make no second one."""
    spellings = (f"Bearer {KEY}", f"bearer {KEY}", f"BEARER  {KEY}", f"Bearer {KEY} ")
    known = {client_of({"headers": [(b"authorization", text.encode())]}) for text in spellings}
    assert len(known) == 1


def test_logs_hold_neither_keys_nor_words_nor_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    app = app_in(tmp_path, api_keys=KEY)
    transcribe(app, {"hotwords": "张筱雨"}, headers=bearer(KEY))
    transcribe(app, headers=bearer("key-of-nobody"))
    get(app, "/v1/models?token=hush", headers=bearer(KEY))
    ours = [record for record in caplog.records if not record.name.startswith("httpx")]
    told = "\n".join(f"{record.getMessage()} {record.__dict__}" for record in ours)
    assert "/v1/audio/transcriptions" in told
    assert not [
        secret for secret in (KEY, "key-of-nobody", "张筱雨", "talk.wav", "hush", "今天") if secret in told
    ]

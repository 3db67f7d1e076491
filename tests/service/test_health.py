"""What machines ask: does it live, can it work, how much can it take; and how the framework's refusals look."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.recogniser import FakeRecogniser
from tests.support.service import app_in, ask, get


@pytest.mark.parametrize(
    ("state", "code"), [("ready", 200), ("asleep", 200), ("starting", 503), ("failed", 503)]
)
def test_readiness_follows_the_engine_and_life_does_not(tmp_path: Path, state: str, code: int) -> None:
    recogniser = FakeRecogniser()
    recogniser.becomes(state=state, message="downloading the model, 40 %")
    app = app_in(tmp_path, recogniser)
    ready = get(app, "/readyz")
    assert ready.status_code == code
    assert ready.json() == {"status": state, "message": "downloading the model, 40 %"}
    assert get(app, "/healthz").status_code == 200


def test_a_worker_that_starts_again_makes_no_host_unready(tmp_path: Path) -> None:
    """Else a gateway takes the host out and cuts off the requests that wait for the worker."""
    recogniser = FakeRecogniser()
    recogniser.becomes(state="starting", message="starting again in 1 s", resumes=True)
    app = app_in(tmp_path, recogniser)
    ready = get(app, "/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "starting")
    app.state.service.admission.drain()
    assert get(app, "/readyz").status_code == 503


def test_a_draining_service_is_not_ready(tmp_path: Path) -> None:
    app = app_in(tmp_path)
    app.state.service.admission.drain()
    response = get(app, "/readyz")
    assert (response.status_code, response.json()["status"]) == (503, "draining")


def test_capacity_tells_engine_queue_and_limits(tmp_path: Path) -> None:
    recogniser = FakeRecogniser()
    recogniser.becomes(waiting_seconds=3.0, restarts={"killed": 1})
    told = get(app_in(tmp_path, recogniser, max_audio_seconds=60), "/v1/capacity").json()
    assert (told["state"], told["device"], told["precision"]) == ("ready", "cpu", "fp32")
    assert (told["waiting_seconds"], told["rtf"]) == (3.0, 0.1)
    assert told["limits"]["max_audio_seconds"] == 60
    assert told["worker_restarts"] == {"killed": 1}


@pytest.mark.parametrize(
    ("method", "path", "code", "word"),
    [
        ("GET", "/nothing", 404, "unknown_url"),
        ("GET", "/v1/audio/transcriptions", 405, "method_not_allowed"),
        ("POST", "/healthz", 405, "method_not_allowed"),
        ("POST", "/v1/audio/transcriptions", 415, "unsupported_content_type"),
    ],
)
def test_refusals_have_the_shape_of_all_errors(
    tmp_path: Path, method: str, path: str, code: int, word: str
) -> None:
    response = ask(app_in(tmp_path), lambda client: client.request(method, path))
    assert response.status_code == code
    assert response.json()["error"]["code"] == word


def test_the_api_document_describes_the_form(tmp_path: Path) -> None:
    document = get(app_in(tmp_path), "/openapi.json").json()
    post = document["paths"]["/v1/audio/transcriptions"]["post"]
    form = post["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["required"] == ["file", "model"]
    assert {"hotwords", "response_format", "timestamp_granularities[]", "stream"} <= set(form["properties"])
    assert {"400", "413", "429"} <= set(post["responses"])

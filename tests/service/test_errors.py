"""Every error has a status, and OpenAI's shape."""

from __future__ import annotations

import json

import pytest

from app.asr.errors import AsrError, AudioError, DeviceError, HotwordError, PackError, ResourceError
from app.service.errors import (
    Overloaded,
    RequestError,
    ShuttingDown,
    TimedOut,
    TooLarge,
    TooLong,
    failure_of,
    failure_of_status,
    internal_failure,
)


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (AudioError("a", fix="b"), 400, "invalid_request_error"),
        (HotwordError("a", fix="b"), 400, "invalid_request_error"),
        (RequestError("a", fix="b", status=404), 404, "invalid_request_error"),
        (TooLarge(1 << 20), 413, "invalid_request_error"),
        (TooLong(60, 90), 413, "invalid_request_error"),
        (Overloaded(7.2), 429, "rate_limit_error"),
        (TimedOut("a", fix="b", client=True), 408, "invalid_request_error"),
        (TimedOut("a", fix="b", client=False), 504, "server_error"),
        (ShuttingDown(), 503, "server_error"),
        (ResourceError("a", fix="b"), 503, "server_error"),
        (DeviceError("a", fix="b"), 503, "server_error"),
        (PackError("a", fix="b"), 503, "server_error"),
        (AsrError("a", fix="b"), 503, "server_error"),
    ],
)
def test_status_and_type(error: AsrError, status: int, kind: str) -> None:
    failure = failure_of(error)
    assert (failure.status, failure.type) == (status, kind)
    body = json.loads(json.dumps(failure.body))["error"]
    assert set(body) == {"message", "type", "param", "code"}
    assert body["code"]


def test_a_message_is_two_sentences() -> None:
    assert failure_of(AudioError("it is damaged", fix="repair it")).message == "It is damaged. Repair it."


@pytest.mark.parametrize(
    ("seconds", "header"), [(7.2, "8"), (0.0, "1"), (-5.0, "1"), (1e9, "3600"), (float("inf"), "3600")]
)
def test_retry_after_is_a_whole_number_of_seconds(seconds: float, header: str) -> None:
    assert dict(failure_of(Overloaded(seconds)).headers)["Retry-After"] == header


def test_refusals_of_the_framework_have_codes() -> None:
    assert failure_of_status(404, "").code == "unknown_url"
    assert failure_of_status(405, "").code == "method_not_allowed"
    assert failure_of_status(418, "").type == "invalid_request_error"
    assert failure_of_status(599, "odd").type == "server_error"


def test_a_fault_of_ours_tells_only_where_to_look() -> None:
    assert "abc123" in internal_failure("abc123").message

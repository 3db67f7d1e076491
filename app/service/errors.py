"""What can go wrong between a client and the engine, and how every failure looks on the wire.

    AsrError (app.asr.errors)
    └── ServiceError
        ├── RequestError   the request itself: a missing field, a bad value, an unknown model, no key
        ├── TooLarge       more bytes than an upload may have
        ├── TooLong        more seconds of audio than a file may have
        ├── Overloaded     enough work is waiting; come back later
        ├── TimedOut       the client sent, or the engine worked, for too long
        ├── ShuttingDown   no new work, the service is about to end
        └── JobsUnavailable   the jobs on the disk cannot be read or written

The body is OpenAI's error object for all of them, for the engine's errors and for those of the framework.
What is logged and counted is logs.py's part.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from app.asr.errors import (
    AsrError,
    HotwordError,
    InputError,
    ResourceError,
)

INVALID, RATE_LIMIT, SERVER = "invalid_request_error", "rate_limit_error", "server_error"
MAX_RETRY_SECONDS = 3600


class ServiceError(AsrError):
    """Base of the service's own failures."""


class RequestError(ServiceError):
    """The request cannot be served as it is.

    Args:
        status: HTTP status, 4xx.
        param: the field it is about.
        code: a word for programs.
    """

    def __init__(
        self, problem: str, *, fix: str, status: int = 400, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(problem, fix=fix)
        self.status, self.param, self.code = status, param, code or "invalid_request"


class TooLarge(ServiceError):  # noqa: N818 - named by what the client did
    """An upload has more bytes than one may have."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(
            f"The upload is larger than the {limit_bytes >> 20} MiB that this service takes",
            fix="Send a compressed format such as MP3 or Opus, or cut the recording into parts.",
        )


class TooLong(ServiceError):  # noqa: N818
    """A file has more seconds of audio than one may have."""

    def __init__(self, limit_seconds: float, seconds: float | None = None) -> None:
        has = "The audio is" if seconds is None else f"The audio has {seconds:.0f} seconds,"
        super().__init__(
            f"{has} more than the {limit_seconds:.0f} seconds that this service takes at once",
            fix="Cut the recording into parts.",
        )


class Overloaded(ServiceError):  # noqa: N818
    """Enough work is waiting; `retry_after_seconds` is when there should be room again."""

    def __init__(
        self, retry_after_seconds: float, problem: str = "The queue of this service is full"
    ) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(problem, fix=f"Send the request again in {self.header} seconds.")

    @property
    def header(self) -> str:
        """The value of Retry-After."""
        seconds = self.retry_after_seconds
        if not math.isfinite(seconds):
            return str(MAX_RETRY_SECONDS)
        return str(min(MAX_RETRY_SECONDS, max(1, math.ceil(seconds))))


class TimedOut(ServiceError):  # noqa: N818
    """Somebody took too long: the client with its upload (408), or the engine (504)."""

    def __init__(self, problem: str, *, fix: str, client: bool) -> None:
        super().__init__(problem, fix=fix)
        self.client = client


class ShuttingDown(ServiceError):  # noqa: N818
    """The service is about to end and takes no new work."""

    def __init__(self) -> None:
        super().__init__(
            "This service is shutting down and takes no new work",
            fix="Send the request again in a few seconds.",
        )


class JobsUnavailable(ServiceError):  # noqa: N818
    """The jobs on the disk cannot be read or written; `may_pass` when asking again later may help."""

    RETRY = 30  # seconds

    def __init__(self, problem: str, *, fix: str, may_pass: bool) -> None:
        super().__init__(problem, fix=fix)
        self.may_pass = may_pass


@dataclass(frozen=True)
class Failure:
    """An error as HTTP sees it."""

    status: int
    message: str
    type: str = INVALID
    param: str | None = None
    code: str | None = None
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def body(self) -> dict[str, Any]:
        """OpenAI's error object."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


def failure_of(error: AsrError) -> Failure:
    """Status, words and headers for an expected failure. The engine's faults hide nothing and blame nobody."""
    message = sentence(error.problem) + " " + sentence(error.fix)
    if isinstance(error, RequestError):
        return Failure(error.status, message, INVALID, error.param, error.code)
    if isinstance(error, TimedOut):
        return Failure(
            408 if error.client else 504, message, INVALID if error.client else SERVER, None, "timeout"
        )
    if isinstance(error, JobsUnavailable):
        later = (("Retry-After", str(error.RETRY)),) if error.may_pass else ()
        return Failure(503, message, SERVER, None, "jobs_unavailable", later)
    headers = (("Retry-After", error.header),) if isinstance(error, Overloaded) else ()
    for kind, (status, word, param, code, retry) in _ANSWERS.items():
        if isinstance(error, kind):
            after = (("Retry-After", retry),) if retry else headers
            return Failure(status, message, word, param, code, after)
    return Failure(503, message, SERVER, None, "engine_unavailable", (("Retry-After", "30"),))


# Error -> status, type, param, code, Retry-After; the first that fits counts.
_ANSWERS: dict[type[AsrError], tuple[int, str, str | None, str, str]] = {
    TooLarge: (413, INVALID, "file", "file_too_large", ""),
    TooLong: (413, INVALID, "file", "audio_too_long", ""),
    Overloaded: (429, RATE_LIMIT, None, "rate_limit_exceeded", ""),
    ShuttingDown: (503, SERVER, None, "shutting_down", "5"),
    HotwordError: (400, INVALID, "hotwords", "invalid_hotwords", ""),
    InputError: (400, INVALID, "file", "invalid_file", ""),
    ResourceError: (503, SERVER, None, "insufficient_resources", "30"),
}


def failure_of_status(status: int, detail: str, headers: tuple[tuple[str, str], ...] = ()) -> Failure:
    """The framework's own refusals: no such address, a wrong method, a body that it could not read."""
    codes = {404: "unknown_url", 405: "method_not_allowed"}
    try:
        known = HTTPStatus(status).phrase
    except ValueError:
        known = "Error"
    return Failure(
        status,
        sentence(detail or known),
        INVALID if status < 500 else SERVER,
        None,
        codes.get(status, known.lower().replace(" ", "_")),
        headers,
    )


def internal_failure(request_id: str) -> Failure:
    """What a client is told of a fault of ours: nothing but where to find it in the log."""
    return Failure(
        500,
        f"An unexpected error happened. Give this request id when you report it: {request_id}",
        SERVER,
        None,
        "internal_error",
    )


def sentence(text: str) -> str:
    """With a capital letter and one full stop."""
    text = text.strip().rstrip(".")
    return text[:1].upper() + text[1:] + "."

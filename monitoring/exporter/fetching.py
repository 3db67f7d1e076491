"""One HTTP request to a service, bounded in time and size. Redirects are not followed, proxies not used."""

from __future__ import annotations

import http.client
import time
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

from monitoring.exporter.errors import ConfigurationError, ReadingError

_CHUNK = 64 << 10
_UNAUTHORIZED = (401, 403)


def checked_url(url: str, option: str) -> str:
    """A URL that can be fetched.

    Raises:
        ConfigurationError: it is none, or carries a password, which would be shown as a label.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or "@" in parts.netloc or any(letter.isspace() for letter in url):
        raise ConfigurationError(
            f"{option} is not a URL that can be fetched: {url!r}",
            fix="Give it as http://127.0.0.1:8000/metrics, without a user or password",
        )
    return url


def fetch(
    url: str,
    *,
    seconds: float,
    largest: int,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, bytes]:
    """Status and body of a GET, or of a POST when there is a body.

    Raises:
        ReadingError: no answer, not in time, or a larger one than allowed.
    """
    deadline = time.monotonic() + seconds
    parts = urlsplit(url)
    connection = _connection(parts, seconds)
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET" if body is None else "POST", path, body, dict(headers or {}))
        with connection.getresponse() as answer:
            status, told = answer.status, _read(answer, url, largest, deadline)
    except TimeoutError:
        raise ReadingError(
            f"{url} did not answer within {seconds:g} s", fix="Look at the service's log and its load"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        raise ReadingError(
            f"{url} does not answer ({_words(error)})", fix="Check that the service runs and listens there"
        ) from None
    finally:
        connection.close()
    if status in _UNAUTHORIZED:
        raise ReadingError(
            f"{url} wants a key (it answered {status})", fix="Give a file with one: --api-key-file"
        )
    return status, told


def _read(answer: http.client.HTTPResponse, url: str, largest: int, deadline: float) -> bytes:
    chunks: list[bytes] = []
    while chunk := answer.read1(_CHUNK):
        chunks.append(chunk)
        if sum(map(len, chunks)) > largest:
            raise ReadingError(
                f"{url} answered with more than {largest >> 10} KiB",
                fix="Check that this is the right address",
            )
        if time.monotonic() > deadline:
            raise TimeoutError
    return b"".join(chunks)


def _connection(parts: SplitResult, seconds: float) -> http.client.HTTPConnection:
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(parts.hostname or "", parts.port, timeout=seconds)


def _words(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error) or type(error).__name__

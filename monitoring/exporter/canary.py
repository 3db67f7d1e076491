"""The canary: a known clip through the service's own API every few minutes, as a user would send it.

It tells what no counter can: that words still come out, the right ones, and how fast. A service that refuses because it
is busy fails the canary, too; a user would have been refused as well.
"""

from __future__ import annotations

import http.client
import io
import json
import logging
import re
import secrets
import threading
import time
import wave
from dataclasses import dataclass
from pathlib import Path

from monitoring.exporter.errors import ConfigurationError, ReadingError
from monitoring.exporter.fetching import fetch

LOG = logging.getLogger(__name__)
_SECONDS = 120.0
_LARGEST_ANSWER = 1 << 20
_LARGEST_CLIP = 8 << 20
_PATH = "/v1/audio/transcriptions"
# Punctuation and spaces are a matter of settings, words are not.
_NOT_WORDS = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Clip:
    """A recording of which the words are known: WAV bytes, seconds, text."""

    data: bytes
    seconds: float
    text: str


@dataclass(frozen=True)
class CanaryResult:
    """How a try ended: seconds it took, Unix time, `rtf` and `correct` only where there was a transcript."""

    success: bool
    seconds: float
    ended: float
    rtf: float | None = None
    correct: bool | None = None


def load_clip(path: Path, text: str | None) -> Clip:
    """The clip of a model pack (a directory: golden.wav and the text in manifest.json), or a WAV file and its text.

    Raises:
        ConfigurationError: there is no such clip, or its text is not known.
    """
    audio = path / "golden.wav" if path.is_dir() else path
    try:
        if text is None and path.is_dir():
            text = json.loads((path / "manifest.json").read_text(encoding="utf-8"))["golden"]["text"]
        data = audio.read_bytes()
        with wave.open(io.BytesIO(data)) as clip:
            seconds = clip.getnframes() / clip.getframerate()
    except (OSError, ValueError, LookupError, TypeError, EOFError, wave.Error) as error:
        raise ConfigurationError(
            f"The canary's clip {path} cannot be used ({error})",
            fix="Give a model pack's directory or a WAV file with --canary-clip",
        ) from None
    if not isinstance(text, str) or not _NOT_WORDS.sub("", text):
        raise ConfigurationError(
            f"Nobody said which words {path} holds",
            fix="Give a pack's directory, or the words with --canary-text",
        )
    if seconds <= 0 or len(data) > _LARGEST_CLIP:
        raise ConfigurationError(
            f"The canary's clip {path} is empty or larger than {_LARGEST_CLIP >> 20} MiB",
            fix="Give one of some seconds",
        )
    return Clip(data, seconds, text)


class Canary:
    """Tries again and again in a thread of its own; readers get the last result.

    Args:
        url: of the service, without a path.
        clip: what is sent.
        interval_seconds: from one try's beginning to the next.
        key: sent as a bearer token where the service asks for one.
    """

    def __init__(self, url: str, clip: Clip, *, interval_seconds: float, key: str | None = None) -> None:
        self._url, self._clip, self._interval, self._key = (
            url.rstrip("/") + _PATH,
            clip,
            interval_seconds,
            key,
        )
        self._last: CanaryResult | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="canary", daemon=True)

    def start(self) -> None:
        """Begins; the first try is at once."""
        self._thread.start()

    def close(self) -> None:
        self._closing.set()

    def last(self) -> CanaryResult | None:
        """The last try's result, None before the first has ended."""
        return self._last

    def _run(self) -> None:
        while True:
            began = time.monotonic()
            self._last = self.sing()
            if self._closing.wait(max(1.0, self._interval - (time.monotonic() - began))):
                return

    def sing(self) -> CanaryResult:
        """One try, of two minutes at most."""
        began = time.monotonic()
        try:
            text = self._transcribe()
        except ReadingError as error:
            LOG.warning("The canary failed: %s", error)
            return CanaryResult(False, time.monotonic() - began, time.time())
        seconds = time.monotonic() - began
        correct = _NOT_WORDS.sub("", text) == _NOT_WORDS.sub("", self._clip.text)
        if not correct:
            LOG.warning("The canary heard %r instead of %r", text[:200], self._clip.text)
        return CanaryResult(True, seconds, time.time(), seconds / self._clip.seconds, correct)

    def _transcribe(self) -> str:
        boundary = secrets.token_hex(16)
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n--{boundary}\r\n'
        head += 'Content-Disposition: form-data; name="file"; filename="canary.wav"\r\nContent-Type: audio/wav\r\n\r\n'
        body = head.encode() + self._clip.data + f"\r\n--{boundary}--\r\n".encode()
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        status, answer = fetch(
            self._url, seconds=_SECONDS, largest=_LARGEST_ANSWER, body=body, headers=headers
        )
        if status != http.client.OK:
            raise ReadingError(
                f"{self._url} answered {status}: {answer[:200].decode('utf-8', 'replace')}",
                fix="Look at the service's log; 429 and 503 mean that it is busy or not ready",
            )
        try:
            text = json.loads(answer)["text"]
        except (ValueError, LookupError, TypeError):
            text = None
        if not isinstance(text, str):
            raise ReadingError(
                f"{self._url} answered without a text", fix="Check that --canary names our service"
            )
        return text

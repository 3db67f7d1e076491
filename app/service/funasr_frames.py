"""FunASR's websocket messages for whole recordings: what a client's JSON may say, and what the answer looks like.

No sockets and no files here. The conversation is funasr_socket.py's part.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.asr.transcript import Transcript, Word
from app.service.errors import RequestError

MODE = "offline"
PCM = "pcm"
MIN_RATE, MAX_RATE = 8000, 48_000
_MAX_ANY_RATE = 1_000_000  # said of a container, which knows better
# What clients of the websockets library take in one message unless told otherwise; FunASR's own is one of them.
MAX_ANSWER_BYTES = 1 << 20
_STREAMING = frozenset({"online", "2pass", "2pass-online", "2pass-offline"})
_MAX_NAME, _MAX_FORMAT = 255, 32


@dataclass(frozen=True)
class Wishes:
    """What a client has said about its recordings; it stays so for the next one on the same connection."""

    wav_name: str = "wav-default-id"
    wav_format: str = PCM
    audio_fs: int = 16_000
    hotwords: str | None = None

    @property
    def is_pcm(self) -> bool:
        return self.wav_format == PCM


def read_frame(text: str, wishes: Wishes) -> tuple[Wishes, bool]:
    """What a JSON frame changes, and whether it ends a recording.

    Raises:
        RequestError: it is not JSON, or says something that cannot be done.
    """
    try:
        frame = json.loads(text)
    except (ValueError, RecursionError):
        raise _refusal("A text frame is not JSON", 'Send {"mode": "offline", "wav_format": "pcm"}.') from None
    if not isinstance(frame, dict):
        raise _refusal("A text frame is not a JSON object", 'Send {"mode": "offline", "wav_format": "pcm"}.')
    _check_mode(frame.get("mode", MODE))
    wishes = replace(
        wishes,
        wav_name=_text(frame, "wav_name", wishes.wav_name, _MAX_NAME),
        wav_format=_text(frame, "wav_format", wishes.wav_format, _MAX_FORMAT).strip().lower(),
        audio_fs=_rate(frame, wishes.audio_fs),
        hotwords=_hotwords(frame["hotwords"]) if frame.get("hotwords") is not None else wishes.hotwords,
    )
    if wishes.is_pcm and not MIN_RATE <= wishes.audio_fs <= MAX_RATE:
        raise _refusal(
            f"audio_fs is {wishes.audio_fs}, and PCM is taken from {MIN_RATE} to {MAX_RATE} Hz",
            "Resample it, or send it in a container such as wav with its wav_format.",
            "audio_fs",
        )
    for name in ("itn", "is_speaking", "is_finished"):
        _flag(frame, name)
    return wishes, frame.get("is_speaking") in (False, 0) or bool(frame.get("is_finished"))


def answer(wishes: Wishes, transcript: Transcript, notes: Sequence[str]) -> str:
    """The result of one recording. What would not fit into a client's largest message is left out, and that is said:
    the sentences with their times first, then the times of words."""
    words = [[round(word.start * 1000), round(word.end * 1000)] for word in transcript.words()]
    told: dict[str, Any] = {
        "mode": MODE,
        "wav_name": wishes.wav_name,
        "text": transcript.text,
        "timestamp": _dump(words),
        "stamp_sents": list(_sentences(transcript)),
        "is_final": True,
        "is_end": True,  # what newer clients of FunASR wait for
    }
    if notes:
        told["notes"] = list(notes)
    for name in ("stamp_sents", "timestamp"):
        text = _dump(told)
        if len(text.encode()) <= MAX_ANSWER_BYTES:
            return text
        told[name] = type(told[name])()
        left_out = f"{name} is left out: with it, this answer is larger than {MAX_ANSWER_BYTES} bytes"
        told["notes"] = [*told.get("notes", ()), left_out]
    return _dump(told)


def error_answer(wishes: Wishes, message: str, code: str | None) -> str:
    """Told before the connection is closed. FunASR has no such message; its newer clients show `error`."""
    return _dump(
        {
            "mode": MODE,
            "wav_name": wishes.wav_name,
            "text": "",
            "is_final": False,
            "is_end": True,
            "error": message,
            "code": code,
        }
    )


def _sentences(transcript: Transcript) -> Iterator[dict[str, Any]]:
    """FunASR's sentences end at every mark, a comma too; without a punctuation model they are utterances."""
    for words in _between_marks(transcript):
        times = [[round(word.start * 1000), round(word.end * 1000)] for word in words]
        yield {
            "text_seg": " ".join(word.text for word in words),
            "punc": words[-1].mark,
            "start": times[0][0],
            "end": times[-1][1],
            "ts_list": times,
        }


def _between_marks(transcript: Transcript) -> Iterator[Sequence[Word]]:
    for utterance in transcript.utterances:
        words: list[Word] = []
        for word in utterance.words:
            words.append(word)
            if word.mark:
                yield words
                words = []
        if words:
            yield words


def _check_mode(mode: Any) -> None:
    if mode == MODE:
        return
    if isinstance(mode, str) and mode.lower() in _STREAMING:
        raise _refusal(
            f"The mode {mode!r} is not served here: this service recognises whole recordings",
            'Send {"mode": "offline"} (--mode offline with FunASR\'s client).',
            "mode",
            "unsupported_mode",
        )
    raise _refusal(
        f"The mode {_short(mode)} is not known", 'Send {"mode": "offline"}.', "mode", "unsupported_mode"
    )


def _text(frame: dict[str, Any], name: str, before: str, longest: int) -> str:
    value = frame.get(name)
    if value is None:
        return before
    if not isinstance(value, str) or len(value) > longest:
        raise _refusal(f"{name} is {_short(value)}", f"Send a text of at most {longest} characters.", name)
    return _clean(value)


def _rate(frame: dict[str, Any], before: int) -> int:
    value = frame.get("audio_fs")
    if value is None:
        return before
    is_whole = (isinstance(value, int) and not isinstance(value, bool)) or (
        isinstance(value, float) and value.is_integer()
    )
    if not is_whole or not 1 <= value <= _MAX_ANY_RATE:
        raise _refusal(f"audio_fs is {_short(value)}", "Send the sample rate as a number, 16000.", "audio_fs")
    return int(value)


def _flag(frame: dict[str, Any], name: str) -> None:
    value = frame.get(name)
    if value not in (None, True, False):  # 0 and 1 are equal to these, and harmless
        raise _refusal(f"{name} is {_short(value)}", "Send true or false.", name)


def _hotwords(value: Any) -> str | None:
    """Words a line each: from the text of a JSON object {word: weight} as the protocol has it, from a JSON list, or
    as typed. The model has no weights."""
    if isinstance(value, str):
        try:
            found = json.loads(value)
        except (ValueError, RecursionError):
            found = value
        # A number or a quoted word is JSON too.
        value = found if isinstance(found, (dict, list)) else value
    if isinstance(value, str):
        return _clean(value).strip() or None
    given: list[Any] = list(value) if isinstance(value, (dict, list)) else [value]
    words = [word for word in given if isinstance(word, str)]
    if len(words) != len(given):
        raise _refusal(
            f"hotwords is {_short(value)}",
            'Send the text of a JSON object, {"阿里巴巴": 20}, or the words, one a line.',
            "hotwords",
        )
    return "\n".join(_clean(word) for word in words).strip() or None


def _clean(text: str) -> str:
    """Half of a surrogate pair can be said in JSON, but not be written as UTF-8."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _short(value: Any) -> str:
    try:
        text = json.dumps(value)  # ASCII
    except (ValueError, RecursionError):
        text = type(value).__name__
    return text if len(text) <= 60 else f"{text[:60]}..."


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _refusal(problem: str, fix: str, param: str | None = None, code: str = "invalid_value") -> RequestError:
    return RequestError(problem, fix=fix, param=param, code=code)

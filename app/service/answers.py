"""Utterances in the words of OpenAI's answers: bodies in pieces, and server-sent events.

Nothing here waits or knows HTTP; a body of ten hours never stands in memory as one string.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from app.asr.hotwords import HotwordSet
from app.asr.subtitles import ResultDetails, render
from app.asr.tokens import needs_space
from app.asr.transcript import Transcript, Utterance
from app.service.recognising import Run
from app.service.schemas import LANGUAGE_NAMES, TranscribedSegment, TranscriptionOptions

MEDIA_TYPES = {
    "json": "application/json",
    "verbose_json": "application/json",
    "text": "text/plain; charset=utf-8",
    "srt": "text/plain; charset=utf-8",
    "vtt": "text/plain; charset=utf-8",
}
EVENT_STREAM = "text/event-stream"
_CHUNK = 32 << 10
_DEFAULT_LANGUAGE = "zh"


def body_of(
    transcript: Transcript, options: TranscriptionOptions, run: Run, notes: Sequence[str]
) -> Iterator[str]:
    """The body of an answer, in pieces; `notes` are sentences about damage in the file."""
    if options.form == "json":
        return _json(transcript, run)
    if options.form == "verbose_json":
        return _verbose_json(transcript, options, run, notes)
    details = ResultDetails(duration=run.audio_seconds, model=options.model, precision="")
    return render(transcript, options.form, details)


async def in_chunks(pieces: Iterator[str]) -> AsyncIterator[bytes]:
    """Pieces in chunks worth sending; between two of them others get their turn."""
    held: list[str] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= _CHUNK:
            yield "".join(held).encode("utf-8")
            held, size = [], 0
            await asyncio.sleep(0)
    yield "".join(held).encode("utf-8")


class DeltaWriter:
    """Utterances as transcript.text.delta events, with the text so far for the last one."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._last_word = ""

    def delta(self, utterance: Utterance) -> bytes:
        """The event for one more utterance; empty for one without words."""
        if not utterance.words:
            return b""
        space = " " if needs_space(self._last_word, utterance.words[0].text) else ""
        self._last_word = utterance.words[-1].text
        self._texts.append(space + utterance.text)
        return event({"type": "transcript.text.delta", "delta": self._texts[-1]})

    def done(self, run: Run) -> bytes:
        """The last event."""
        return event({"type": "transcript.text.done", "text": "".join(self._texts), "usage": _usage(run)})


def event(data: Mapping[str, Any], name: str = "") -> bytes:
    """A server-sent event."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {_dump(data)}\n\n".encode()


def _json(transcript: Transcript, run: Run) -> Iterator[str]:
    yield from _text_member("{", transcript)
    yield f',"usage":{_dump(_usage(run))}}}'


def _verbose_json(
    transcript: Transcript, options: TranscriptionOptions, run: Run, notes: Sequence[str]
) -> Iterator[str]:
    code = options.language or _DEFAULT_LANGUAGE
    head = {
        "task": "transcribe",
        "language": LANGUAGE_NAMES.get(code, code),
        "duration": _seconds(run.audio_seconds),
    }
    yield from _text_member(_dump(head)[:-1] + ",", transcript)
    if "word" in options.granularities:
        words = (
            {"word": w.text, "start": _seconds(w.start), "end": _seconds(w.end)} for w in transcript.words()
        )
        yield from _list_member("words", words)
    if "segment" in options.granularities:
        yield from _list_member("segments", _segments(transcript))
    tail: dict[str, Any] = {"usage": _usage(run), "notes": list(notes)}
    if run.hotwords is not None:
        tail["hotwords"] = _report(run.hotwords)
    yield "," + _dump(tail)[1:]


def _segments(transcript: Transcript) -> Iterator[dict[str, Any]]:
    for number, utterance in enumerate(transcript.utterances):
        segment = TranscribedSegment(
            id=number,
            start=_seconds(utterance.start),
            end=_seconds(utterance.end),
            text=utterance.text,
        )
        yield segment.model_dump()


def _text_member(before: str, transcript: Transcript) -> Iterator[str]:
    yield before + '"text":"'
    for piece in transcript.text_pieces():
        yield _dump(piece)[1:-1]
    yield '"'


def _list_member(name: str, items: Iterator[dict[str, Any]]) -> Iterator[str]:
    yield f',"{name}":['
    separator = ""
    for item in items:
        yield separator + _dump(item)
        separator = ","
    yield "]"


def _report(hotwords: HotwordSet) -> dict[str, Any]:
    return {
        "used": list(hotwords.used),
        "unusable": [{"text": word.text, "reason": word.reason} for word in hotwords.unusable],
        "warnings": list(hotwords.warnings),
    }


def _usage(run: Run) -> dict[str, Any]:
    return {"type": "duration", "seconds": math.ceil(max(0.0, run.audio_seconds))}


def _seconds(value: float) -> float:
    return round(value, 3)


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))

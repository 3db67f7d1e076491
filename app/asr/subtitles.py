"""A transcript written out as text, JSON, SRT, WebVTT or TSV, in pieces.

Every renderer yields short strings, so that ten hours of words never stand in memory as one. Where subtitles begin and
end is decided in cues.py; where the pieces go (a file, a terminal, a socket) is the caller's part.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.asr.cues import Cue, cues
from app.asr.hotwords import UnusableWord
from app.asr.transcript import Transcript

SUFFIXES = {"text": ".txt", "json": ".json", "srt": ".srt", "vtt": ".vtt", "tsv": ".tsv"}
FORMATS = tuple(SUFFIXES)


@dataclass(frozen=True)
class ResultDetails:
    """What JSON tells beside the words. Times are seconds; None where it is not known."""

    duration: float
    model: str
    precision: str
    device: str = "cpu"
    device_peak_bytes: int | None = None
    rtf: float | None = None
    peak_rss_bytes: int | None = None
    hotwords_used: Sequence[str] = ()
    hotwords_unusable: Sequence[UnusableWord] = ()
    file: str | None = None


def render(transcript: Transcript, form: str, details: ResultDetails) -> Iterator[str]:
    """The transcript in one of FORMATS, as pieces of text that end with a line break.

    Raises:
        KeyError: `form` is none of FORMATS.
    """
    return _RENDERERS[form](transcript, details)


def _text(transcript: Transcript, details: ResultDetails) -> Iterator[str]:
    del details
    for utterance in transcript.utterances:
        yield utterance.text + "\n"


def _srt(transcript: Transcript, details: ResultDetails) -> Iterator[str]:
    del details
    # SubRip has no escapes: what a player could take for a tag is written full-width.
    safe = str.maketrans({"<": "＜", ">": "＞", "{": "｛", "}": "｝", "\n": " ", "\r": " "})
    for number, cue in enumerate(cues(transcript), start=1):
        yield f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{_shown(cue, safe)}\n\n"


def _vtt(transcript: Transcript, details: ResultDetails) -> Iterator[str]:
    del details
    safe = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "\n": " ", "\r": " "})
    yield "WEBVTT\n\n"
    for cue in cues(transcript):
        yield f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{_shown(cue, safe)}\n\n"


def _shown(cue: Cue, safe: Mapping[int, str]) -> str:
    return "\n".join(line.translate(safe) for line in cue.lines)


def _tsv(transcript: Transcript, details: ResultDetails) -> Iterator[str]:
    """Milliseconds and text, an utterance a line, as Whisper's tools write it."""
    del details
    yield "start\tend\ttext\n"
    safe = str.maketrans({"\t": " ", "\n": " ", "\r": " "})
    for utterance in transcript.utterances:
        start, end = round(utterance.start * 1000), round(utterance.end * 1000)
        yield f"{start}\t{end}\t{utterance.text.translate(safe)}\n"


def _json(transcript: Transcript, details: ResultDetails) -> Iterator[str]:
    yield "{\n"
    if details.file is not None:
        yield f'  "file": {_dump(details.file)},\n'
    yield '  "text": "'
    for piece in transcript.text_pieces():
        yield _dump(piece)[1:-1]
    yield f'",\n  "duration": {_dump(_seconds(details.duration))},\n'
    words = ({"text": w.text, "start": _seconds(w.start), "end": _seconds(w.end)} for w in transcript.words())
    segments = (
        {"start": _seconds(u.start), "end": _seconds(u.end), "text": u.text} for u in transcript.utterances
    )
    yield from _json_list("words", words)
    yield from _json_list("segments", segments)
    yield f'  "rtf": {_dump(_finite(details.rtf, 6))},\n'
    yield f'  "peak_rss_bytes": {_dump(details.peak_rss_bytes)},\n'
    yield f'  "model": {_dump(details.model)},\n'
    yield f'  "precision": {_dump(details.precision)},\n'
    yield f'  "device": {_dump(details.device)},\n'
    if details.device_peak_bytes is not None:
        yield f'  "device_memory": {_dump({"peak_bytes": details.device_peak_bytes})},\n'
    unusable = [{"text": word.text, "reason": word.reason} for word in details.hotwords_unusable]
    yield f'  "hotwords": {_dump({"used": list(details.hotwords_used), "unusable": unusable})}\n'
    yield "}\n"


def _json_list(name: str, items: Iterator[dict[str, Any]]) -> Iterator[str]:
    yield f'  "{name}": ['
    separator = "\n"
    for item in items:
        yield f"{separator}    {_dump(item)}"
        separator = ",\n"
    yield "],\n" if separator == "\n" else "\n  ],\n"


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _seconds(value: float) -> float | None:
    return _finite(value, 3)


def _finite(value: float | None, digits: int) -> float | None:
    """JSON knows no NaN and no infinity."""
    return round(value, digits) if value is not None and math.isfinite(value) else None


def _clock(seconds: float, decimal_mark: str) -> str:
    milliseconds = max(0, round(seconds * 1000))
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{milliseconds // 1000:02d}{decimal_mark}{milliseconds % 1000:03d}"


_RENDERERS: dict[str, Callable[[Transcript, ResultDetails], Iterator[str]]] = {
    "text": _text,
    "json": _json,
    "srt": _srt,
    "vtt": _vtt,
    "tsv": _tsv,
}

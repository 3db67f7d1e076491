"""What a job is made of, and how transcripts and segments are laid down as bytes.

The records that job_store.py keeps, job_runner.py fills and jobs.py shows. No SQL and no files here.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from app.asr.hotwords import UnusableWord
from app.asr.subtitles import ResultDetails
from app.asr.tokens import Word
from app.asr.transcript import Transcript, Utterance
from app.service.errors import RequestError
from app.service.recognising import StoredSegment

STATES = ("queued", "running", "done", "failed", "cancelled")
ENDED = frozenset({"done", "failed", "cancelled"})


class KeyReusedError(RequestError):
    """An idempotency key came again with another request."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            problem,
            fix="Use a new key for a new request.",
            status=409,
            param="Idempotency-Key",
            code="idempotency_key_reused",
        )


@dataclass(frozen=True)
class NewJob:
    """A job to be accepted.

    Attributes:
        upload: a complete file in the store's incoming directory.
        name: what the caller calls it; shown, never used as a path.
        owner: who may see it.
        client: whom it counts for when clients take turns.
        formats: the forms of the result that the caller wants links to.
        total_seconds: of audio, as the file itself says.
    """

    upload: Path
    name: str
    owner: str
    client: str
    hotwords: str | None = None
    formats: tuple[str, ...] = ()
    total_seconds: float | None = None


@dataclass(frozen=True)
class Job:
    """A job as it is now; times of day are seconds since 1970, `total_seconds` of audio is None while unknown."""

    id: str
    batch: str
    owner: str
    client: str
    name: str
    bytes: int
    hotwords: str | None
    formats: tuple[str, ...]
    state: str
    cancel: bool
    suspicion: int
    stake: int
    alone: bool
    created: float
    started: float | None
    ended: float | None
    done_seconds: float
    total_seconds: float | None
    worked_seconds: float
    code: str | None
    problem: str | None
    fix: str | None
    result_bytes: int

    @property
    def is_ended(self) -> bool:
        return self.state in ENDED


@dataclass(frozen=True)
class Result:
    """A transcript and what is told beside it, as bytes and JSON."""

    details: str
    transcript: bytes


@dataclass(frozen=True)
class Ending:
    """How a job ends: `done` with a result, `failed` with a problem and a fix, or `cancelled`."""

    state: str
    result: Result | None = None
    code: str | None = None
    problem: str | None = None
    fix: str | None = None
    worked_seconds: float = 0.0
    audio_seconds: float | None = None


@dataclass(frozen=True)
class JobCounts:
    """Jobs by state, and damaged databases that lie aside; None for what cannot be read now."""

    by_state: Mapping[str, int] | None
    set_aside: int | None


@dataclass(frozen=True)
class Totals:
    """How much there is: jobs by state, and bytes of uploads and results."""

    jobs: dict[str, int]
    bytes: int


SERVICE_DIED = Ending(
    "failed",
    code="service_died",
    problem="The service died again and again while it worked on this file",
    fix="Convert the file (for example to wav), or cut it into parts, then send it again.",
)


def job_of(row: sqlite3.Row) -> Job:
    """A job from its row."""
    values = {name: row[name] for name in row.keys() if name != "seq"}  # noqa: SIM118 - a Row is no mapping
    values["formats"] = tuple(part for part in values["formats"].split(",") if part)
    values["cancel"], values["alone"] = bool(values["cancel"]), bool(values["alone"])
    return Job(**values)


def segment_row(segment: StoredSegment) -> tuple[Any, ...]:
    """Place, start, overlap, duration, the tokens as bytes, and their words where ids alone mean nothing."""
    count = len(segment.ids)
    tokens = (
        np.asarray(segment.ids, "<i4").tobytes()
        + np.asarray(segment.starts, "<f4").tobytes()
        + np.asarray(segment.ends, "<f4").tobytes()
    )
    if len(tokens) != 12 * count:
        raise ValueError("a segment has as many starts and ends as tokens")
    words = json.dumps(segment.tokens, ensure_ascii=False) if segment.tokens is not None else None
    times = (segment.start_seconds, segment.overlap_seconds, segment.duration_seconds)
    return int(segment.index), *times, tokens, words


def segment_of(row: sqlite3.Row) -> StoredSegment:
    """The reverse of segment_row."""
    tokens: bytes = row["tokens"]
    third = len(tokens) // 3
    return StoredSegment(
        index=row["place"],
        start_seconds=row["start"],
        overlap_seconds=row["overlap"],
        duration_seconds=row["duration"],
        ids=np.frombuffer(tokens[:third], "<i4").astype(np.int32),
        starts=np.frombuffer(tokens[third : 2 * third], "<f4").astype(np.float32),
        ends=np.frombuffer(tokens[2 * third :], "<f4").astype(np.float32),
        tokens=tuple(json.loads(row["words"])) if row["words"] is not None else None,
    )


def result_of(transcript: Transcript, details: ResultDetails) -> Result:
    """A transcript packed for the store: one line of JSON an utterance, compressed as it is made."""
    packer = zlib.compressobj(6)
    pieces = []
    for utterance in transcript.utterances:
        words = [word if word.mark else word[:3] for word in utterance.words]
        line = json.dumps([utterance.start, utterance.end, words], ensure_ascii=False, separators=(",", ":"))
        pieces.append(packer.compress(line.encode() + b"\n"))
    pieces.append(packer.flush())
    return Result(json.dumps(asdict(details), ensure_ascii=False), b"".join(pieces))


def transcript_of(result: Result) -> tuple[Transcript, ResultDetails]:
    """The reverse of result_of."""
    transcript = Transcript()
    for line in _lines(result.transcript):
        start, end, words = json.loads(line)
        transcript.add(Utterance(start, end, tuple(Word(*word) for word in words)))
    values = json.loads(result.details)
    values["hotwords_unusable"] = tuple(UnusableWord(**word) for word in values["hotwords_unusable"])
    values["hotwords_used"] = tuple(values["hotwords_used"])
    return transcript, ResultDetails(**values)


def _lines(packed: bytes, step: int = 1 << 16) -> Iterator[bytes]:
    unpacker = zlib.decompressobj()
    rest = b""
    for begin in range(0, len(packed), step):
        *lines, rest = (rest + unpacker.decompress(packed[begin : begin + step])).split(b"\n")
        yield from lines
    *lines, rest = (rest + unpacker.flush()).split(b"\n")
    yield from lines


def links(job_id: str, formats: Sequence[str]) -> dict[str, str]:
    """Where each form of the result is, relative to the service."""
    return {form: f"/v1/jobs/{job_id}/result?format={form}" for form in formats}

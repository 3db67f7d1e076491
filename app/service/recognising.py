"""What the rest of the service asks of the recogniser: a request, its run, a segment to keep, the engine's state.

Only shapes and protocols, so that tests can put another recogniser in its place. The real one is recogniser.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from app.asr.engine import NO_PUNCTUATION
from app.asr.hotwords import HotwordSet
from app.asr.transcript import Utterance


@dataclass(frozen=True)
class StoredSegment:
    """A recognised segment, for jobs that go on after a restart. Times in seconds from the segment's start."""

    index: int
    start_seconds: float
    overlap_seconds: float
    duration_seconds: float
    ids: NDArray[np.int32]
    starts: NDArray[np.float32]
    ends: NDArray[np.float32]
    tokens: tuple[str, ...] | None = None  # for models whose ids mean nothing elsewhere


@dataclass(frozen=True)
class RecognitionRequest:
    """What is to be recognised.

    Args:
        source: a file on disk, in any container.
        hotwords: as typed; never taken for a path or URL. None or empty: none.
        client: whose turn it uses.
        request_id: unique among the requests that run.
        resume: segments that were recognised before; they are not run again.
        segment_seconds: longest stretch recognised at once; None takes the engine's.
    """

    source: Path
    hotwords: str | None = None
    client: str = "anonymous"
    request_id: str = ""
    resume: Sequence[StoredSegment] = ()
    segment_seconds: float | None = None


@dataclass(frozen=True)
class EngineStatus:
    """The engine as others see it. `asleep`: ended for want of work, and back with the next request. `resumes`: it
    starts again after it was ready."""

    state: Literal["starting", "ready", "asleep", "failed"]
    message: str
    model: str
    precision: str
    device: str
    reasons: tuple[str, ...]
    self_check: str
    has_hotwords: bool
    waiting_seconds: float
    rtf: float | None
    restarts: Mapping[str, int]
    statistics: Mapping[str, Any] = field(default_factory=dict)
    punctuation: str = NO_PUNCTUATION
    resumes: bool = False
    oldest_seconds: float = 0.0  # since when the oldest unfinished segment has been waiting or at work


class Run(Protocol):
    """One request on its way. The figures are complete when the last utterance has been given."""

    audio_seconds: float
    elapsed_seconds: float
    queue_seconds: float
    hotwords: HotwordSet | None

    @property
    def progress(self) -> tuple[float, float | None]: ...

    @property
    def notes(self) -> Sequence[str]: ...

    def __aiter__(self) -> AsyncIterator[Utterance]: ...


class Recognising(Protocol):
    """The part of recogniser.Recogniser that a request uses."""

    def status(self) -> EngineStatus: ...

    def recognise(
        self, request: RecognitionRequest, on_segment: Callable[[StoredSegment], None] | None = None
    ) -> AbstractAsyncContextManager[Run]: ...

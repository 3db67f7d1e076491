"""A recogniser without a model: it says what it is told to, and records what it was asked.

A script is a sequence of steps, taken in order while the utterances of a run are read:

    Utterance          is given out
    StoredSegment      is recognised: reported to `on_segment` and given out as an utterance, its token ids being
                       characters; one that the request brings along (`resume`) is given out from there instead
    float              waits so many seconds
    an exception       is raised
    a function         is called; what it returns is awaited if it can be
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from app.asr.hotwords import HotwordSet
from app.asr.tokens import Word
from app.asr.transcript import Utterance
from app.service.recognising import EngineStatus, RecognitionRequest, StoredSegment

Step = Utterance | StoredSegment | float | BaseException | Callable[[], Any]
READY = EngineStatus(
    state="ready",
    message="",
    model="fake",
    precision="fp32",
    device="cpu",
    reasons=(),
    self_check="passed",
    has_hotwords=True,
    waiting_seconds=0.0,
    rtf=0.1,
    restarts={},
)


def spoken(start: float, *texts: str) -> Utterance:
    """An utterance of words of 0.2 s each, 0.25 s apart."""
    words = tuple(Word(text, start + n * 0.25, start + n * 0.25 + 0.2) for n, text in enumerate(texts))
    return Utterance(start, start + len(texts) * 0.25, words)


def segment(index: int, text: str, seconds: float = 2.0) -> StoredSegment:
    """A segment of the words given, one a character, `seconds` long and right after the one before."""
    count = len(text)
    starts = np.arange(count, dtype=np.float32) * 0.125
    return StoredSegment(
        index=index,
        start_seconds=index * seconds,
        overlap_seconds=0.0,
        duration_seconds=seconds,
        ids=np.array([ord(char) for char in text], np.int32),
        starts=starts,
        ends=starts + np.float32(0.125),
    )


def words_of(part: StoredSegment) -> Utterance:
    """What the fake says for a segment."""
    times = zip(part.ids.tolist(), part.starts.tolist(), part.ends.tolist(), strict=True)
    begin = part.start_seconds
    words = tuple(Word(chr(char), begin + start, begin + end) for char, start, end in times)
    return Utterance(begin, begin + part.duration_seconds, words)


@dataclass
class FakeRun:
    """One request; see recogniser.Run."""

    request: RecognitionRequest
    script: Sequence[Step]
    on_segment: Callable[[StoredSegment], None] | None = None
    audio_seconds: float = 0.0
    elapsed_seconds: float = 0.0
    queue_seconds: float = 0.0
    hotwords: HotwordSet | None = None
    notes: Sequence[str] = ()
    progress: tuple[float, float | None] = (0.0, None)

    async def __aiter__(self) -> AsyncIterator[Utterance]:
        known = {part.index: part for part in self.request.resume}
        parts = [step for step in self.script if isinstance(step, StoredSegment)]
        total = sum(part.duration_seconds for part in parts) or None
        self.progress = (0.0, total)
        for step in self.script:
            if isinstance(step, BaseException):
                raise step
            if isinstance(step, float):
                await asyncio.sleep(step)
            elif isinstance(step, Utterance):
                self.audio_seconds = step.end
                self.progress = (step.end, total)
                yield step
            elif isinstance(step, StoredSegment):
                if step.index not in known and self.on_segment is not None:
                    self.on_segment(step)
                part = known.get(step.index, step)
                self.audio_seconds = part.start_seconds + part.duration_seconds
                self.progress = (self.audio_seconds, total)
                yield words_of(part)
            else:
                done = step()
                if inspect.isawaitable(done):
                    await done
        self.elapsed_seconds = self.audio_seconds / 10


@dataclass
class FakeRecogniser:
    """Takes its script from `script`, or from a function of the request.

    `requests` holds every request with what its file held at that time, `cancelled` how many runs were left early.
    """

    script: Sequence[Step] | Callable[[RecognitionRequest], Sequence[Step]] = (spoken(0.0, "今", "天"),)
    state: EngineStatus = READY
    hotwords: HotwordSet | None = None
    refuse: BaseException | None = None
    requests: list[tuple[RecognitionRequest, bytes]] = field(default_factory=list)
    cancelled: int = 0
    running: int = 0
    most_running: int = 0

    async def start(self) -> None:
        """Nothing to load."""

    async def close(self, grace_seconds: float = 0.0) -> None:
        """Nothing to end."""

    def status(self) -> EngineStatus:
        return self.state

    @asynccontextmanager
    async def recognise(
        self, request: RecognitionRequest, on_segment: Callable[[StoredSegment], None] | None = None
    ) -> AsyncIterator[FakeRun]:
        self.requests.append((request, _bytes(request.source)))
        if self.refuse is not None:
            raise self.refuse
        script = self.script(request) if callable(self.script) else self.script
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            yield FakeRun(request, script, on_segment, hotwords=self.hotwords)
        except BaseException:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    def becomes(self, **changes: Any) -> None:
        """Changes what the status tells."""
        self.state = replace(self.state, **changes)


def _bytes(path: Path) -> bytes:
    return path.read_bytes()

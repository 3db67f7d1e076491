"""What a front end may ask of the engine: its options and the two protocols it fills.

The engine itself is transcribe.py; this module is apart from it so that a command line can parse its
arguments, and its tests can run, without loading a model's libraries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

from app.asr.hotwords import HotwordSet
from app.asr.tokens import Vocabulary
from app.asr.transcript import Utterance

DEFAULT_MODEL = "demo"
# Without a wish: speech is cut at this length, and sentences are joined up to that one. Joining to 30 s takes a
# CPU about a sixth longer (docs/architecture.md): attention grows with the square of the length.
DEFAULT_SEGMENT_SECONDS, DEFAULT_JOIN_SECONDS = 30.0, 15.0
MIN_SEGMENT_SECONDS, MAX_SEGMENT_SECONDS = 5.0, 120.0


@dataclass(frozen=True)
class EngineOptions:
    """How the engine is set up.

    Attributes:
        model: a name from the catalogue, or the directory of a pack.
        precision: "auto", "fp32", "fp16" or "int8".
        threads: of computation; None takes the processors this process is granted.
        hotwords: load the part of the model that serves hot words.
        segment_seconds: longest stretch recognised at once, and the length up to which sentences are joined;
            None takes the two defaults above.
        batch_size: segments recognised at once; None decides from memory.
    """

    model: str = DEFAULT_MODEL
    precision: str = "auto"
    threads: int | None = None
    hotwords: bool = True
    segment_seconds: float | None = None
    batch_size: int | None = None


class Transcription(Protocol):
    """One file on its way: utterances come out in order as soon as they are settled.

    The three figures are complete when the last utterance has been given; `progress` may be read at any time.
    """

    @property
    def audio_seconds(self) -> float: ...

    @property
    def elapsed_seconds(self) -> float: ...

    @property
    def rtf(self) -> float: ...

    @property
    def notes(self) -> Sequence[str]:
        """Sentences about damage in the file that was worked around."""
        ...

    @property
    def progress(self) -> tuple[float, float | None]:
        """Seconds of audio done, and in all (None: the file does not say)."""
        ...

    def __iter__(self) -> Iterator[Utterance]: ...


class Engine(Protocol):
    """A loaded model."""

    @property
    def model(self) -> str: ...

    @property
    def precision(self) -> str: ...

    @property
    def vocabulary(self) -> Vocabulary: ...

    def transcribe(self, source: Path, hotwords: HotwordSet | None = None) -> Transcription:
        """Begin with a file; an AudioError may come here or while its utterances are taken."""
        ...

    def __enter__(self) -> Engine: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

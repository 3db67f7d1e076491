"""What a front end may ask of the engine: its options and the two protocols it fills.

The engine itself is transcribe.py; this module is apart from it so that a command line can parse its
arguments, and its tests can run, without loading a model's libraries.
"""

from __future__ import annotations

import re
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
# What may be given as a device.
DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")
# The one reason for a CPU that needs no telling.
NO_GPU = "there is no GPU on this host"
# What punctuates when no model does.
NO_PUNCTUATION = "none; sentences end at pauses"
MIN_SEGMENT_SECONDS, MAX_SEGMENT_SECONDS = 5.0, 120.0
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg])(?:i?b)?", re.IGNORECASE)
_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def bytes_of(text: str) -> int:
    """A size as people write it, in bytes: 900MiB, 1.5G. Raises ValueError for anything else."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not a size such as 900MiB or 1.5GiB")
    return int(float(found[1]) * _UNITS[found[2].lower()])


@dataclass(frozen=True)
class EngineOptions:
    """How the engine is set up.

    Attributes:
        model: a name from the catalogue, or the directory of a pack.
        precision: "auto", "fp32", "fp16" or "int8".
        device: "auto", "cpu", "cuda" or "cuda:N".
        vram_limit: bytes of GPU memory that weights and batches may take in all; None keeps batches small.
        threads: of computation; None takes the processors this process is granted.
        hotwords: load the part of the model that serves hot words.
        segment_seconds: longest stretch recognised at once, and the length up to which sentences are joined;
            None takes the two defaults above.
        batch_size: segments recognised at once; None decides from memory.
        punctuation: "off", "auto" (where the catalogue's pack is on this machine), or a pack by name or directory.
    """

    model: str = DEFAULT_MODEL
    precision: str = "auto"
    device: str = "auto"
    vram_limit: int | None = None
    threads: int | None = None
    hotwords: bool = True
    segment_seconds: float | None = None
    batch_size: int | None = None
    punctuation: str = "off"


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
    def device(self) -> str: ...

    @property
    def reasons(self) -> Sequence[str]:
        """Why this device and precision, and why not others."""
        ...

    @property
    def device_peak_bytes(self) -> int | None:
        """The most GPU memory held at once; None on a CPU."""
        ...

    @property
    def vocabulary(self) -> Vocabulary: ...

    @property
    def punctuation(self) -> str:
        """A clause that says whether and by what model text is punctuated."""
        ...

    def transcribe(self, source: Path, hotwords: HotwordSet | None = None) -> Transcription:
        """Begin with a file; an AudioError may come here or while its utterances are taken."""
        ...

    def __enter__(self) -> Engine: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

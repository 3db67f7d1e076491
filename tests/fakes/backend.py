"""A backend without a network, on a device whose memory is a number: it fails as a real one does when that is passed.

What it "recognises" is in the features themselves: a segment is a column of token ids, one each 10 frames, so that a
result can be checked whatever batches and pieces it went through.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from app.asr.backend import EncodedHotwords
from app.asr.errors import AsrError, DeviceMemoryError
from app.asr.joining import Recognition
from app.asr.memory import BatchShape, CostModel, DeviceMemory
from app.asr.timing import FRAME_SECONDS

FRAMES_A_TOKEN = 10


def speech(tokens: Sequence[int]) -> NDArray[np.float32]:
    """Features (frames, 1) of a segment in which these tokens sound; 0 in between."""
    features = np.zeros((len(tokens) * FRAMES_A_TOKEN, 1), np.float32)
    features[FRAMES_A_TOKEN // 2 :: FRAMES_A_TOKEN, 0] = tokens
    return features


@dataclass
class FakeMemory:
    """A device with so many bytes, of which others use some."""

    total: int
    others: int = 0
    weights: int = 0
    last_peak: int = 0

    def held(self) -> int:
        return self.weights

    def available(self) -> int:
        return self.total - self.others - self.weights

    def peak_of(self, work: Callable[[], None]) -> int:
        self.last_peak = 0
        work()
        return self.last_peak

    def peak(self) -> int:
        return self.weights + self.last_peak

    def identity(self) -> str:
        return "fake"


@dataclass
class FakeBackend:
    """`true_cost` is what batches really take; `failing` is raised instead of any result."""

    fake_memory: FakeMemory
    true_cost: CostModel
    failing: AsrError | None = None
    most_rows: int = 64
    pads: bool = True
    precision: str = "fp16"
    device: str = "fake:0"
    ran: list[BatchShape] = field(default_factory=list)
    newest: Sequence[NDArray[np.float32]] = ()
    released: int = 0

    @property
    def memory(self) -> DeviceMemory:
        return self.fake_memory

    def prepare(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        return samples[:, None]

    def encode_hotwords(self, words: Sequence[Sequence[int]]) -> EncodedHotwords:
        return EncodedHotwords(np.zeros((len(words) + 1, 1)), words, self)

    def recognise(
        self, batch: Sequence[NDArray[np.float32]], hotwords: EncodedHotwords | None
    ) -> list[Recognition]:
        owner: object = hotwords.owner if hotwords is not None else self
        assert owner is self, "these hot words belong to another backend"
        if self.failing is not None:
            raise self.failing
        shape = BatchShape(len(batch), max(map(len, batch)), len(hotwords) if hotwords else 0)
        needed = self.true_cost.bytes(shape)
        if needed > self.fake_memory.available():
            raise DeviceMemoryError(f"{needed} bytes do not fit", fix="none")
        self.fake_memory.last_peak = max(self.fake_memory.last_peak, needed)
        self.ran.append(shape)
        self.newest = batch
        return [_heard(segment) for segment in batch]

    def release(self) -> None:
        self.released += 1


def _heard(segment: NDArray[np.float32]) -> Recognition:
    places = np.flatnonzero(segment[:, 0])
    starts = (places * FRAME_SECONDS).astype(np.float32)
    return Recognition(segment[places, 0].astype(np.int32), starts, starts + np.float32(0.2))

"""What every backend can do, and nothing about how: the seam between the pipeline and the numbers.

Here: the protocol and its small value types. The backends are onnx_backend.py (int8 and fp32 on a CPU),
torch_backend.py (fp32 and fp16, CUDA) and funasr_backend.py (other models); which one a host gets is decided in
opening.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from app.asr.joining import Recognition
from app.asr.memory import DeviceMemory

# FunASR filters hot words by attention from this many memory rows on (words and the no-bias row together).
HOTWORD_FILTER = 50


class EncodedHotwords:
    """Hot words as the network sees them: (H, ...), the no-bias row last. Made once a request, used for all segments.

    Args:
        rows: an array, or a tensor on the owner's device.
        words: what they were made from, so that another backend can encode them again after a fall-back.
        owner: the backend that made them; no other can use the rows.
    """

    def __init__(self, rows: Any, words: Sequence[Sequence[int]], owner: Backend) -> None:
        self.rows, self.words, self.owner = rows, words, owner

    def __len__(self) -> int:
        return len(self.rows)


class Backend(Protocol):
    """Runs segments. One instance belongs to one thread; only `prepare` may be called from another one.

    Attributes:
        precision: what it computes in, for people: "int8", "fp32", "fp16", "fp16 storage".
        device: "cpu", "cuda:0" ...
        most_rows: segments that it gains from taking at once; 1 when it takes them one by one.
        pads: whether those are padded to the longest; else each is computed by itself, side by side.
        memory: readings of the device.
    """

    precision: str
    device: str
    most_rows: int
    pads: bool

    @property
    def memory(self) -> DeviceMemory: ...

    def prepare(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """16 kHz mono samples (n,) of one segment -> what `recognise` takes of it, its length being (frames, ...)."""
        ...

    def encode_hotwords(self, words: Sequence[Sequence[int]]) -> EncodedHotwords:
        """Token ids of each word, not empty -> what `recognise` takes. Loads that part of the model when first used."""
        ...

    def recognise(
        self, batch: Sequence[NDArray[np.float32]], hotwords: EncodedHotwords | None
    ) -> list[Recognition]:
        """Prepared segments -> for each, in order, its tokens and their times in seconds from its start.

        A segment's result does not depend on its batch mates.

        Raises:
            DeviceMemoryError: the batch does not fit; the backend can go on with a smaller one.
            DeviceLostError: the device is gone, and with it this backend.
            NumericError: results were not finite.
        """
        ...

    def release(self) -> None:
        """Gives memory that is kept for reuse back to the device."""
        ...


def filtered_rows(scores: NDArray[np.float32]) -> NDArray[np.intp]:
    """Which rows of the hot-word memory a segment keeps, given their attention scores (H,).

    As FunASR for a single segment (funasr/models/seaco_paraformer/model.py, `_seaco_decode_with_ASF`): the 50 best of
    all rows, and the last (no-bias) row again at the end, even when it is among them. FunASR takes the scores of a
    batch's first segment for all; ours are each segment's own.
    """
    best = np.argsort(-scores, kind="stable")[: min(HOTWORD_FILTER, len(scores) - 1)]
    return np.append(best, len(scores) - 1)

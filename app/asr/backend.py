"""What every backend can do, and nothing about how: the seam between the pipeline and the numbers.

Here: the protocol and its small value types. The backends are onnx_backend.py and later ones; which one a host gets
is decided by their `open` functions' caller, transcribe.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from app.asr.joining import Recognition

# FunASR filters hot words by attention from this many memory rows on (words and the no-bias row together).
HOTWORD_FILTER = 50


class EncodedHotwords:
    """Hot words as the network sees them: (H, D), the no-bias row last. Made once a request, used for all segments."""

    def __init__(self, rows: NDArray[np.float32]) -> None:
        self.rows = rows


class Backend(Protocol):
    """Runs segments. One instance belongs to one thread."""

    precision: str
    device: str

    def encode_hotwords(self, words: Sequence[Sequence[int]]) -> EncodedHotwords:
        """Token ids of each word, not empty -> what `recognise` takes. Loads that part of the model when first used."""
        ...

    def recognise(self, features: NDArray[np.float32], hotwords: EncodedHotwords | None) -> Recognition:
        """features (frames, width) of one segment -> its tokens and their times in seconds from its start."""
        ...


def filtered_rows(scores: NDArray[np.float32]) -> NDArray[np.intp]:
    """Which rows of the hot-word memory a segment keeps, given their attention scores (H,).

    As FunASR for a single segment (funasr/models/seaco_paraformer/model.py, `_seaco_decode_with_ASF`): the 50 best of
    all rows, and the last (no-bias) row again at the end, even when it is among them. FunASR takes the scores of a
    batch's first segment for all; ours are each segment's own.
    """
    best = np.argsort(-scores, kind="stable")[: min(HOTWORD_FILTER, len(scores) - 1)]
    return np.append(best, len(scores) - 1)

"""Segments and a budget in, batches out. Pure: nothing is read, nothing is run.

Segments are taken from the longest to the shortest, so that batch mates are of nearly one length: a batch is as
long as its longest segment, and everything beyond a shorter one's end is wasted. A batch is never predicted above
the budget.
FunASR's own batching adds the segment that breaks the budget before it stops (auto_model.py, `inference_with_vad`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.asr.memory import BatchShape, CostModel

# Share of a batch's frames that may be padding.
MOST_PADDING = 0.1


@dataclass(frozen=True)
class BatchLimits:
    """What a batch must keep to: predicted bytes, segments, and hot words that each segment is compared with.

    `side_by_side` None: batch mates are padded to the longest. Else each is computed at its own length, and it is the
    bytes that two and more may take; one alone may take the whole budget.
    """

    budget: int
    most_rows: int
    hotwords: int = 0
    side_by_side: int | None = None

    def bytes_of(self, rows: int) -> int:
        """What a batch of so many segments may take."""
        return self.budget if rows == 1 or self.side_by_side is None else min(self.budget, self.side_by_side)


def next_batch(lengths: Sequence[int], cost: CostModel, limits: BatchLimits) -> list[int]:
    """Indices of the segments to run next: the longest, and as many of its neighbours in length as fit.

    Args:
        lengths: frames of each waiting segment.

    Returns:
        At least one index when something waits and the longest segment fits alone; else none: it must be cut.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    chosen: list[int] = []
    used = 0
    for index in order[: limits.most_rows]:
        longest, rows = lengths[order[0]], len(chosen) + 1
        padding = 1.0 - (used + lengths[index]) / max(1, rows * longest)
        if cost.bytes(BatchShape(rows, longest, limits.hotwords)) > limits.bytes_of(rows):
            break
        if limits.side_by_side is None and padding > MOST_PADDING:
            break
        chosen.append(index)
        used += lengths[index]
    return chosen


def plan(lengths: Sequence[int], cost: CostModel, limits: BatchLimits) -> tuple[list[list[int]], list[int]]:
    """All batches under one budget, in the order they would run, and the segments that fit in none."""
    waiting = list(range(len(lengths)))
    batches: list[list[int]] = []
    too_long: list[int] = []
    while waiting:
        places = next_batch([lengths[index] for index in waiting], cost, limits)
        if places:
            batches.append([waiting[place] for place in places])
        else:
            places = [max(range(len(waiting)), key=lambda place: (lengths[waiting[place]], -place))]
            too_long.append(waiting[places[0]])
        gone = set(places)
        waiting = [index for place, index in enumerate(waiting) if place not in gone]
    return batches, too_long


def cut_frames(loudness: NDArray[np.float32], most: int, overlap: int) -> list[tuple[int, int]]:
    """Pieces of a segment that is too long, (begin, end) in frames, each at most `most` long.

    Joints lie at the quietest frame of the later half of what fits. Neighbours share up to `overlap` frames around a
    joint, at least half of that, and each ends at the quietest frame it can, so that few words are heard in part.

    Args:
        loudness: of each frame, (frames,), on any scale.
        most: at least four times `overlap`.
    """
    pieces: list[tuple[int, int]] = []
    begin, reach = 0, overlap // 2
    while len(loudness) - begin > most:
        joint = _quietest(loudness, begin + most // 2, begin + most - reach)
        end = _quietest(loudness, joint + reach // 2, joint + reach)
        pieces.append((begin, end))
        begin = _quietest(loudness, joint - reach, joint - reach // 2)
    return [*pieces, (begin, len(loudness))]


def _quietest(loudness: NDArray[np.float32], first: int, last: int) -> int:
    """The quietest frame from `first` to `last`."""
    return first + int(np.argmin(loudness[first : last + 1]))

"""Tokens of neighbouring segments to one line of tokens, each word once.

Lives here: what a backend returns for one segment, and the merge of two segments that overlap because
speech was cut without a pause. Where to cut is segments.py's work; tokens to words is tokens.py's.

How an overlap is merged: both sides heard the same sound, so most tokens are there twice. Tokens with equal
ids and nearly equal starts are paired in order (many pairs, small differences in time).
The sides are joined at the pair nearest the middle: the earlier side counts up to it, the later side after
it. So what either side made of half a word at its own edge is dropped. Where times are so wrong that nothing pairs,
two or more equal tokens in the same order, further apart, are taken for the same words. Without these the middle
of the overlap decides, which is the quietest moment around.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MATCH_SECONDS = 0.25  # starts of one token in two segments differ by less
WIDE_MATCH_SECONDS = 1.0  # when nothing is found so near, and then only for several tokens in a row
MAX_OVERLAP_SECONDS = 3.0  # tokens within it of a segment's end wait for the next segment

_MARGIN_SECONDS = 0.3  # beyond the overlap, as times are not exact


@dataclass(frozen=True, eq=False)
class Recognition:
    """Tokens of one segment: ids int32 (n,), starts and ends float32 (n,), seconds from its first sample."""

    ids: NDArray[np.int32]
    starts: NDArray[np.float32]
    ends: NDArray[np.float32]

    @staticmethod
    def nothing() -> Recognition:
        """A segment without words."""
        return Recognition(np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros(0, np.float32))


@dataclass(frozen=True, eq=False)
class TimedTokens:
    """Tokens in the file: ids int32 (n,), starts and ends float64 (n,), seconds from the file's beginning."""

    ids: NDArray[np.int32]
    starts: NDArray[np.float64]
    ends: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, start: int, end: int | None = None) -> TimedTokens:
        return TimedTokens(self.ids[start:end], self.starts[start:end], self.ends[start:end])

    def then(self, other: TimedTokens) -> TimedTokens:
        return TimedTokens(
            np.concatenate([self.ids, other.ids]),
            np.concatenate([self.starts, other.starts]),
            np.concatenate([self.ends, other.ends]),
        )


class Joiner:
    """Takes the recognitions of a file's segments in order and gives back tokens that are final."""

    def __init__(self) -> None:
        self._held = _no_tokens()
        self._last_start = 0.0

    def add(
        self, start_seconds: float, overlap_seconds: float, duration_seconds: float, recognition: Recognition
    ) -> TimedTokens:
        """Add the next segment.

        Args:
            start_seconds, duration_seconds: where the segment lies in the file.
            overlap_seconds: how much of its head the previous segment holds too, 0 after silence.
            recognition: its tokens, times from its own first sample.

        Returns:
            Tokens that no later segment can change, in order, not given out before.
        """
        tokens = TimedTokens(
            recognition.ids.astype(np.int32),
            recognition.starts.astype(np.float64) + start_seconds,
            recognition.ends.astype(np.float64) + start_seconds,
        )
        if overlap_seconds > 0:
            held, tokens = _merge(self._held, tokens, start_seconds, start_seconds + overlap_seconds)
        else:
            held = self._held
        line = held.then(tokens)
        waits_from = start_seconds + duration_seconds - MAX_OVERLAP_SECONDS - _MARGIN_SECONDS
        ready = int(np.searchsorted(np.maximum.accumulate(line.starts), waits_from)) if len(line) else 0
        # What was held before is settled now, however close to the end it lies.
        ready = max(ready, len(held))
        self._held = line.part(ready)
        return self._in_order(line.part(0, ready))

    def flush(self) -> TimedTokens:
        """The tokens that were still waiting for a next segment."""
        held, self._held = self._held, _no_tokens()
        return self._in_order(held)

    def _in_order(self, tokens: TimedTokens) -> TimedTokens:
        """Times as two segments measured them may cross by some ms at a joint: make starts ascend."""
        if not len(tokens):
            return tokens
        starts = np.maximum(np.maximum.accumulate(tokens.starts), self._last_start)
        self._last_start = float(starts[-1])
        return TimedTokens(tokens.ids, starts, np.maximum(tokens.ends, starts))


def _merge(
    earlier: TimedTokens, later: TimedTokens, begin: float, end: float
) -> tuple[TimedTokens, TimedTokens]:
    """What counts of either side of an overlap from `begin` to `end` (seconds in the file)."""
    first = int(np.searchsorted(earlier.starts, begin - _MARGIN_SECONDS))
    last = int(np.searchsorted(later.starts, end + _MARGIN_SECONDS))
    middle = (begin + end) / 2
    pairs = _pairs(earlier.part(first), later.part(0, last), MATCH_SECONDS)
    if not pairs:
        wide = _pairs(earlier.part(first), later.part(0, last), WIDE_MATCH_SECONDS)
        pairs = wide if len(wide) > 1 else []
    if pairs:
        distances = [abs(earlier.starts[first + i] + later.starts[j] - 2 * middle) for i, j in pairs]
        i, j = pairs[int(np.argmin(distances))]
        return earlier.part(0, first + i + 1), later.part(j + 1)
    # Nothing is common. A side that heard nothing in the overlap cannot take part in it.
    if not np.any(later.starts < end):
        return earlier, later
    if not np.any(earlier.ends > begin):
        return earlier, later
    keep = int(np.sum(_centres(earlier) < middle))
    drop = int(np.sum(_centres(later) < middle))
    return earlier.part(0, keep), later.part(drop)


def _centres(tokens: TimedTokens) -> NDArray[np.float64]:
    centres: NDArray[np.float64] = (
        tokens.starts + np.minimum(tokens.ends, tokens.starts + MATCH_SECONDS)
    ) / 2
    return centres


def _pairs(earlier: TimedTokens, later: TimedTokens, within: float) -> list[tuple[int, int]]:
    """The best pairing in order of equal ids that start within so many seconds: many pairs, near in time."""
    rows, columns = len(earlier), len(later)
    apart = np.abs(earlier.starts[:, np.newaxis] - later.starts[np.newaxis])
    equal = (earlier.ids[:, np.newaxis] == later.ids[np.newaxis]) & (apart <= within)
    # Distance counts, or a run of one repeated token would be paired shifted, where that gives a pair more.
    worth = np.where(equal, 1.0 - 0.9 * (apart / within) ** 2, 0.0)
    best = np.zeros((rows + 1, columns + 1))
    for i in range(rows - 1, -1, -1):
        for j in range(columns - 1, -1, -1):
            paired = worth[i, j] + best[i + 1, j + 1] if equal[i, j] else 0.0
            best[i, j] = max(paired, best[i + 1, j], best[i, j + 1])
    pairs, i, j = [], 0, 0
    while i < rows and j < columns:
        if equal[i, j] and best[i, j] == worth[i, j] + best[i + 1, j + 1]:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif best[i, j] == best[i + 1, j]:
            i += 1
        else:
            j += 1
    return pairs


def _no_tokens() -> TimedTokens:
    return TimedTokens(np.zeros(0, np.int32), np.zeros(0, np.float64), np.zeros(0, np.float64))

"""Speech spans to segments that the network takes in one piece, and back to one line of tokens.

Lives here: merging near spans, cutting at silence, the hard cut of speech that has no pause, and the ring
of samples that makes all of it streaming. Joining recognised tokens is joining.py's work; its names are
offered here too, as the two sides of a cut belong together.

Rules:
- a segment is one span, or several with at most MERGE_SECONDS of silence between them (kept, so that
  times inside a segment are times in the file), and never longer than `max_seconds`; joining stops at
  `join_seconds`, which is shorter by default, as attention grows with the square of the length;
- two spans that do not fit together are parted at the silence between them;
- a span that is too long alone is cut at its quietest moment in the last third or so of what fits. Both
  sides keep up to 1.5 s beyond that moment: they overlap by 1.5 to 3 s (less when segments are short), and
  the middle of the overlap is the quiet moment. With 2 s more words at a side's edge erred.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from app.asr.errors import InputError
from app.asr.joining import MAX_OVERLAP_SECONDS, Joiner, Recognition, TimedTokens
from app.asr.resampling import SAMPLE_RATE, Samples
from app.asr.vad import BATCH, SpeechDetector, SpeechSpan

__all__ = ["MAX_SECONDS", "MERGE_SECONDS", "Joiner", "Recognition", "Segment", "TimedTokens", "cut"]

MAX_SECONDS = (5.0, 120.0)  # what a segment's limit may be
MERGE_SECONDS = 1.0  # silence that may stay inside a segment

_HOP = SAMPLE_RATE // 100  # step in which the quietest moment is searched
_SMOOTH = 9  # hops that its energy is averaged over: shorter than a pause, longer than a plosive


@dataclass(frozen=True, eq=False)
class Segment:
    """One piece of work for the network.

    Args:
        index: 0, 1, 2 ... within the file.
        start: offset of its first sample in the file.
        samples: 16 kHz mono, shape (n,).
        overlap: samples at its head that the previous segment holds too; 0 when it was cut at silence.
    """

    index: int
    start: int
    samples: Samples
    overlap: int


def cut(
    blocks: Iterable[Samples],
    *,
    max_seconds: float = 30.0,
    join_seconds: float | None = None,
    detector: SpeechDetector | None = None,
) -> Iterator[Segment]:
    """Yield segments as soon as they are decided, holding little more than `max_seconds` of samples.

    The result does not depend on the size of the blocks.

    Args:
        max_seconds: speech without a pause is cut when it is longer.
        join_seconds: several spans become one segment up to this length; None takes `max_seconds`.

    Raises:
        InputError: `max_seconds` is out of range.
    """
    low, high = MAX_SECONDS
    if not low <= max_seconds <= high:
        raise InputError(
            f"segments of {max_seconds:g} s were asked for, the limits are {low:g} and {high:g}",
            fix=f"Choose a length from {low:g} to {high:g} seconds",
        )
    return _cut(blocks, _Cutter(max_seconds, join_seconds or max_seconds, detector or SpeechDetector()))


def _cut(blocks: Iterable[Samples], cutter: _Cutter) -> Iterator[Segment]:
    # Equal steps, whatever comes in: decisions are then made at the same moments.
    held = np.zeros(0, np.float32)
    for block in blocks:
        held = np.concatenate([held, block]) if len(held) else block
        place = 0
        while len(held) - place >= BATCH:
            yield from cutter.push(held[place : place + BATCH])
            place += BATCH
        held = held[place:].copy()
    yield from cutter.finish(held)


class _Cutter:
    """State between steps: a ring of samples, the segment being collected, and the detector."""

    def __init__(self, max_seconds: float, join_seconds: float, detector: SpeechDetector) -> None:
        self._limit = round(max_seconds * SAMPLE_RATE)
        self._join_limit = min(self._limit, round(join_seconds * SAMPLE_RATE))
        self._reach = round(
            min(MAX_OVERLAP_SECONDS / 2, max_seconds / 6) * SAMPLE_RATE
        )  # half of the longest overlap
        self._search = round(min(10.0, 0.35 * max_seconds) * SAMPLE_RATE)
        self._gap = round(MERGE_SECONDS * SAMPLE_RATE)
        self._detector = detector
        self._ring = _Ring()
        self._open: SpeechSpan | None = None  # ended speech that may still be joined by more
        self._given = 0  # end of the last segment
        self._resume: int | None = None  # where speech goes on after a hard cut
        self._index = 0

    def push(self, block: Samples) -> Iterator[Segment]:
        self._ring.append(block)
        for span in self._detector.push(block):
            yield from self._add(span)
        yield from self._look_at_running()
        self._forget()

    def finish(self, block: Samples) -> Iterator[Segment]:
        self._ring.append(block)
        for span in self._detector.push(block) + self._detector.flush():
            yield from self._add(span)
        yield from self._close()

    def _add(self, span: SpeechSpan) -> Iterator[Segment]:
        """Take a span that has ended."""
        start, self._resume = self._resume, None
        if start is not None:
            if span.end <= self._given:
                return  # all of it lies in the segment before the cut
            span = SpeechSpan(start, span.end)
        if not self._joins(span.start, span.end):
            yield from self._close()
            start = yield from self._cut_down(span.start, span.end)
            self._open = SpeechSpan(start, span.end)
        elif self._open is not None:
            self._open = SpeechSpan(self._open.start, span.end)

    def _look_at_running(self) -> Iterator[Segment]:
        """Decide what speech that goes on, or silence that lasts, already decides."""
        running = self._detector.running
        if running is None:
            if self._resume is not None:  # the detector dropped what was left after a cut as a click
                self._resume = None
            if self._open is not None and self._detector.settled - self._open.end > self._gap:
                yield from self._close()
            return
        if self._open is not None and not self._joins(running, self._ring.end):
            yield from self._close()
        if self._open is None:
            start = running if self._resume is None else self._resume
            after = yield from self._cut_down(start, self._ring.end)
            self._resume = after if after != running else None

    def _joins(self, start: int, end: int) -> bool:
        """Whether speech from `start` to `end` may become part of the open segment."""
        opened = self._open
        return (
            opened is not None and start - opened.end <= self._gap and end - opened.start <= self._join_limit
        )

    def _cut_down(self, start: int, end: int) -> Generator[Segment, None, int]:
        """Give out as much of the speech as is too long for one segment; returns where the rest starts."""
        while end - start > self._limit:
            middle, reach = self._quiet_moment(start)
            yield self._segment(start, middle + reach)
            start = middle - reach
        return start

    def _quiet_moment(self, start: int) -> tuple[int, int]:
        """Where to cut speech that begins at `start`: the moment, and how far both sides go beyond it."""
        latest = start + self._limit - self._reach
        first = latest - self._search
        energy = self._energy(first, latest)
        moment = first + int(np.argmin(energy)) * _HOP
        shortest = self._reach // 2
        left = self._energy(moment - self._reach, moment - shortest)[::-1]
        right = self._energy(moment + shortest, moment + self._reach)
        count = min(len(left), len(right))
        return moment, shortest + int(np.argmin(left[:count] + right[:count])) * _HOP

    def _energy(self, start: int, end: int) -> Samples:
        """Smoothed power around start, start + hop, ... before end."""
        margin = _SMOOTH // 2 * _HOP
        around = self._ring.take(start - margin, end + margin + _HOP)
        hops = len(around) // _HOP
        power = np.mean(around[: hops * _HOP].reshape(hops, _HOP).astype(np.float64) ** 2, axis=1)
        smooth = np.convolve(power, np.ones(_SMOOTH) / _SMOOTH, mode="valid").astype(np.float32)
        return smooth[: max(1, (end - start) // _HOP)]

    def _close(self) -> Iterator[Segment]:
        """Give out the open segment."""
        opened, self._open = self._open, None
        if opened is not None and opened.end > self._given:  # else a hard cut reached over all of it
            yield self._segment(opened.start, opened.end)

    def _segment(self, start: int, end: int) -> Segment:
        overlap = max(0, self._given - start)
        segment = Segment(self._index, start, self._ring.take(start, end), overlap)
        self._index, self._given = self._index + 1, end
        return segment

    def _forget(self) -> None:
        """Drop samples that no segment can need any more."""
        # After a hard cut the speech that still runs is needed from the cut on, not from its beginning.
        needed = self._detector.settled if self._resume is None else self._resume
        if self._open is not None:
            needed = min(needed, self._open.start)
        self._ring.drop_before(needed)


class _Ring:
    """The samples from some point of the stream to its newest, addressed by their place in the stream."""

    def __init__(self) -> None:
        self._store: Samples = np.zeros(8 * BATCH, np.float32)
        self._first = 0  # place in the stream of the first sample kept
        self._offset = 0  # its place in the store
        self._count = 0

    @property
    def end(self) -> int:
        return self._first + self._count

    def append(self, block: Samples) -> None:
        wanted = self._count + len(block)
        if self._offset + wanted > len(self._store):
            kept = self._store[self._offset : self._offset + self._count]
            # A quarter of room to spare: moving then happens once in many appends.
            roomy = wanted + wanted // 4
            store = self._store if roomy <= len(self._store) else np.zeros(roomy, np.float32)
            store[: self._count] = kept
            self._store, self._offset = store, 0
        place = self._offset + self._count
        self._store[place : place + len(block)] = block
        self._count = wanted

    def take(self, start: int, end: int) -> Samples:
        """A copy of the samples from start to end, with zeros where they are not there (any more)."""
        result = np.zeros(end - start, np.float32)
        low, high = max(start, self._first), min(end, self.end)
        if high > low:
            place = self._offset + low - self._first
            result[low - start : high - start] = self._store[place : place + high - low]
        return result

    def drop_before(self, place: int) -> None:
        dropped = min(max(0, place - self._first), self._count)
        self._first += dropped
        self._offset += dropped
        self._count -= dropped

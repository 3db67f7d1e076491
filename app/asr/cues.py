"""Subtitles of readable length: where one begins and ends, and where its line is broken.

A cue has two lines at most, of 20 Chinese characters each, and stays for 6 seconds at most. It ends at the end of a
sentence, at a silence of half a second, and where it would become too long: at punctuation, else at the longest
silence near the middle. How cues are written into SRT and WebVTT is subtitles.py's part.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from app.asr.tokens import SENTENCE_ENDS, Word, needs_space, written_line
from app.asr.transcript import Transcript

MAX_CUE_SECONDS = 6.0
MIN_CUE_SECONDS = 0.8  # shorter cues stay on screen this long, if the next one leaves room
PAUSE_SECONDS = 0.5  # a silence that always ends a cue
READ_PER_SECOND = (
    9  # Chinese characters that a reader takes in; long cues stay accordingly, where there is room
)
_GAP_STEP = 0.1  # smaller differences between two silences are noise of the time stamps
# A line of 20 Chinese characters is as long as one of 42 Latin letters.
_WIDE, _NARROW, _LINE_WIDTH = 21, 10, 420


class Cue(NamedTuple):
    """One subtitle; `start` and `end` are seconds."""

    start: float
    end: float
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """What is shown, with line breaks."""
        return "\n".join(self.lines)


def cues(transcript: Transcript) -> Iterator[Cue]:
    """The subtitles of a transcript, in order and never two at a time."""
    held: Sequence[Word] = ()
    for part in _parts(transcript):
        if held and _belong_together(held, part):
            held = (*held, *part)
            continue
        if held:
            yield _cue(held, part[0].start)
        held = part
    if held:
        yield _cue(held, math.inf)


def _parts(transcript: Transcript) -> Iterator[Sequence[Word]]:
    for utterance in transcript.utterances:
        first = 0
        words = utterance.words
        for index in range(1, len(words) + 1):
            if index < len(words) and words[index].start - words[index - 1].end < PAUSE_SECONDS:
                continue
            yield from _shorten(words[first:index])
            first = index


def _belong_together(left: Sequence[Word], right: Sequence[Word]) -> bool:
    """A cue that would only flash joins its neighbour, when both are one line and no pause parts them."""
    flashes = any(part[-1].end - part[0].start < MIN_CUE_SECONDS for part in (left, right))
    both = (*left, *right)
    near = right[0].start - left[-1].end < PAUSE_SECONDS and both[-1].end - both[0].start <= MAX_CUE_SECONDS
    return flashes and near and _width(both) <= _LINE_WIDTH


def _shorten(words: Sequence[Word]) -> Iterator[Sequence[Word]]:
    fits = words[-1].end - words[0].start <= MAX_CUE_SECONDS and len(_lines(words)) > 0
    if len(words) == 1 or fits:
        yield words
        return
    margin = len(words) // 4
    cut = _best_cut(words, range(max(1, margin), len(words) - margin))
    yield from _shorten(words[:cut])
    yield from _shorten(words[cut:])


def _lines(words: Sequence[Word]) -> tuple[Sequence[Word], ...]:
    """The words as one line or two; none when they do not fit."""
    whole = _width(words)
    if whole <= _LINE_WIDTH:
        return (words,)
    if whole > 2 * _LINE_WIDTH:
        return ()
    possible = [
        place
        for place in range(1, len(words))
        if max(_width(words[:place]), _width(words[place:])) <= _LINE_WIDTH
    ]
    if not possible:
        return ()
    margin = len(words) // 4
    balanced = [place for place in possible if margin <= place <= len(words) - margin]
    cut = _best_cut(words, balanced or possible)
    return words[:cut], words[cut:]


def _best_cut(words: Sequence[Word], places: Sequence[int]) -> int:
    """Of the places between two words: at the strongest punctuation, then the longest silence, then the middle."""

    def quality(place: int) -> tuple[int, int, float]:
        before, after = words[place - 1], words[place]
        return _strength(before, after), int((after.start - before.end) / _GAP_STEP), -abs(place - middle)

    middle = len(words) / 2
    return max(places, key=quality)


def _strength(before: Word, after: Word) -> int:
    if before.mark:
        return 2 if before.mark in SENTENCE_ENDS else 1
    joined = before.text.isascii() and after.text.isascii() and not needs_space(before.text, after.text)
    return -1 if joined else 0  # within a number


def _width(words: Sequence[Word]) -> int:
    return sum(
        _WIDE if unicodedata.east_asian_width(char) in "WF" else _NARROW for char in written_line(words)
    )


def _cue(words: Sequence[Word], next_start: float) -> Cue:
    """Kept on screen long enough to read, no longer than the limit, and clear of the next one."""
    start = words[0].start
    readable = max(MIN_CUE_SECONDS, _width(words) / (_WIDE * READ_PER_SECOND))
    end = min(max(words[-1].end, start + readable), start + MAX_CUE_SECONDS, next_start)
    lines = tuple(written_line(line) for line in _lines(words) or (words,))
    return Cue(start, max(end, start + 0.001), lines)

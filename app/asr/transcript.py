"""What was said and when, kept small: a ten-hour transcript costs about 3 MB.

Words are held as one run of UTF-8 bytes and arrays of numbers, not as objects; they become `Word` and
`Utterance` objects one at a time while somebody reads them. How a transcript is written out is
subtitles.py's part.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import NamedTuple

from app.asr.tokens import Word, needs_space, written_line

__all__ = ["Transcript", "Utterance", "Word"]


class Utterance(NamedTuple):
    """One stretch of speech; `start` and `end` are seconds, the words lie between them in order."""

    start: float
    end: float
    words: tuple[Word, ...]

    @property
    def text(self) -> str:
        """The written line of its words."""
        return written_line(self.words)


class Transcript:
    """Utterances in order, with times to the nearest millisecond."""

    def __init__(self) -> None:
        self._letters = bytearray()
        self._letter_ends = array("I")
        self._starts = array("I")
        self._ends = array("I")
        self._marks = array("B")  # for each word, which of the marks seen so far stands behind it
        self._known_marks = [""]
        self._utterance_starts = array("I")
        self._utterance_ends = array("I")
        self._utterance_words = array("I")  # how many words there are up to the end of each utterance

    def add(self, utterance: Utterance) -> None:
        """Append an utterance; one without words says nothing and is not kept."""
        if not utterance.words:
            return
        for word in utterance.words:
            self._letters += word.text.encode("utf-8")
            self._letter_ends.append(len(self._letters))
            self._starts.append(_milliseconds(word.start))
            self._ends.append(_milliseconds(word.end))
            self._marks.append(self._number_of(word.mark))
        self._utterance_starts.append(_milliseconds(utterance.start))
        self._utterance_ends.append(_milliseconds(utterance.end))
        self._utterance_words.append(len(self._starts))

    def __len__(self) -> int:
        """How many words there are."""
        return len(self._starts)

    def words(self) -> Iterator[Word]:
        """All words in order."""
        for index in range(len(self._starts)):
            yield self._word(index)

    @property
    def utterances(self) -> Iterator[Utterance]:
        """All utterances in order, made one at a time."""
        first = 0
        for index, last in enumerate(self._utterance_words):
            words = tuple(self._word(place) for place in range(first, last))
            yield Utterance(self._utterance_starts[index] / 1000, self._utterance_ends[index] / 1000, words)
            first = last

    @property
    def text(self) -> str:
        """Everything said, as one line."""
        return "".join(self.text_pieces())

    def text_pieces(self) -> Iterator[str]:
        """The text an utterance at a time, with the space where one is due between two of them."""
        previous = ""
        for utterance in self.utterances:
            yield (" " if needs_space(previous, utterance.words[0].text) else "") + utterance.text
            previous = utterance.words[-1].text

    def _word(self, index: int) -> Word:
        begin = self._letter_ends[index - 1] if index else 0
        text = self._letters[begin : self._letter_ends[index]].decode("utf-8")
        mark = self._known_marks[self._marks[index]]
        return Word(text, self._starts[index] / 1000, self._ends[index] / 1000, mark)

    def _number_of(self, mark: str) -> int:
        if mark not in self._known_marks:
            self._known_marks.append(mark)
        return self._known_marks.index(mark)


def _milliseconds(seconds: float) -> int:
    return max(0, round(seconds * 1000))

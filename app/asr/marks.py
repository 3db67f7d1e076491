"""Words in, the same words with punctuation behind them out, while the text goes on.

Here: how words become the tokens of FunASR's CT-Transformer, which stretch it looks at, and when a mark is settled. The
rules are those of FunASR's AutoModel, so that the same text gets the same marks (tests/asr/test_punctuation.py):

- the model sees what is left of the unfinished sentence and up to 20 tokens more;
- all up to the last full stop or question mark in it is settled, the rest waits for the next 20;
- beyond 200 tokens without one, the last comma becomes a full stop;
- the last sentence of a text ends with a full stop or a question mark.

Two things are ours. Words never change: FunASR's model writes a capital at the start of a sentence. And it holds on
to a text without any mark for ever; here the oldest words are let go at 400 tokens, so that memory stays bounded. The
network is punctuation.py's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from app.asr.engine import NO_PUNCTUATION
from app.asr.tokens import Vocabulary, Word, needs_space

STEP = 20
COMMA_LIMIT = 200
MOST_TOKENS = 400
_STOPS, _COMMA = ("。", "？"), "，"
# Behind a Latin word or a number the mark is its half-width form.
_HALF_WIDTH = {"，": ",", "。": ".", "？": "?", "、": ",", "！": "!"}


class Marker(Protocol):
    """A model that finds marks (punctuation.Punctuation)."""

    @property
    def marks(self) -> Sequence[str]: ...

    @property
    def sentence_end(self) -> int: ...

    def rows(self, tokens: Sequence[str]) -> NDArray[np.float32]: ...

    def best(self, rows: NDArray[np.float32]) -> list[int]: ...


class NamedMarker(Marker, Protocol):
    """A model that can say what it is."""

    @property
    def name(self) -> str: ...

    @property
    def precision(self) -> str: ...


def described(model: NamedMarker | None, vocabulary: Vocabulary | None) -> str:
    """A clause for people: whether and by what model text is punctuated."""
    if vocabulary is not None and vocabulary.whole_words:
        return "the model for speech writes its text itself"
    return NO_PUNCTUATION if model is None else f"{model.name}, {model.precision}"


@dataclass
class _Token:
    """A token of the model; `words` of ours end with it (none: it is the beginning of a word)."""

    text: str
    words: int

    @property
    def is_ascii(self) -> bool:
        return self.text.isascii()


def split(text: str) -> list[str]:
    """A text as FunASR's CT-Transformer takes it: other than ASCII one by one, ASCII from space to space."""
    tokens: list[str] = []
    for part in text.split():
        run = ""
        for char in part:
            if char.isascii():
                run += char
                continue
            if run:
                tokens.append(run)
            tokens.append(char)
            run = ""
        if run:
            tokens.append(run)
    return tokens


class MarkStream:
    """One text on its way through a model. Words come out in order, each once, with their times as they were."""

    def __init__(self, model: Marker) -> None:
        self._model = model
        self._waiting: deque[Word] = deque()  # words whose mark is not settled
        self._last: _Token | None = None  # may still grow: a number comes digit by digit
        self._bare = 0  # words before the next token that are none themselves
        self._before = ""  # the word before, as it is written
        self._fresh: list[_Token] = []
        self._sentence: list[_Token] = []
        self._rows = np.zeros((0, 0), np.float32)  # embeddings of the unfinished sentence

    def add(self, words: Iterable[Word]) -> Iterator[Word]:
        """Take words; give those whose mark no later word can change."""
        for word in words:
            self._waiting.append(word)
            for token in self._tokens_of(word):
                if self._last is not None:
                    self._fresh.append(self._last)
                self._last = token
                if len(self._fresh) == STEP:
                    yield from self._settle(self._look(), whole=False)

    def flush(self) -> Iterator[Word]:
        """The text ends here: give all that is left. Afterwards a new text may begin."""
        if self._last is not None:
            self._fresh.append(self._last)
            self._last = None
            yield from self._settle(self._look(), whole=True)
        while self._waiting:
            yield self._waiting.popleft()
        self._before, self._bare = "", 0

    def _tokens_of(self, word: Word) -> Iterator[_Token]:
        texts = split(word.text)
        joined = self._last is not None and self._last.is_ascii and not needs_space(self._before, word.text)
        self._before = word.text or self._before
        if not texts:
            self._bare += 1  # nothing but spaces: it goes with the next token
            return
        if joined and self._last is not None and texts[0].isascii():
            self._last.text += texts.pop(0)
            if not texts:
                self._last.words += 1
                return
        for place, text in enumerate(texts, start=1):
            bare, self._bare = self._bare, 0
            yield _Token(text, words=bare + (1 if place == len(texts) else 0))

    def _look(self) -> list[int]:
        """Which mark the model puts behind each token of the sentence so far."""
        rows = self._model.rows([token.text for token in self._fresh])
        self._rows = np.concatenate([self._rows, rows]) if len(self._sentence) else rows
        self._sentence += self._fresh
        self._fresh = []
        return self._model.best(self._rows)

    def _settle(self, found: list[int], *, whole: bool) -> Iterator[Word]:
        marks = [self._model.marks[number] for number in found]
        stop = self._model.marks[self._model.sentence_end]
        if whole:
            count = len(marks)
            if marks[-1] not in _STOPS:
                marks[-1] = stop
        else:
            count, comma = _last_stop(marks)
            if not count and len(marks) > COMMA_LIMIT and comma:
                count, marks[comma - 1] = comma, stop
            if not count and len(marks) >= MOST_TOKENS:
                count = len(marks) - STEP
        settled, self._sentence, self._rows = (
            self._sentence[:count],
            self._sentence[count:],
            self._rows[count:],
        )
        for token, mark in zip(settled, marks, strict=False):
            for left in range(token.words, 0, -1):
                word = self._waiting.popleft()
                shown = _HALF_WIDTH.get(mark, mark) if token.text[0].isascii() else mark
                yield word if left > 1 else word._replace(mark=shown)


def _last_stop(marks: Sequence[str]) -> tuple[int, int]:
    """How many tokens there are up to the last full stop or question mark, and up to the last comma behind it; 0 where
    there is none. The last token is not looked at, as its neighbour is not known yet, and the first two never are."""
    comma = 0
    for place in range(len(marks) - 2, 1, -1):
        if marks[place] in _STOPS:
            return place + 1, comma
        if not comma and marks[place] == _COMMA:
            comma = place + 1
    return 0, comma

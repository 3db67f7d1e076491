"""Settled tokens in, utterances out: words up to a pause, or up to so many that a reader should not wait longer.

With a punctuation model an utterance is a sentence instead; only a long silence ends one before its full stop.

Shared by the command line's pipeline (transcribe.py) and the service's, which runs segments elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from app.asr.joining import TimedTokens
from app.asr.marks import Marker, MarkStream
from app.asr.tokens import SENTENCE_ENDS, Vocabulary, Word, WordAssembler
from app.asr.transcript import Utterance

# A pause of this length between two words ends an utterance.
UTTERANCE_PAUSE_SECONDS = 0.5
UTTERANCE_WORDS = 80
# The same with punctuation: who is silent for so long has ended what was being said, whatever the grammar says.
SENTENCE_PAUSE_SECONDS = 2.0
SENTENCE_WORDS = 400


class UtteranceBuilder:
    """Takes tokens as they are settled and gives utterances as soon as they are complete.

    Args:
        punctuation: a model that puts marks behind the words; not asked for models that write them themselves.
    """

    def __init__(self, vocabulary: Vocabulary, punctuation: Marker | None = None) -> None:
        self._assembler = WordAssembler(vocabulary)
        self._words: list[Word] = []
        self._marks = (
            MarkStream(punctuation) if punctuation is not None and not vocabulary.whole_words else None
        )
        self._pause = UTTERANCE_PAUSE_SECONDS if self._marks is None else SENTENCE_PAUSE_SECONDS
        self._most = UTTERANCE_WORDS if self._marks is None else SENTENCE_WORDS

    def add(self, tokens: TimedTokens) -> Iterator[Utterance]:
        """Tokens that no later one can change, in order."""
        words = self._assembler.add(tokens.ids, tokens.starts, tokens.ends)
        yield from self._take(words if self._marks is None else self._marks.add(words))

    def flush(self) -> Iterator[Utterance]:
        """The end of the file: what was still open."""
        words = self._assembler.flush()
        if self._marks is None:
            self._words += words
        else:
            yield from self._take(self._marks.add(words))
            yield from self._take(self._marks.flush())
        if self._words:
            yield self._close()

    def _take(self, words: Iterable[Word]) -> Iterator[Utterance]:
        for word in words:
            if self._words and self._ends_before(word):
                yield self._close()
            self._words.append(word)
            if word.mark in SENTENCE_ENDS:
                yield self._close()

    def _ends_before(self, word: Word) -> bool:
        return word.start - self._words[-1].end >= self._pause or len(self._words) >= self._most

    def _close(self) -> Utterance:
        words, self._words = tuple(self._words), []
        return Utterance(words[0].start, words[-1].end, words)

"""Written text as tokens: for models that give a line of text where ours give token ids.

Lives here: a vocabulary that grows with what is said, how a line is cut into tokens, and their times. Which model said
it, and how, is funasr_backend.py's concern. Words are made of tokens in tokens.py as for every other model.

How a line is cut: a Chinese character or kana is a token; anything else is one from space to space ("AT&T", "3.5").
Punctuation stays with the word before it, an opening bracket or quotation mark with the word behind it; punctuation
with no word is dropped, and so are tags (`<|zh|>`, `<unk>`). Where this program would write no space but the text has
one, between two numbers, the two stay one token.
"""

from __future__ import annotations

import re
import unicodedata
from collections import OrderedDict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from app.asr.resampling import SAMPLE_RATE
from app.asr.tokens import Pieces, Vocabulary, is_cjk, needs_space

MOST_TOKENS = 100_000

_TAG = re.compile(r"<\|[^<>|]*\|>|</?(?:s|unk|blank|OOV)>", re.IGNORECASE)
_SUBWORD_SPACE = "\u2581"  # how sentencepiece writes a space
_LETTERS_A_CHARACTER = 3  # letters of a Latin word that take the time of one Chinese character
_HOP = SAMPLE_RATE // 50
_SPEECH_SHARE = 0.05  # of the loudest moment's amplitude: quieter than this, before and behind, is no speech


class TextVocabulary(Vocabulary):
    """Gives every token that is said an id. Nothing can be encoded with it, as its models cannot be biased.

    It holds so many tokens at most; then the one that was not said for the longest gives its id away. Ids are looked
    up again within seconds, long before that.
    """

    whole_words = True

    def __init__(self, most: int = MOST_TOKENS) -> None:
        super().__init__(("<blank>", "<s>", "</s>", "<unk>"))
        self._said: list[str] = list(self.tokens)
        self.tokens = self._said
        self._recent: OrderedDict[str, int] = OrderedDict()
        self._most = most

    def ids(self, tokens: Sequence[str]) -> NDArray[np.int32]:
        """The ids of tokens as `cut_line` gives them, (n,)."""
        return np.array([self._id(token) for token in tokens], dtype=np.int32)

    def pieces(self, phrase: str) -> Iterator[Pieces]:
        """Each word of a phrase, with no ids."""
        return (Pieces(word, None) for word in phrase.split())

    def _id(self, token: str) -> int:
        known = self._recent.get(token)
        if known is not None:
            self._recent.move_to_end(token)
            return known
        if len(self._recent) < self._most:
            number = len(self._said)
            self._said.append(token)
        else:
            number = self._recent.popitem(last=False)[1]
            self._said[number] = token
        self._recent[token] = number
        return number


def plain(line: str) -> str:
    """The line without tags, control characters and doubled spaces."""
    text = _TAG.sub(" ", line).replace(_SUBWORD_SPACE, " ")
    visible = ("" if unicodedata.category(char) == "Cc" and not char.isspace() else char for char in text)
    return " ".join("".join(visible).split())


def cut_line(line: str) -> list[str]:
    """A line of text, tags and all, as tokens; none is empty."""
    tokens: list[str] = []
    opening = ""  # marks that wait for the word they belong to
    spaced = False
    for part, spaced in _parts(plain(line)):
        if all(map(_is_mark, part)):
            if not spaced and tokens and not opening and not _opens(part[0]):
                tokens[-1] += part
            elif _opens(part[0]):
                opening += part
            elif tokens:
                tokens[-1] += part
            continue
        token, opening = opening + part, ""
        if tokens and spaced and _loses_space(tokens[-1], token):
            tokens[-1] += " " + token
        else:
            tokens.append(token)
    if opening and tokens:
        tokens[-1] += opening
    return tokens


def _parts(text: str) -> Iterator[tuple[str, bool]]:
    """Characters of scripts without spaces one by one, marks beside them, runs of the rest; was a space before it?"""
    run, spaced = "", False
    for char in text:
        if char == " ":
            yield from _split_run(run, spaced)
            run, spaced = "", True
        elif is_cjk(char):
            yield from _split_run(run, spaced)
            spaced = spaced and not run
            yield char, spaced
            run, spaced = "", False
        else:
            run += char
    yield from _split_run(run, spaced)


def _split_run(run: str, spaced: bool) -> Iterator[tuple[str, bool]]:
    """A run and the marks at its head: those that close go with the word before, whatever opens with this one."""
    head = 0
    while head < len(run) and _is_mark(run[head]) and not _opens(run[head]):
        head += 1
    if head:
        yield run[:head], spaced
    if run[head:]:
        yield run[head:], spaced and not head


def _is_mark(char: str) -> bool:
    """Punctuation, but not what is said or belongs into a word, such as % or #."""
    return unicodedata.category(char).startswith("P") and char not in "%#@&*'-/\\％＃＠＆"


def _opens(char: str) -> bool:
    return unicodedata.category(char) in {"Ps", "Pi"} or char in '"¿¡'


def _loses_space(left: str, right: str) -> bool:
    return not needs_space(left, right) and not is_cjk(left[-1]) and not is_cjk(right[0])


def spread(tokens: Sequence[str], samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """Times for tokens of a segment when nobody knows them: (n, 2) seconds from its start.

    They share the time between the first and the last sound in proportion to their length.
    """
    begin, end = sounding(samples)
    weights = np.array([_weight(token) for token in tokens], dtype=np.float64)
    edges = begin + (end - begin) * np.concatenate([[0.0], np.cumsum(weights)]) / max(
        1.0, float(weights.sum())
    )
    return np.stack([edges[:-1], edges[1:]], axis=1)


def _weight(token: str) -> float:
    characters = sum(map(is_cjk, token))
    letters = sum(char.isalnum() for char in token) - characters
    return max(1.0, characters + letters / _LETTERS_A_CHARACTER)


def sounding(samples: NDArray[np.float32]) -> tuple[float, float]:
    """Seconds at which the first and the last sound of a segment begin and end; all of it when it is silent."""
    hops = len(samples) // _HOP
    loudness = np.abs(samples[: hops * _HOP]).reshape(hops, _HOP).max(axis=1) if hops else np.zeros(0)
    heard = np.flatnonzero(loudness > _SPEECH_SHARE * loudness.max()) if hops else np.zeros(0, np.intp)
    if not len(heard):
        return 0.0, len(samples) / SAMPLE_RATE
    return float(heard[0]) * _HOP / SAMPLE_RATE, float(heard[-1] + 1) * _HOP / SAMPLE_RATE


def align(
    tokens: Sequence[str], words: Sequence[str], times: Sequence[Sequence[float]]
) -> NDArray[np.float64] | None:
    """Times of tokens from the times of a model's own words, whose borders may be others.

    Args:
        words, times: as the model gives them; a time has a start and an end, in any unit.

    Returns:
        (n, 2) in the same unit, or None when words and tokens are not the same characters.
    """
    if len(words) != len(times) or any(len(time) < 2 for time in times):
        return None
    spans: list[tuple[float, float]] = []
    spelled = ""
    for word, time in zip(map(_letters, words), times, strict=True):
        start, end = float(time[0]), float(time[1])
        step = (end - start) / max(1, len(word))
        spans += [(start + step * i, start + step * (i + 1)) for i in range(len(word))]
        spelled += word
    if spelled != "".join(map(_letters, tokens)):
        return None
    result, place = np.zeros((len(tokens), 2)), 0
    for index, token in enumerate(tokens):
        count = len(_letters(token))
        if count:
            result[index] = spans[place][0], spans[place + count - 1][1]
        elif index:
            result[index] = result[index - 1, 1]  # a sign that is not spoken
        place += count
    return result


def _letters(word: str) -> str:
    """What two spellings of a text have in common: letters and digits in lower case."""
    return "".join(char for char in plain(word).casefold() if char.isalnum())

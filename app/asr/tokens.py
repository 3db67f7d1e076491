"""Token ids to words and back: the vocabulary, `@@` word pieces, and where a written line has spaces.

A token is what the network emits: one Chinese character, a whole Latin word, or a piece of one. A piece
that the next token continues ends in `@@` ("hel@@", "lo"). A word is what a reader sees: it has text and
times. Hot-word lists are taken apart in hotwords.py, transcripts are kept in transcript.py; nothing here
knows about either.
"""

from __future__ import annotations

import json
import re
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import NamedTuple, Protocol

from app.asr.errors import PackError

PIECE_MARK = "@@"
# Marks behind a word that end a sentence.
SENTENCE_ENDS = frozenset("。？！.?!")
_SPECIAL_HEAD = ("<blank>", "<s>", "</s>")
_SPECIAL_TAIL = "<unk>"
_LOWER = (1 << 32) - 1
_SPECIAL = re.compile(r"<[^<>]+>")
_SCRIPT_WITHOUT_SPACES = (
    (0x3005, 0x3007),  # iteration mark, closing mark, ideographic zero
    (0x3040, 0x30FF),  # kana
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)


class Word(NamedTuple):
    """One word of a transcript; `start` and `end` are seconds, `mark` is the punctuation behind it."""

    text: str
    start: float
    end: float
    mark: str = ""


class Pieces(NamedTuple):
    """One part of a text to encode, and its token ids (None: the vocabulary cannot spell it)."""

    text: str
    ids: tuple[int, ...] | None


class PieceLookup(Protocol):
    """The two ways in which this module reads a segmentation dictionary."""

    def get(self, key: str, /) -> tuple[str, ...] | None: ...


def is_cjk(char: str) -> bool:
    """True for characters of scripts written without spaces (Han, kana)."""
    code = ord(char)
    return any(first <= code <= last for first, last in _SCRIPT_WITHOUT_SPACES)


def is_letter(char: str) -> bool:
    """True for letters of scripts written with spaces (here all called Latin), and for the apostrophe."""
    return char == "'" or (char.isalpha() and not is_cjk(char))


def needs_space(left: str, right: str) -> bool:
    """Whether a writer puts a space between two neighbouring words.

    Between two Latin words and between a Latin word and a number: yes. Between two digits (the network
    emits numbers digit by digit) and beside Chinese characters: no.
    """
    if not left or not right:
        return False
    before, after = left[-1], right[0]
    if is_cjk(before) or is_cjk(after):
        return False
    return is_letter(before) or is_letter(after)


def join_words(words: Iterable[str]) -> str:
    """The written line for words in order."""
    parts: list[str] = []
    for word in words:
        if parts and needs_space(parts[-1], word):
            parts.append(" ")
        parts.append(word)
    return "".join(parts)


def written_line(words: Iterable[Word]) -> str:
    """The same with the marks behind the words. A mark changes nothing about where spaces are."""
    parts: list[str] = []
    before = ""
    for word in words:
        if needs_space(before, word.text):
            parts.append(" ")
        parts.append(word.text + word.mark)
        before = word.text
    return "".join(parts)


def runs(text: str) -> Iterator[str]:
    """Cut a text without spaces into what is looked up: runs of letters, other characters one by one."""
    run = ""
    for char in text:
        if is_letter(char):
            run += char
            continue
        if run:
            yield run
            run = ""
        yield char
    if run:
        yield run


class Vocabulary:
    """FunASR's character vocabulary and, where the model has one, its dictionary of words and their pieces.

    Args:
        tokens: all tokens by id; the first three are `<blank>`, `<s>`, `</s>`, the last is `<unk>`.
        seg_dict: lower-case word -> its tokens; without it only words that are tokens themselves can be
            encoded.

    Raises:
        PackError: the list is not such a vocabulary.
    """

    blank_id = 0
    sos_id = 1
    eos_id = 2
    whole_words = False  # True where each token is a word as it is written

    def __init__(self, tokens: Sequence[str], seg_dict: PieceLookup | None = None) -> None:
        if len(tokens) < 4 or tuple(tokens[:3]) != _SPECIAL_HEAD or tokens[-1] != _SPECIAL_TAIL:
            raise PackError(
                f"The token list ({len(tokens)} entries) does not begin with {', '.join(_SPECIAL_HEAD)} "
                f"and end with {_SPECIAL_TAIL}",
                fix="Use the tokens.json that belongs to the model, and pack it again.",
            )
        self.tokens: Sequence[str] = tuple(tokens)
        self.unk_id = len(tokens) - 1
        self._ids = {token: index for index, token in enumerate(self.tokens)}
        self._special = frozenset(i for i, token in enumerate(self.tokens) if _SPECIAL.fullmatch(token))
        self._seg_dict = seg_dict

    @classmethod
    def load(cls, tokens_path: Path, seg_dict_path: Path | None = None) -> Vocabulary:
        """Read `tokens.json` and, where there is one, `seg_dict` (which stays on disk).

        Raises:
            PackError: a file is missing, damaged, or not what its name says.
        """
        try:
            tokens = json.loads(tokens_path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise PackError(
                f"The token list {tokens_path} cannot be read ({error})",
                fix="Fetch or make the model pack again.",
            ) from error
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            raise PackError(
                f"{tokens_path} is not a JSON list of strings",
                fix="Use the tokens.json that belongs to the model, and pack it again.",
            )
        return cls(tokens, None if seg_dict_path is None else SegmentDictionary(seg_dict_path))

    def __len__(self) -> int:
        return len(self.tokens)

    def is_special(self, token_id: int) -> bool:
        """True for ids that are never text, such as `<s>` or `<unk>`."""
        return token_id in self._special

    def encode_word(self, word: str) -> list[int] | None:
        """Token ids of a word, or of words with spaces between; None when a part cannot be spelled."""
        ids: list[int] = []
        for part in self.pieces(word):
            if part.ids is None:
                return None
            ids.extend(part.ids)
        return ids or None

    def unknown_parts(self, word: str) -> tuple[str, ...]:
        """The characters and Latin words in `word` that the vocabulary cannot spell, each once, in order."""
        return tuple(dict.fromkeys(part.text for part in self.pieces(word) if part.ids is None))

    def pieces(self, phrase: str) -> Iterator[Pieces]:
        """Each part of a phrase with its ids: words of the dictionary, else what `runs` gives."""
        for word in phrase.split():
            whole = self._lookup(word.lower())
            if whole is not None:
                yield Pieces(word, whole)
                continue
            for run in runs(word):
                yield Pieces(run, self._encode_run(run))

    def _encode_run(self, run: str) -> tuple[int, ...] | None:
        found = self._lookup(run.lower())
        if found is None and len(run) > 1 and run.isupper():
            # A capital abbreviation that the dictionary does not hold is said, and emitted, letter by letter.
            letters = [self._lookup(letter.lower()) for letter in run]
            known = [ids for ids in letters if ids is not None]
            if len(known) == len(letters):
                return tuple(token for ids in known for token in ids)
        return found

    def _lookup(self, word: str) -> tuple[int, ...] | None:
        tokens = None if self._seg_dict is None else self._seg_dict.get(word)
        if tokens is None:
            tokens = (word,)
        ids = [self._ids.get(token, self.unk_id) for token in tokens]
        return None if not ids or any(token in self._special for token in ids) else tuple(ids)

    def decode(self, ids: Iterable[int]) -> str:
        """The written line for token ids; special tokens are left out."""
        numbers = list(ids)
        zeros = [0.0] * len(numbers)
        return join_words(word.text for word in self.words(numbers, zeros, zeros))

    def words(self, ids: Iterable[int], starts: Iterable[float], ends: Iterable[float]) -> list[Word]:
        """Words of a complete run of tokens; the three arrays have one entry a token."""
        assembler = WordAssembler(self)
        return assembler.add(ids, starts, ends) + assembler.flush()


@dataclass
class _OpenWord:
    """Tokens seen so far of a word that the next token may continue."""

    text: str
    start: float
    end: float
    letters: int  # how many single letters it consists of; 0 when it is made of pieces

    def extend(self, text: str, end: float) -> None:
        self.text += text
        self.end = end

    def close(self) -> Word:
        return Word(self.text.upper() if self.letters > 1 else self.text, self.start, self.end)


class WordAssembler:
    """Tokens in, in any portions; words out as soon as no later token can change them.

    Pieces are joined, from the start of the first to the end of the last. Two or more single Latin letters
    in a row were spelled aloud and become one word in capitals ("a", "i" -> "AI"); a letter alone stays as
    it is. A piece whose continuation never comes is given out as it stands.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._open: _OpenWord | None = None

    def add(self, ids: Iterable[int], starts: Iterable[float], ends: Iterable[float]) -> list[Word]:
        """Take tokens with their times in seconds; give the words that are now complete."""
        words: list[Word] = []
        for token_id, start, end in zip(ids, starts, ends, strict=True):
            if self._vocabulary.is_special(int(token_id)):
                continue
            token = self._vocabulary.tokens[int(token_id)]
            if self._vocabulary.whole_words:
                words.append(Word(token, float(start), float(end)))
            else:
                self._take(token, float(start), float(end), words)
        return words

    def flush(self) -> list[Word]:
        """No more tokens follow: give the word that was still open, if any."""
        words: list[Word] = []
        self._close(words)
        return words

    def _close(self, words: list[Word]) -> None:
        if self._open is not None:
            words.append(self._open.close())
            self._open = None

    def _take(self, token: str, start: float, end: float, words: list[Word]) -> None:
        text = token.removesuffix(PIECE_MARK)
        continues = text != token
        if not text:
            return
        opened = self._open
        latin = all(is_letter(char) for char in text)
        if opened is not None and opened.letters == 0 and (latin or continues):
            opened.extend(text, end)
            if not continues:
                self._close(words)
            return
        letter = latin and len(text) == 1 and not continues
        if opened is not None and letter:
            opened.extend(text, end)
            opened.letters += 1
            return
        self._close(words)
        if letter or continues:
            self._open = _OpenWord(text, start, end, letters=1 if letter else 0)
        else:
            words.append(Word(text, start, end))


class SegmentDictionary(Mapping[str, tuple[str, ...]]):
    """FunASR's `seg_dict` file (word, white space, its tokens; one a line), read in place.

    The large model's file holds some 8 MB of lines; as a dict of tuples it would cost over ten times that.
    Here it stays in the page cache, and the first look-up builds an index of 8 bytes a line.

    Raises:
        PackError: on the first look-up, when the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @cached_property
    def _text(self) -> mmap | bytes:
        try:
            with self._path.open("rb") as file:
                if self._path.stat().st_size == 0:
                    return b""
                return mmap(file.fileno(), 0, access=ACCESS_READ)
        except OSError as error:
            raise PackError(
                f"The word dictionary {self._path} cannot be read ({error.strerror})",
                fix="Fetch or make the model pack again.",
            ) from error

    @cached_property
    def _index(self) -> array[int]:
        """For each line the hash of its key (upper 32 bits) and its offset (lower 32), sorted."""
        entries, position = array("Q"), 0
        while line := self._line(position):
            fields = line.split(None, 1)
            if len(fields) == 2:
                entries.append(_hash(fields[0]) << 32 | position)
            position += len(line)
        return array("Q", sorted(entries))

    def _line(self, position: int) -> bytes:
        text = self._text
        end = text.find(b"\n", position)
        return bytes(text[position:] if end < 0 else text[position : end + 1])

    def __getitem__(self, key: str) -> tuple[str, ...]:
        wanted = key.encode("utf-8", "surrogatepass")
        first = bisect_left(self._index, _hash(wanted) << 32)
        last = bisect_left(self._index, (_hash(wanted) + 1) << 32)
        for place in range(last - 1, first - 1, -1):  # the last line of a repeated key counts
            fields = self._line(self._index[place] & _LOWER).split()
            if fields[0] == wanted:
                return tuple(field.decode("utf-8", "replace") for field in fields[1:])
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        for offset in sorted(entry & _LOWER for entry in self._index):
            yield self._line(offset).split(None, 1)[0].decode("utf-8", "replace")

    def __len__(self) -> int:
        return len(self._index)


def _hash(key: bytes) -> int:
    return hash(key) & _LOWER

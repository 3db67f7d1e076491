"""Hot words: what a user typed, cleaned into token ids, and a report of what cannot be biased and why.

How text becomes words, in this order:

1. Normalised (NFKC): full-width letters, digits and marks become the plain ones. Case does not matter.
2. A line break, comma, semicolon or enumeration comma always separates: `, ， 、 ; ；`.
3. White space separates too, unless a Latin word stands before it and a Latin word or a number after it:
   "阿里巴巴 通义千问" is two hot words, "New York" and "Windows 10" are one each. Latin names next to each
   other therefore need a comma or a line each: "Alice, Bob".
4. A number after a Chinese word on the same line ("阿里巴巴 20") is a weight in the format of FunASR's
   runtime. SeACo has no weights: it is reported and ignored, and does not become a hot word. A number
   anywhere else is one.
5. Doubles are dropped; so are book-title marks, quotation marks and the middle dot of foreign names, which
   nobody pronounces. "off" (and an empty text) means no hot words.

A list is taken an item at a time, as if each item were a line. `@path` reads a file, but only where the
caller allows it; everything else is text: never a path, never an address.
"""

from __future__ import annotations

import re
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from app.asr.errors import HotwordError
from app.asr.tokens import Vocabulary, is_cjk, is_letter

OFF = "off"
_SEPARATORS = re.compile(r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029,;、]")
_WEIGHT = re.compile(r"[+-]?\d+(\.\d+)?")
_SILENT_MARKS = re.compile('["“”‘«»‹›「」『』〈〉《》·•‧・]')
_SHOWN = 5  # how many examples a warning names
_SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class HotwordLimits:
    """What a list may cost: more words lower the recall of each, longer ones slow the encoding of all."""

    max_words: int = 1000
    warn_words: int = 400
    max_tokens: int = 32
    max_bytes: int = 256 * 1024


@dataclass(frozen=True)
class UnusableWord:
    """A word that was asked for and is not biased, and the reason as a clause ("characters ...: 𠮷")."""

    text: str
    reason: str


@dataclass(frozen=True)
class HotwordSet:
    """Hot words ready for the network.

    Attributes:
        ids: token ids of each word, in the order given, without markers.
        used: the same words as text.
        unusable: words that are not biased, each with the reason.
        warnings: sentences about the list as a whole (its length, ignored weights).
    """

    ids: tuple[tuple[int, ...], ...]
    used: tuple[str, ...]
    unusable: tuple[UnusableWord, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass
class _Draft:
    """A hot-word set being filled."""

    vocabulary: Vocabulary
    limits: HotwordLimits
    used: dict[tuple[int, ...], str] = field(default_factory=dict)
    unusable: dict[str, str] = field(default_factory=dict)
    weights: list[str] = field(default_factory=list)

    def add(self, word: str) -> None:
        ids = tuple(self.vocabulary.encode_word(word) or ())
        if not ids:
            self.unusable[_short(word)] = self._reason(word)
        elif ids in self.used:
            return
        elif len(ids) > self.limits.max_tokens:
            self.unusable[_short(word)] = (
                f"too long: {len(ids)} characters or word pieces, at most {self.limits.max_tokens}"
            )
        elif len(self.used) >= self.limits.max_words:
            self.unusable[_short(word)] = f"beyond the limit of {self.limits.max_words} hot words"
        else:
            self.used[ids] = word

    def _reason(self, word: str) -> str:
        missing = self.vocabulary.unknown_parts(word)
        shown = " ".join(_short(part) for part in missing[:_SHOWN])
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        return f"not in the model's vocabulary: {shown}{more}"

    def finish(self) -> HotwordSet:
        warnings = []
        if len(self.used) >= self.limits.warn_words:
            warnings.append(
                f"{len(self.used)} hot words: from about {self.limits.warn_words} on, each is recognised "
                "less often; keep the list to what the recording needs"
            )
        if self.weights:
            more = ", ..." if len(self.weights) > _SHOWN else ""
            warnings.append(
                f"{len(self.weights)} hot-word weights were ignored, this model has none: "
                f"{', '.join(self.weights[:_SHOWN])}{more}"
            )
        return HotwordSet(
            ids=tuple(self.used),
            used=tuple(self.used.values()),
            unusable=tuple(UnusableWord(text, reason) for text, reason in self.unusable.items()),
            warnings=tuple(warnings),
        )


def is_off(source: str | Sequence[str] | None) -> bool:
    """True when no hot words are wanted, so that the model's part for them need not be loaded."""
    if source is None:
        return True
    items = [source] if isinstance(source, str) else list(source)
    texts = [item.strip() for item in items if item.strip()]
    return not texts or (len(texts) == 1 and texts[0].casefold() == OFF)


def parse_hotwords(
    source: str | Sequence[str] | None,
    vocabulary: Vocabulary,
    *,
    limits: HotwordLimits | None = None,
    files: bool = False,
) -> HotwordSet | None:
    """Turn what a user gave into a hot-word set; None when it says "off" or nothing.

    Args:
        source: a text, or a list of texts, as described at the top of this module.
        vocabulary: that of the model the words are for.
        limits: caps; the defaults are those published figures support.
        files: read `@path` from disk. Leave it off for text that comes from another machine.

    Raises:
        HotwordError: the list is too large, or the file cannot be read.
    """
    if source is None or is_off(source):
        return None
    limits = limits or HotwordLimits()
    draft = _Draft(vocabulary, limits)
    size = 0
    for item in [source] if isinstance(source, str) else source:
        is_file = files and item.strip().startswith("@")
        text = _read(Path(item.strip()[1:].strip()).expanduser(), limits) if is_file else item
        size += len(text.encode("utf-8", "replace"))
        if size > limits.max_bytes:
            raise _too_large("The hot-word list", size, limits)
        for word, weight in _split(text):
            if weight:
                draft.weights.append(f"{word} {weight}")
            else:
                draft.add(word)
    return draft.finish()


def _read(path: Path, limits: HotwordLimits) -> str:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise HotwordError(
                f"The hot-word list {path} is not a file",
                fix="Give @ and the path of a text file with one hot word a line.",
            )
        with path.open("rb") as file:
            data = file.read(limits.max_bytes + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise HotwordError(
            f"The hot-word list {path} cannot be read ({reason})",
            fix="Check the path after @; leave the @ out to give the words themselves.",
        ) from error
    if len(data) > limits.max_bytes:
        raise _too_large(f"The hot-word list {path}", max(status.st_size, len(data)), limits)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise HotwordError(
            f"The hot-word list {path} is not UTF-8 text (line {line})",
            fix="Save it as UTF-8, for example with: iconv -f GB18030 -t UTF-8.",
        ) from error


def _too_large(what: str, size: int, limits: HotwordLimits) -> HotwordError:
    return HotwordError(
        f"{what} holds {size} bytes, more than the {limits.max_bytes} allowed",
        fix=f"Keep the words this recording needs, at most {limits.max_words}.",
    )


def _split(text: str) -> Iterator[tuple[str, str]]:
    """(word, "") for each hot word in a text, (word, weight) for each weight after a Chinese word."""
    text = unicodedata.normalize("NFKC", text.replace("’", "'"))
    for chunk in _SEPARATORS.split(text):
        phrase: list[str] = []
        previous = ""
        for word in chunk.split():
            clean = _clean(word)
            weight = _WEIGHT.fullmatch(word)
            if weight and previous and _is_chinese(previous):
                if phrase:
                    yield " ".join(phrase), ""
                    phrase = []
                yield previous, word
                previous = ""
                continue
            if not clean:
                continue
            if phrase and not (_is_latin(phrase[-1]) and (_is_latin(clean) or clean.isdigit())):
                yield " ".join(phrase), ""
                phrase = []
            phrase.append(clean)
            previous = clean
        if phrase:
            yield " ".join(phrase), ""


def _clean(word: str) -> str:
    """The word without marks nobody pronounces and without control characters; a hyphen parts Latin words."""
    word = _SILENT_MARKS.sub("", word)
    word = "".join(char for char in word if unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co"))
    word = re.sub(r"(?<=[^\W_])-(?=[^\W_])", " ", word).strip("'")
    return word.strip()


def _is_latin(word: str) -> bool:
    return any(is_letter(char) for char in word) and not any(is_cjk(char) for char in word)


def _is_chinese(word: str) -> bool:
    return any(is_cjk(char) for char in word)


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."

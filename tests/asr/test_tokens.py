"""The vocabulary: encoding, decoding, word pieces, spelled letters, spaces."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest

from app.asr.errors import PackError
from app.asr.tokens import SegmentDictionary, Vocabulary, Word, WordAssembler, join_words

TOKENS = [
    *("<blank>", "<s>", "</s>"),
    *"阿里巴歌你好",
    *"0123456789",
    *("a", "i", "k", "b", "hello", "hel@@", "lo", "new", "york", "i'm", "<nobias>", "<unk>"),
]
SEG_DICT = {
    "hello": ("hel@@", "lo"),
    "new": ("new",),
    "york": ("york",),
    "broken": ("hel@@", "gone"),
    "好": ("好",),
}


@pytest.fixture
def vocabulary() -> Vocabulary:
    return Vocabulary(TOKENS, SEG_DICT)


def ids_of(*tokens: str) -> list[int]:
    return [TOKENS.index(token) for token in tokens]


@pytest.mark.parametrize(
    ("word", "tokens"),
    [
        ("阿里", ["阿", "里"]),
        ("hello", ["hel@@", "lo"]),
        ("HELLO", ["hel@@", "lo"]),
        ("New York", ["new", "york"]),
        ("阿hello里", ["阿", "hel@@", "lo", "里"]),
        ("k歌", ["k", "歌"]),
        ("K歌", ["k", "歌"]),
        ("95", ["9", "5"]),
        ("i'm", ["i'm"]),
        ("KAI", ["k", "a", "i"]),
    ],
)
def test_encodes(vocabulary: Vocabulary, word: str, tokens: list[str]) -> None:
    assert vocabulary.encode_word(word) == ids_of(*tokens)


@pytest.mark.parametrize(
    ("word", "unknown"),
    [
        ("阿𠮷里龘𠮷", ("𠮷", "龘")),
        ("kubernetes好", ("kubernetes",)),
        ("kai", ("kai",)),  # lower case is a word, not an abbreviation to spell
        ("broken", ("broken",)),  # its dictionary entry names a token that does not exist
        ("<s>", ("<", "s", ">")),
        ("<unk>", ("<", "unk", ">")),
        ("里!", ("!",)),
    ],
)
def test_names_what_it_cannot_spell(vocabulary: Vocabulary, word: str, unknown: tuple[str, ...]) -> None:
    assert vocabulary.encode_word(word) is None
    assert vocabulary.unknown_parts(word) == unknown


def test_empty_word_is_no_word(vocabulary: Vocabulary) -> None:
    assert vocabulary.encode_word("  ") is None


def test_works_without_a_dictionary() -> None:
    assert Vocabulary(TOKENS).encode_word("hello里") == ids_of("hello", "里")


@pytest.mark.parametrize("tokens", [[], ["<blank>", "<s>", "</s>"], ["a", "b", "c", "<unk>"], [*TOKENS, "x"]])
def test_refuses_a_foreign_token_list(tokens: list[str]) -> None:
    with pytest.raises(PackError, match="token list"):
        Vocabulary(tokens)


def test_decode_leaves_special_tokens_out(vocabulary: Vocabulary) -> None:
    ids = ids_of("<s>", "你", "好", "hel@@", "<unk>", "lo", "new", "<nobias>", "1", "5", "里", "</s>")
    assert vocabulary.decode(ids) == "你好hello new 15里"


def test_words_span_their_pieces(vocabulary: Vocabulary) -> None:
    ids = ids_of("你", "hel@@", "lo", "new", "a", "i", "好", "k")
    starts = [0.0, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0]
    ends = [0.25, 0.7, 1.0, 1.25, 1.75, 2.25, 2.75, 3.25]
    assert vocabulary.words(ids, starts, ends) == [
        Word("你", 0.0, 0.25),
        Word("hello", 0.5, 1.0),
        Word("new", 1.0, 1.25),
        Word("AI", 1.5, 2.25),
        Word("好", 2.5, 2.75),
        Word("k", 3.0, 3.25),
    ]


def test_a_piece_without_continuation_is_a_word(vocabulary: Vocabulary) -> None:
    assert [w.text for w in vocabulary.words(ids_of("hel@@", "你", "hel@@"), range(3), range(3))] == [
        "hel",
        "你",
        "hel",
    ]


@pytest.mark.parametrize("portion", [1, 2, 3])
def test_portions_do_not_change_words(vocabulary: Vocabulary, portion: int) -> None:
    ids = ids_of("hel@@", "lo", "a", "i", "b", "你", "k", "hel@@", "lo", "i", "i'm")
    times = [float(i) for i in range(len(ids))]
    assembler = WordAssembler(vocabulary)
    words = []
    for at in range(0, len(ids), portion):
        some = slice(at, at + portion)
        words += assembler.add(ids[some], times[some], times[some])
    words += assembler.flush()
    assert words == vocabulary.words(ids, times, times)
    assert [word.text for word in words] == ["hello", "AIB", "你", "k", "hello", "i", "i'm"]
    assert assembler.flush() == []


def test_join_words() -> None:
    words = ["我", "用", "iphone", "1", "5", "看", "new", "york", "的", "AI"]
    assert join_words(words) == "我用iphone 15看new york的AI"
    assert join_words([]) == ""


def test_load_reads_files(tmp_path: Path) -> None:
    (tmp_path / "tokens.json").write_text(json.dumps(TOKENS, ensure_ascii=False), encoding="utf-8")
    (tmp_path / "seg_dict").write_text("hello\thel@@ lo\n好 好\n", encoding="utf-8")
    vocabulary = Vocabulary.load(tmp_path / "tokens.json", tmp_path / "seg_dict")
    assert len(vocabulary) == len(TOKENS)
    assert vocabulary.encode_word("Hello好") == ids_of("hel@@", "lo", "好")


@pytest.mark.parametrize("content", ["{}", "[1, 2]", "[", ""])
def test_load_refuses_damage(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokens.json").write_text(content)
    with pytest.raises(PackError, match=r"tokens\.json"):
        Vocabulary.load(tmp_path / "tokens.json")


def test_segment_dictionary_reads_like_a_dict(tmp_path: Path) -> None:
    path = tmp_path / "seg_dict"
    path.write_text("hello hel@@ lo\nbad\n\n好 好\nhello hello", encoding="utf-8")  # no line break at the end
    found = SegmentDictionary(path)
    assert found["hello"] == ("hello",)  # as in a dict, the last one counts
    assert found["好"] == ("好",)
    assert found.get("bad") is None and found.get("nothing") is None and found.get("") is None
    assert set(found) == {"hello", "好"}


def test_segment_dictionary_may_be_empty_but_not_missing(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert SegmentDictionary(tmp_path / "empty").get("a") is None
    with pytest.raises(PackError, match="gone"):
        SegmentDictionary(tmp_path / "gone").get("a")


def test_segment_dictionary_stays_small(tmp_path: Path) -> None:
    path = tmp_path / "seg_dict"
    path.write_text("".join(f"word{n} wo@@ rd@@ {n}\n" for n in range(20_000)))
    tracemalloc.start()
    found = SegmentDictionary(path)
    assert found["word19999"] == ("wo@@", "rd@@", "19999")
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 20_000 * 16

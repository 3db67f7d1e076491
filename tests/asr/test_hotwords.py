"""Hot words: splitting, caps, the report, files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from app.asr.errors import HotwordError
from app.asr.hotwords import HotwordLimits, HotwordSet, is_off, parse_hotwords
from app.asr.tokens import Vocabulary

CHINESE = "阿里巴通义千问张三埃隆马斯克歌一二四五六七八九十"
LATIN = ["new", "york", "windows", "k", "wi", "fi", "iphone", "android", "i'm", "off", "http", "alice", "bob"]
VOCABULARY = Vocabulary(["<blank>", "<s>", "</s>", *CHINESE, *"0123456789", *LATIN, "<unk>"])


def parsed(
    source: str | Sequence[str], limits: HotwordLimits | None = None, files: bool = False
) -> HotwordSet:
    result = parse_hotwords(source, VOCABULARY, limits=limits, files=files)
    assert result is not None
    return result


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("阿里巴巴 通义千问", ["阿里巴巴", "通义千问"]),
        ("阿里巴巴，通义千问、张三；马斯克;阿里,张三丰", ["阿里巴巴", "通义千问", "张三", "马斯克", "阿里"]),
        ("New York", ["New York"]),
        ("New York, Windows 10\nAlice,Bob", ["New York", "Windows 10", "Alice", "Bob"]),
        ("阿里 New York 张三", ["阿里", "New York", "张三"]),
        ("Ｎｅｗ　Ｙｏｒｋ", ["New York"]),
        ("ｉＰｈｏｎｅ１５", ["iPhone15"]),
        ("K歌 张三", ["K歌", "张三"]),
        ("Wi-Fi", ["Wi Fi"]),
        ("埃隆·马斯克 《张三》 “阿里”", ["埃隆马斯克", "张三", "阿里"]),
        ("I’m", ["I'm"]),
        ("10, 张三, 20", ["10", "张三", "20"]),
        ("张三\r\n\r\n阿里\t马斯克\u3000四\u2028五", ["张三", "阿里", "马斯克", "四", "五"]),
        ("张\u200b三\x00 \ufeff阿里", ["张三", "阿里"]),
        ("office, off", ["off"]),
    ],
)
def test_splits_and_normalises(text: str, words: list[str]) -> None:
    assert list(parsed(text).used) == words


def test_ids_match_the_words() -> None:
    result = parsed("张三,New York")
    assert [VOCABULARY.decode(ids) for ids in result.ids] == ["张三", "new york"]


def test_doubles_are_one_word() -> None:
    assert parsed("iPhone,IPHONE，iphone,张三 张三").used == ("iPhone", "张三")


def test_list_items_are_lines() -> None:
    assert parsed(["New York", "阿里 张三", "", "Alice,Bob"]).used == (
        "New York",
        "阿里",
        "张三",
        "Alice",
        "Bob",
    )


@pytest.mark.parametrize("source", [None, "", "  \n ", "off", " OFF ", "Off", [], ["off"], ["", " "]])
def test_off_is_none(source: str | list[str] | None) -> None:
    assert is_off(source)
    assert parse_hotwords(source, VOCABULARY) is None


def test_weights_are_reported_and_not_hot_words() -> None:
    result = parsed("阿里巴巴 20\n通义千问\t-1.5\nWindows 10\n张三")
    assert result.used == ("阿里巴巴", "通义千问", "Windows 10", "张三")
    assert any(
        "阿里巴巴 20, 通义千问 -1.5" in warning and "ignored" in warning for warning in result.warnings
    )


def test_names_what_cannot_be_biased() -> None:
    result = parsed("阿里,张龘三𠮷,kubernetes,http://x.cn/a.txt")
    assert result.used == ("阿里",)
    reasons = {word.text: word.reason for word in result.unusable}
    assert reasons["张龘三𠮷"].endswith(": 龘 𠮷")
    assert reasons["kubernetes"].endswith(": kubernetes")
    assert "http://x.cn/a.txt" in reasons


def test_words_beyond_the_cap_are_reported() -> None:
    result = parsed("一,二,四,五", HotwordLimits(max_words=2, warn_words=100))
    assert result.used == ("一", "二")
    assert [(w.text, "limit of 2" in w.reason) for w in result.unusable] == [("四", True), ("五", True)]


def test_long_lists_are_warned_about() -> None:
    assert parsed("一,二", HotwordLimits(warn_words=3)).warnings == ()
    assert "3 hot words" in parsed("一,二,四", HotwordLimits(warn_words=3)).warnings[0]


def test_default_caps() -> None:
    digits = "一二四五六七八九十三"
    words = ",".join(a + b + c for a in digits for b in digits for c in "一二四五六七八九十三阿里")
    result = parsed(words)
    assert (len(result.used), len(result.unusable), len(result.warnings)) == (1000, 200, 1)


def test_one_word_has_a_length_limit() -> None:
    result = parsed("张" * 33 + ",张三")
    assert result.used == ("张三",)
    assert "33" in result.unusable[0].reason
    assert len(parsed("龘" * 5000).unusable[0].text) < 100


def test_a_list_too_large_is_refused() -> None:
    with pytest.raises(HotwordError, match="262144"):
        parsed("张三," * 60_000)
    with pytest.raises(HotwordError):
        parsed(["张三" * 100] * 1000)


def test_reads_a_file_with_a_bom(tmp_path: Path) -> None:
    path = tmp_path / "my words.txt"
    path.write_bytes("张三\r\nNew York\r\n@阿里\r\n".encode("utf-8-sig"))
    result = parsed(f"@{path}", files=True)
    assert result.used == ("张三", "New York")
    assert result.unusable[0].text == "@阿里"  # no file within a file


def test_at_is_only_a_file_when_allowed(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("张三", encoding="utf-8")
    assert parsed(f"@{path}").used == ()
    assert parsed(str(path), files=True).used == ()


def test_an_empty_file_gives_an_empty_set(tmp_path: Path) -> None:
    (tmp_path / "words.txt").touch()
    assert parsed(f"@{tmp_path}/words.txt", files=True) == HotwordSet((), ())


def test_file_troubles_are_told(tmp_path: Path) -> None:
    (tmp_path / "gbk.txt").write_bytes("张三\n".encode() + "李四".encode("gb18030"))
    (tmp_path / "large.txt").write_bytes(b"a" * 300_000)
    os.mkfifo(tmp_path / "pipe")
    cases = {
        "gbk.txt": "line 2",
        "large.txt": "300000",
        "none.txt": "No such file",
        ".": "not a file",
        "pipe": "not a file",
    }
    for name, told in cases.items():
        with pytest.raises(HotwordError, match=told):
            parsed(f"@{tmp_path / name}", files=True)
    with pytest.raises(HotwordError):
        parsed("@bad\x00name", files=True)

"""Marks behind words, while the words come: what waits, what is settled, what never changes. No network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from app.asr.marks import COMMA_LIMIT, MOST_TOKENS, STEP, MarkStream, split
from app.asr.tokens import Word, written_line
from tests.fakes.marker import FakeMarker


def words_of(*texts: str) -> list[Word]:
    return [Word(text, n * 0.25, n * 0.25 + 0.2) for n, text in enumerate(texts)]


def marked(words: Sequence[Word], marker: FakeMarker) -> list[Word]:
    stream = MarkStream(marker)
    return [*stream.add(words), *stream.flush()]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        ("  ", []),
        ("今天hello世界 new york12点", ["今", "天", "hello", "世", "界", "new", "york12", "点"]),
        ("AT&T，é1", ["AT&T", "，", "é", "1"]),
    ],
)
def test_a_text_is_cut_as_funasr_cuts_it(text: str, tokens: list[str]) -> None:
    assert split(text) == tokens


def test_marks_come_behind_words_and_nothing_else_changes() -> None:
    words = words_of(*"今天开会", "hello", *"世界")
    found = marked(words, FakeMarker({"天": "，", "会": "。", "hello": "、"}))
    assert written_line(found) == "今天，开会。hello,世界。"
    assert [word._replace(mark="") for word in found] == words


def test_the_last_sentence_is_ended_but_a_question_stays_one() -> None:
    for last, shown in (("", "。"), ("，", "。"), ("、", "。"), ("？", "？"), ("。", "。")):
        assert marked(words_of("好", "吗"), FakeMarker({"吗": last}))[-1].mark == shown
    for last, shown in (("", "."), ("，", "."), ("？", "?")):
        assert marked(words_of("好", "ok"), FakeMarker({"ok": last}))[-1].mark == shown


def test_digits_without_a_space_are_one_token_and_share_a_mark() -> None:
    marker = FakeMarker({"123": "，", "ab": "。"})
    found = marked(words_of("有", "1", "2", "3", "ab", "4", "人"), marker)
    assert marker.names == ["有", "123", "ab", "4", "人"]
    assert written_line(found) == "有123, ab. 4人。"
    assert [word.mark for word in found] == ["", "", "", ",", ".", "", "。"]


def test_a_word_of_several_tokens_gets_the_mark_of_its_last() -> None:
    found = marked(words_of("好", "éà1", "们"), FakeMarker({"é": "。", "1": "，"}))
    assert [(word.text, word.mark) for word in found] == [("好", ""), ("éà1", ","), ("们", "。")]


def test_words_of_spaces_only_are_given_back_in_their_place() -> None:
    words = words_of(" ", "好", " ", " ", "吗", " ")
    found = marked(words, FakeMarker({"好": "，"}))
    assert [word.text for word in found] == [word.text for word in words]
    assert [word.mark for word in found if word.text.strip()] == ["，", "。"]
    assert [word.text for word in marked(words_of(" "), FakeMarker())] == [" "]


def test_nothing_gives_nothing_and_a_stream_can_begin_again() -> None:
    stream = MarkStream(FakeMarker({"天": "，"}))
    assert list(stream.flush()) == []
    for _ in range(2):
        assert [word.mark for word in [*stream.add(words_of(*"今天好")), *stream.flush()]] == ["", "，", "。"]


def test_twenty_more_tokens_are_looked_at_once_it_is_known_that_they_are_not_the_last() -> None:
    marker = FakeMarker({"五": "。"})
    stream = MarkStream(marker)
    assert list(stream.add(words_of(*"一二三四五", *"字" * (STEP - 5)))) == [] and marker.looked == []
    given = list(stream.add(words_of("字")))
    assert "".join(word.text for word in given) == "一二三四五" and given[-1].mark == "。"
    assert marker.looked == [STEP]
    list(stream.add(words_of(*"字" * STEP)))
    assert marker.looked == [STEP, STEP - 5 + STEP]  # the unfinished sentence is looked at again
    assert len(marker.names) == 2 * STEP  # but its embeddings are not fetched again


def test_a_full_stop_at_the_edge_of_what_is_seen_is_not_trusted() -> None:
    marker = FakeMarker({"末": "。"})
    stream = MarkStream(marker)
    assert list(stream.add(words_of(*"字" * (STEP - 1), "末", "字"))) == []


def test_a_long_sentence_is_ended_at_its_last_comma() -> None:
    marker = FakeMarker({"逗": "，"})
    stream = MarkStream(marker)
    texts = ["字"] * 150 + ["逗"] + ["字"] * 200
    given = list(stream.add(words_of(*texts)))
    assert len(given) == 151 and given[-1].mark == "。"
    assert max(marker.looked) == COMMA_LIMIT + STEP


def test_a_text_without_any_mark_is_held_no_longer_than_some_tokens() -> None:
    marker = FakeMarker()
    stream = MarkStream(marker)
    words = words_of(*"字" * 5000)
    given = list(stream.add(words))
    assert len(words) - len(given) <= MOST_TOKENS and max(marker.looked) <= MOST_TOKENS
    given += stream.flush()
    assert [word.mark for word in given] == [""] * 4999 + ["。"]
    assert [word._replace(mark="") for word in given] == words


@pytest.mark.parametrize("portion", [1, 3, 20, 1000])
def test_portions_change_nothing(portion: int) -> None:
    rng = np.random.default_rng(1)
    words = words_of(*rng.choice([*"一二三四五六七八九十", "new", "york", "7"], 777))
    wanted = {"一": "。", "五": "，", "york": "？"}
    whole = marked(words, FakeMarker(wanted))
    stream = MarkStream(FakeMarker(wanted))
    pieces = [words[first : first + portion] for first in range(0, len(words), portion)]
    assert [*(word for piece in pieces for word in stream.add(piece)), *stream.flush()] == whole

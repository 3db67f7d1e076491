"""Tests of scripts/demo_model/hotword_lists.py: what the hot-word branch is told to answer."""

from __future__ import annotations

import random

from scripts.demo_model import grammar, hotword_lists

OTHERS = ["打开客厅的灯", "导航到北京机场", "现在是上午十点"]


def offers(text: str, spans: list[tuple[int, int]], count: int = 6) -> list[hotword_lists.Offer]:
    rng = random.Random(7)
    return [hotword_lists.offer(text, spans, OTHERS, count, rng) for _ in range(400)]


def test_a_said_hot_word_is_answered_whole_in_its_own_spelling() -> None:
    made = offers("给张伟打电话", [(1, 3)])
    answered = [item for item in made if any(item.label)]
    assert 150 < len(answered) < 320
    spellings = set()
    for item in answered:
        index = {at for at in item.said if at >= 0}
        assert len(index) == 1
        word = item.words[index.pop()]
        start = next(at for at, character in enumerate(item.label) if character)
        assert "".join(item.label) == word
        assert grammar.canonical("给张伟打电话")[start : start + len(word)] == grammar.canonical(word)
        spellings.add(word)
    assert {"张伟", "章玮"} <= spellings


def test_a_hot_word_that_sounds_like_part_of_the_text_is_never_a_wrong_one() -> None:
    for item in offers("给张伟打电话", [(1, 3)]):
        for index, word in enumerate(item.words):
            if grammar.canonical(word) in grammar.canonical("给张伟打电话"):
                assert index in item.said


def test_near_misses_are_offered_but_never_answered() -> None:
    silent = [item for item in offers("给张伟打电话", [(1, 3)]) if not any(item.label)]
    assert silent
    assert all(set(item.said) == {-1} for item in silent)
    sharing = [word for item in silent for word in item.words if word[0] in "张章"]
    assert len(sharing) > 20


def test_lists_have_the_wanted_length_and_no_word_twice() -> None:
    for item in offers("打开书房的空调", [], count=9):
        assert len(item.words) == len(set(item.words)) == 9


def test_a_near_miss_sounds_different() -> None:
    rng = random.Random(1)
    made = [hotword_lists.near_miss("张伟明", rng) for _ in range(500)]
    different = [name for name in made if grammar.canonical(name) != "张伟明"]
    assert len(different) > 400
    assert any(name[0] in "张章" for name in different)

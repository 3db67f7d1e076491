"""Tests of scripts/demo_model/grammar.py: numbers, vocabulary, names, and the split of the sentences."""

from __future__ import annotations

import random

import pytest

from scripts.demo_model import grammar


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "零"),
        (10, "十"),
        (19, "十九"),
        (20, "二十"),
        (35, "三十五"),
        (100, "一百"),
        (105, "一百零五"),
        (110, "一百一十"),
        (999, "九百九十九"),
        (1000, "一千"),
        (1006, "一千零六"),
        (1017, "一千零一十七"),
        (2350, "二千三百五十"),
    ],
)
def test_numbers_are_spelled_as_they_are_said(value: int, said: str) -> None:
    assert grammar.number(value) == said


def test_the_vocabulary_holds_every_character_that_can_be_drawn() -> None:
    tokens = grammar.vocabulary()
    assert tokens[:3] == ["<blank>", "<s>", "</s>"]
    assert tokens[-2:] == ["<nobias>", "<unk>"]
    assert len(tokens) == len(set(tokens)) == 275
    rng = random.Random(5)
    known = set(tokens)
    for _ in range(3000):
        assert set(grammar.sentence(rng).text) <= known
    assert set("".join(grammar.RARE_NAMES)) <= known


def test_the_same_seed_draws_the_same_sentences() -> None:
    def draw(seed: int) -> list[str]:
        rng = random.Random(seed)
        return [grammar.sentence(rng).text for _ in range(20)]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_rare_names_sound_like_common_ones_and_are_never_training_names() -> None:
    assert all(grammar.canonical(name) != name for name in grammar.RARE_NAMES)
    rng = random.Random(2)
    drawn = [grammar.training_name(rng) for _ in range(5000)]
    assert not [name for name in drawn for rare in grammar.RARE_NAMES if rare in name]


def test_a_named_sentence_says_its_name() -> None:
    rng = random.Random(3)
    for _ in range(200):
        drawn = grammar.named_sentence(rng, "章玮")
        assert drawn.name == "章玮"
        assert "章玮" in drawn.text


def test_homophone_groups_do_not_overlap() -> None:
    characters = "".join(grammar.SURNAMES + grammar.GIVEN)
    assert len(characters) == len(set(characters))


def test_spelling_does_not_move_a_sentence_between_the_sets() -> None:
    rng = random.Random(4)
    texts = [grammar.named_sentence(rng, "章玮").text for _ in range(400)]
    split = [grammar.held_out(text) for text in texts]
    assert split == [grammar.held_out(text.replace("章玮", "张伟")) for text in texts]
    assert 0 < sum(split) < 60

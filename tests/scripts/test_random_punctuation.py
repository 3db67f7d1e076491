"""The random punctuation model: its vocabulary, its numbers, how often it puts a mark, and that a seed repeats it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="it makes a checkpoint")
pytest.importorskip("funasr", reason="it fills FunASR's own class")

from scripts import random_punctuation  # noqa: E402
from scripts.random_punctuation import MARKS, SHAPES, build, make_config, make_tokens, sentences  # noqa: E402


def test_the_full_vocabulary_is_complete_and_distinct() -> None:
    tokens = make_tokens(SHAPES["full"].vocabulary)
    assert len(tokens) == len(set(tokens)) == 272_727
    assert tokens[-1] == "<unk>" and {"的", "7", "hello", "zz", "abcd"} <= set(tokens)
    assert make_config(SHAPES["full"])["encoder_conf"]["num_blocks"] == 4


def test_a_text_has_as_many_tokens_as_were_asked_for() -> None:
    text = "".join(sentences(make_tokens(7500), 200, seed=1))
    latin = [part for part in text.split() if part.isascii()]
    assert len(latin) + sum(not char.isascii() and not char.isspace() for char in text) == 200


def test_marks_are_as_frequent_as_a_writer_s_and_a_seed_repeats_them() -> None:
    first, again, other = (build(SHAPES["tiny"], seed) for seed in (3, 3, 4))
    weights = first.decoder.weight
    assert torch.equal(weights, again.decoder.weight) and not torch.equal(weights, other.decoder.weight)
    ids = torch.randint(3, 7000, (1, 2000), generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        scores = first.punc_forward(ids, torch.tensor([2000]))[0][0]
    found = Counter(MARKS[number] for number in scores.argmax(dim=1).tolist())
    assert 0.6 < found["_"] / 2000 < 0.95 and found["，"] > found["？"] > 0 and found["<unk>"] == 0


def test_an_existing_model_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert random_punctuation.main([str(tmp_path), "--size", "tiny"]) == 0
    assert len(json.loads((tmp_path / "tokens.json").read_text(encoding="utf-8"))) == 7500
    assert random_punctuation.main([str(tmp_path), "--size", "tiny"]) == 1
    assert "already holds a model" in capsys.readouterr().err

"""Tests of scripts/random_checkpoint.py on the tiny size: format, determinism, and that it acts like a recogniser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scripts import random_checkpoint


def make(directory: Path, *options: str) -> Path:
    """Run the script in this process with --size tiny."""
    code = random_checkpoint.main([str(directory), "--size", "tiny", *options])
    assert code == 0
    return directory


def weights(directory: Path) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = torch.load(directory / "model.pt", weights_only=True)
    return loaded


@pytest.fixture(scope="module")
def seaco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("seaco"), "--seed", "3")


def recognise(directory: Path, sound: Any, **options: Any) -> list[str]:
    """Tokens that FunASR itself gives for `sound`."""
    from funasr import AutoModel

    model = AutoModel(model=str(directory), disable_update=True, device="cpu", ncpu=1, disable_pbar=True)
    text: str = model.generate(input=sound, **options)[0]["text"]
    return text.split() if " " in text else list(text)  # without time stamps it joins the characters


def test_vocabulary_of_the_full_size_is_complete_and_distinct() -> None:
    tokens = random_checkpoint.make_tokens(8404)
    assert len(tokens) == len(set(tokens)) == 8404
    assert tokens[:3] == ["<blank>", "<s>", "</s>"]
    assert tokens[-1] == "<unk>"
    assert {"阿", "里", "巴", "a", "he@@"} <= set(tokens)
    assert random_checkpoint.make_seg_dict(tokens)["hello"] == ["he@@", "ll@@", "o"]


def test_full_size_has_the_published_numbers() -> None:
    config = random_checkpoint.make_config(random_checkpoint.SHAPES["full"], "seaco")
    assert config["encoder_conf"]["num_blocks"] == 50
    assert config["decoder_conf"]["att_layer_num"] == 16
    assert config["seaco_decoder_conf"]["kernel_size"] == 21
    assert config["model_conf"]["NO_BIAS"] == 8377


def test_different_sounds_give_different_tokens_at_a_speech_like_rate(seaco: Path) -> None:
    first, second = (recognise(seaco, random_checkpoint.probe_audio(seed)) for seed in (1, 2))
    assert first != second
    assert len(set(first)) > 8
    assert 2.0 < len(first) / random_checkpoint.PROBE_SECONDS < 8.0


def test_hot_words_change_some_tokens_but_not_all(seaco: Path) -> None:
    sound = random_checkpoint.probe_audio(1)
    tokens = json.loads((seaco / "tokens.json").read_text(encoding="utf-8"))
    plain = recognise(seaco, sound)
    biased = recognise(seaco, sound, hotword=f"{tokens[5]}{tokens[6]} {tokens[9]}{tokens[40]}")
    same = sum(one == other for one, other in zip(plain, biased, strict=False))
    assert plain != biased
    assert same > len(plain) // 3


def test_same_seed_same_weights_and_another_seed_others(seaco: Path, tmp_path: Path) -> None:
    expected = weights(seaco)
    again = weights(make(tmp_path / "again", "--seed", "3"))
    other = weights(make(tmp_path / "other", "--seed", "4"))
    assert expected.keys() == again.keys() == other.keys()
    assert all(torch.equal(tensor, again[name]) for name, tensor in expected.items())
    assert not torch.equal(expected["decoder.output_layer.weight"], other["decoder.output_layer.weight"])


@pytest.mark.parametrize(
    ("arch", "present", "absent"),
    [
        ("bicif", "predictor.blstm.weight_ih_l0", "bias_encoder.weight_ih_l0"),
        ("paraformer", "predictor.cif_output.bias", "predictor.blstm.weight_ih_l0"),
    ],
)
def test_other_architectures(tmp_path: Path, arch: str, present: str, absent: str) -> None:
    directory = make(tmp_path / arch, "--arch", arch)
    names = weights(directory).keys()
    assert present in names
    assert absent not in names
    assert len(recognise(directory, random_checkpoint.probe_audio(1))) > 10


def test_an_existing_model_is_left_alone(seaco: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (seaco / "model.pt").stat().st_mtime_ns
    assert random_checkpoint.main([str(seaco), "--size", "tiny"]) == 1
    assert "already holds a model" in capsys.readouterr().err
    assert (seaco / "model.pt").stat().st_mtime_ns == before


def test_probe_audio_is_sound() -> None:
    sound = random_checkpoint.probe_audio(0, seconds=2)
    assert sound.shape == (2 * random_checkpoint.SAMPLE_RATE,)
    assert np.isfinite(sound).all()
    assert 0.005 < float(np.sqrt(np.mean(sound**2))) < 0.3

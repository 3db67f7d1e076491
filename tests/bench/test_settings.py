"""Tests of app/bench/settings.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from app.bench.settings import DEFAULT_HOTWORDS, KEYS, SETTINGS, Request, Setting, choose, command

ROOT = Path(__file__).parents[2]


def test_keys_are_words_and_all_different() -> None:
    assert len(set(KEYS)) == len(KEYS)
    assert all(not set(key) & set(" ,'\"") and key == key.lower() for key in KEYS)
    assert "cpu-hot-words-off" in KEYS


def test_the_default_hot_words_are_names_of_the_shipped_recordings() -> None:
    listed = json.loads((ROOT / "app/demo/recordings/recordings.json").read_text(encoding="utf-8"))
    spoken = {word for recording in listed["recordings"] for word in recording["hotwords"]}
    assert set(DEFAULT_HOTWORDS) <= spoken


def test_chosen_settings_keep_the_order_of_the_table() -> None:
    assert [setting.key for setting in choose("fp16, DEFAULT,,fp16")] == ["default", "fp16"]
    assert choose(",".join(KEYS)) == SETTINGS


@pytest.mark.parametrize("only", ["", " , ", "gpu", "default,fp64", "hot words off"])
def test_unknown_settings_are_refused_with_those_there_are(only: str) -> None:
    with pytest.raises(ValueError, match=r"no such setting.*cpu-hot-words-off"):
        choose(only)


def test_a_setting_is_a_transcription_with_its_options() -> None:
    request = Request(Path("a b.wav"), "large", ("张三", "-x"), threads=2)
    words = command(Setting("x", ("--device", "cpu")), request)
    assert list(words[:5]) == [sys.executable, "-m", "app", "transcribe", "--format=json"]
    assert {"--model=large", "--threads=2", "--hotwords=张三", "--hotwords=-x"} <= set(words)
    assert words[-3:] == ("--device", "cpu", "a b.wav")


def test_without_hot_words_none_are_given() -> None:
    words = command(Setting("x", hotwords=False), Request(Path("a.wav")))
    assert [word for word in words if "hotwords" in word] == ["--hotwords=off"]
    assert not [word for word in words if "threads" in word]


def test_a_recording_is_never_taken_for_an_option() -> None:
    assert command(Setting("x"), Request(Path("--model")))[-1] == "./--model"


def test_shown_is_what_would_be_typed() -> None:
    assert Setting("x").shown == ""
    assert Setting("x", ("--device", "cpu"), hotwords=False).shown == "--device cpu --hotwords off"

"""Tests of scripts/bench/materials.py: audio of exact length, hot words that every vocabulary holds."""

from __future__ import annotations

import json
import wave
from pathlib import Path

import numpy as np
import pytest

from scripts import random_checkpoint
from scripts.bench import materials
from scripts.bench.machine import describe, granted_cores


def test_audio_is_of_exact_length_and_repeats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tile = np.arange(16_000, dtype=np.int16)
    monkeypatch.setattr(materials, "read_meeting", lambda: tile)
    with wave.open(str(materials.make_audio(tmp_path, 4))) as sound:
        samples = np.frombuffer(sound.readframes(1 << 30), np.int16)
        assert (sound.getframerate(), sound.getnchannels()) == (16_000, 1)
    assert samples.size == 4 * 16_000
    assert np.array_equal(samples[:16_000], tile)
    assert np.array_equal(samples[24_000:40_000], tile)


def test_the_shipped_meeting_is_minutes_long() -> None:
    assert materials.read_meeting().size > 120 * 16_000


def test_hot_words_are_made_of_known_characters(tmp_path: Path) -> None:
    tokens = random_checkpoint.make_tokens(420)
    (tmp_path / "tokens.json").write_text(json.dumps(tokens), encoding="utf-8")
    words = materials.choose_hotwords(tmp_path).split()
    assert len(words) == 3
    assert all(set(word) <= set(tokens) and len(word) == 2 for word in words)


def test_the_machine_is_described_without_naming_it() -> None:
    import socket
    import sys

    machine = describe({"ours": Path(sys.executable)})
    assert machine["cores"] == granted_cores() >= 1
    assert "numpy" in machine["packages"]["ours"]
    assert socket.gethostname() not in json.dumps(machine)

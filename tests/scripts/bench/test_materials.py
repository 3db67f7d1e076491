"""Tests of scripts/bench/materials.py: audio of exact length, hot words that every vocabulary holds."""

from __future__ import annotations

import json
import wave
from pathlib import Path

import numpy as np
import pytest

from scripts import random_checkpoint
from scripts.bench import gpu_materials, materials
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


class FakeMakers:
    """Stands for the processes that make checkpoints, packs and graphs."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []

    def run(self, command: list[str | Path], timeout: float = 0.0) -> None:
        words = [str(word) for word in command]
        self.commands.append(words)
        if "scripts.random_checkpoint" in words:
            checkpoint = Path(words[3])
            checkpoint.mkdir()
            (checkpoint / "model.pt").touch()
            for name in materials.BESIDE_GRAPHS:
                (checkpoint / name).write_text("{}", encoding="utf-8")
            tokens = json.dumps(random_checkpoint.make_tokens(420))
            (checkpoint / "tokens.json").write_text(tokens, encoding="utf-8")
        elif "pack" in words:
            pack = Path(words[words.index("--output") + 1])
            pack.mkdir()
            (pack / "manifest.json").touch()


def test_what_is_there_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    makers = FakeMakers()
    monkeypatch.setattr(materials, "run", makers.run)
    monkeypatch.setattr(materials, "read_meeting", lambda: np.ones(16_000, np.int16))
    made = materials.prepare(tmp_path / "work", "thin", [1, 2])
    assert len(makers.commands) == 5, "a checkpoint, two packs, graphs for two programs"
    assert set(made.packs) == {"int8", "fp32"} and set(made.audio) == {1, 2}
    assert (made.graphs / "am.mvn").exists(), "funasr-onnx reads it beside its graphs"
    assert materials.prepare(tmp_path / "work", "thin", [1, 2]) == made and len(makers.commands) == 5
    (made.sherpa / "complete").unlink()  # as a run leaves it that was stopped
    materials.prepare(tmp_path / "work", "thin", [1])
    assert "export-sherpa" in makers.commands[-1] and len(makers.commands) == 6


def test_the_gpu_benchmark_makes_its_own_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    makers = FakeMakers()
    monkeypatch.setattr(gpu_materials, "run", makers.run)
    monkeypatch.setattr(gpu_materials, "read_meeting", lambda: np.ones(16_000, np.int16))
    made = gpu_materials.Materials(tmp_path / "work", "tiny")
    for _ in range(2):
        made.make_model()
        words = made.make_hotwords(50).read_text(encoding="utf-8").split()
        sound = made.make_recording("short", [0.5])
    assert len(makers.commands) == 3 and len(set(words)) == 50
    assert json.loads(sound.with_suffix(".json").read_text(encoding="utf-8"))[0][1] >= 500


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

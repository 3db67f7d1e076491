"""Tests of the demo model's held-out speech, its recordings and its judge, with a fake voice and a fake model."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("scipy", reason="what the training needs is not installed")

from scripts.demo_model import evaluation, grammar, heldout, recordings
from scripts.demo_model.heldout import Utterance
from scripts.demo_model.tapes import SAMPLE_RATE, UNSEEN_VARIANTS, held_out_voice
from tests.fakes.synthesiser import FakeSynthesiser


@pytest.fixture
def voice(monkeypatch: pytest.MonkeyPatch) -> FakeSynthesiser:
    fake = FakeSynthesiser()
    monkeypatch.setattr(heldout, "synthesiser", lambda: fake)
    monkeypatch.setattr(recordings, "synthesiser", lambda: fake)
    return fake


class FakeAutoModel:
    """Says what it is told to for a recording, by the recording's length; notes the hot words."""

    def __init__(self, answers: dict[int, dict[str, Any]]) -> None:
        self.answers, self.hotwords = answers, list[str]()

    def generate(self, **asked: Any) -> list[dict[str, Any]]:
        self.hotwords.append(asked.get("hotword", ""))
        length = len(asked["input"])
        return [self.answers[length]] if length in self.answers else []


def judge_of(answers: dict[int, dict[str, Any]]) -> evaluation.Judge:
    judge = object.__new__(evaluation.Judge)  # its constructor opens a real model
    judge._model = FakeAutoModel(answers)
    return judge


def said(text: str, name: str = "", length: int | None = None) -> Utterance:
    samples = np.zeros(length or 1000 + len(text), np.float32)
    starts = (np.arange(len(text)) * 0.2).astype(np.float64)
    return Utterance(samples, text, name, "fake", starts)


@pytest.mark.parametrize("kind", ["plain", "named", "rare"])
def test_held_out_sentences_are_held_out_and_each_said_once(voice: FakeSynthesiser, kind: str) -> None:
    made = heldout.utterances(kind, 12)
    texts = [one.text for one in made]
    assert len(set(texts)) == 12 and all(map(grammar.held_out, texts))
    assert all((one.name in one.text) and bool(one.name) == (kind != "plain") for one in made)
    if kind == "rare":
        assert {one.name for one in made} <= set(grammar.RARE_NAMES)
    voices = [spoken for _, spoken in voice.spoken]
    assert all(one.rate % 2 and one.pitch % 2 for one in voices), "odd rates and pitches are not trained on"
    assert any(one.variant in UNSEEN_VARIANTS for one in voices)
    assert heldout.utterances(kind, 3)[2].samples.tolist() == made[2].samples.tolist(), "the same every time"


def test_character_starts_count_the_silence_before(voice: FakeSynthesiser) -> None:
    rng = random.Random(2)
    one = heldout.speak(voice, grammar.Sentence("打开灯"), held_out_voice(rng), rng, clean=True)
    begin = round(float(one.starts[0]) * SAMPLE_RATE)
    assert not one.samples[:begin].any() and one.samples[begin : begin + 10].any()
    assert np.diff(one.starts) == pytest.approx([0.2, 0.2])


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
def test_audio_comes_back_as_it_was_written(tmp_path: Path, suffix: str) -> None:
    moments = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    samples = (0.5 * np.sin(2 * np.pi * 440 * moments)).astype(np.float32)
    path = tmp_path / f"tone{suffix}"
    heldout.write_audio(path, samples)
    back = heldout.read_audio(path)
    assert abs(len(back) - len(samples)) <= (320 if suffix == ".ogg" else 0)
    # Opus is lossy, and its first milliseconds are its warm-up.
    apart = np.abs(back[1000:15_000] - samples[1000:15_000]).max()
    assert apart < (0.1 if suffix == ".ogg" else 1e-4)


def test_a_set_says_where_each_utterance_lies(tmp_path: Path, voice: FakeSynthesiser) -> None:
    made = {"plain": heldout.utterances("plain", 5, clean=True), "rare": heldout.utterances("rare", 1)}
    heldout.write_set(tmp_path / "set", made, per_file=2)
    listed = json.loads((tmp_path / "set" / "heldout.json").read_text(encoding="utf-8"))
    entries = listed["utterances"]
    assert [entry["file"] for entry in entries] == [
        *("plain-1.ogg", "plain-1.ogg", "plain-2.ogg", "plain-2.ogg", "plain-3.ogg"),
        "rare-1.ogg",
    ]
    for entry, one in zip(entries, [*made["plain"], *made["rare"]], strict=True):
        assert (entry["text"], entry["name"]) == (one.text, one.name or None)
        assert entry["end"] - entry["start"] == len(one.samples)
    second = heldout.read_audio(tmp_path / "set" / "plain-1.ogg")[entries[1]["start"] : entries[1]["end"]]
    assert np.corrcoef(second, made["plain"][1].samples)[0, 1] > 0.5, "the second is not where the list says"


def test_the_shipped_recordings_are_listed_with_their_words(tmp_path: Path, voice: FakeSynthesiser) -> None:
    made = recordings.write_recordings(tmp_path)
    listed = json.loads((tmp_path / "recordings.json").read_text(encoding="utf-8"))["recordings"]
    by_name = {entry["file"]: entry for entry in listed}
    assert set(by_name) | {"recordings.json"} == {path.name for path in tmp_path.iterdir()}
    assert by_name["names.ogg"]["hotwords"] == list(recordings.RECORDED_NAMES)
    assert by_name["golden.wav"]["text"] == recordings.GOLDEN_TEXT
    assert (
        recordings.MEETING_SECONDS - 10 < by_name["meeting.ogg"]["seconds"] < recordings.MEETING_SECONDS + 15
    )
    for one in made:
        assert len(heldout.read_audio(tmp_path / one.file)) / SAMPLE_RATE == pytest.approx(
            one.seconds, abs=0.05
        )


def test_errors_are_counted_in_characters_and_in_sounds() -> None:
    spoken = [said("给张伟打电话", "张伟"), said("打开灯")]
    judge = judge_of({1006: {"text": "给 章 伟 打 电 话"}, 1003: {"text": "打 开 灯"}})
    score = judge.score(spoken, lambda one: [one.name] if one.name else [])
    assert score == evaluation.Score(2, round(100 / 9, 2), 0.0, 1, 0)
    assert judge._model.hotwords == ["张伟", ""]


def test_without_names_none_are_counted_and_silence_is_an_empty_text() -> None:
    judge = judge_of({})
    assert judge.hear(np.zeros(10, np.float32)) == ("", [])
    score = judge.score([said("打开灯")], lambda _: ())
    assert (score.cer, score.sentences_right, score.names_right) == (100.0, 0, None)


def test_start_times_are_compared_where_the_length_is_right() -> None:
    heard = {"text": "打 开 灯", "timestamp": [[20, 200], [180, 400], [430, 600]]}
    judge = judge_of({1003: heard, 1002: {"text": "开", "timestamp": [[0, 200]]}})
    found = evaluation.time_errors(judge, [said("打开灯"), said("开灯")])
    assert found == {"characters": 3, "mean_ms": 23.3, "p90_ms": 28.0, "bias_ms": 10.0}
    assert evaluation.time_errors(judge, [said("开灯")]) == {"characters": 0}


def test_absent_names_are_different_and_not_in_the_text() -> None:
    text = "给张伟打电话"
    words = evaluation.absent(text, 30, random.Random(3))
    assert len(set(words)) == 30
    assert not [word for word in words if grammar.canonical(word) in grammar.canonical(text)]


@pytest.mark.parametrize("gated", [False, True])
def test_a_long_recording_fits_and_its_starts_are_those_of_its_sentences(
    voice: FakeSynthesiser, gated: bool
) -> None:
    made = evaluation.long_recording(20.0, 1, gated=gated)
    assert 10.0 < len(made.samples) / SAMPLE_RATE <= 20.0
    assert len(made.starts) == len(made.text) and (np.diff(made.starts) > 0.15).all()
    if gated:
        assert np.mean(made.samples == 0.0) > 0.05, "between gated sentences is digital silence"
    scored = evaluation.long_scores(judge_of({}), (20.0,), 1)
    assert set(scored) == {"20 s, one noise", "20 s, noise that comes and goes"}
    assert scored["20 s, one noise"]["starts"] == {"characters": 0}

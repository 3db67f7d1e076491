"""Tests of scripts/demo_model/clips.py and timestamps.py on a tape made by hand: cuts, labels, targets."""

from __future__ import annotations

import random

import numpy as np
import pytest

pytest.importorskip("torch", reason="the training needs torch")

import torch

from scripts.demo_model import clips, recogniser, timestamps
from scripts.demo_model.tapes import N_MELS, Tape

TEXT = "打开灯现在是十点"
TOKENS = ["<blank>", "<s>", "</s>", *sorted(set(TEXT)), "<nobias>", "<unk>"]


@pytest.fixture
def tape() -> Tape:
    """Two sentences: three characters from 0.5 s, five from 2.0 s, 0.25 s each."""
    starts = np.array([0.5, 0.75, 1.0, 2.0, 2.25, 2.5, 2.75, 3.0], np.float32)
    rng = np.random.default_rng(0)
    fbank = rng.standard_normal((400, N_MELS)).astype(np.float16)
    return Tape(fbank, TEXT, starts, starts + np.float32(0.25), np.array([0, 3], np.int32), ("", ""))


@pytest.fixture
def sampler(tape: Tape) -> clips.ClipSampler:
    return clips.ClipSampler([tape], TOKENS, seed=1)


def text(labels: clips.Labels) -> str:
    return "".join(TOKENS[i] for i in labels.ids)


def test_a_hard_cut_keeps_only_whole_characters(sampler: clips.ClipSampler) -> None:
    labels = sampler.labels(clips.Clip(0, 60, 260))  # 0.6 s to 2.6 s: in the middle of two characters
    assert text(labels) == "开灯现在"
    assert labels.starts == pytest.approx([0.15, 0.4, 1.4, 1.65], abs=1e-6)


def test_a_clip_of_silence_has_no_label(sampler: clips.ClipSampler) -> None:
    assert text(sampler.labels(clips.Clip(0, 130, 195))) == ""


def test_a_cut_at_silence_holds_its_sentences_whole(sampler: clips.ClipSampler) -> None:
    for _ in range(50):
        assert text(sampler.labels(sampler.snapped(0, 0, 0))) == "打开灯"
        assert text(sampler.labels(sampler.snapped(0, 0, 1))) == TEXT


def test_features_of_a_cut_are_those_of_the_tape(sampler: clips.ClipSampler) -> None:
    whole = sampler.features(clips.Clip(0, 0, 400), augment=False)
    part = sampler.features(clips.Clip(0, 60, 180), augment=False)
    assert whole.shape == (67, 560)
    assert part[1:19] == pytest.approx(whole[11:29])


def test_lfr_repeats_the_edges() -> None:
    stacked = clips.lfr(np.arange(8, dtype=np.float32)[:, None])
    assert stacked.tolist() == [[0, 0, 0, 0, 1, 2, 3], [3, 4, 5, 6, 7, 7, 7]]


def test_every_token_fires_once_and_the_end_last(sampler: clips.ClipSampler) -> None:
    clip = clips.Clip(0, 0, 330)
    batch = sampler.batch([clip, clips.Clip(0, 40, 130)], augment=False)
    assert batch.counts.tolist() == [9, 4]
    assert batch.spikes.sum(1).tolist() == [9.0, 4.0]
    assert batch.spikes[0, int(batch.frames[0]) - 1] == 1.0
    assert batch.targets[1].tolist()[:4] == [TOKENS.index(c) for c in "打开灯"] + [clips.EOS]
    assert set(batch.targets[1].tolist()[4:]) == {clips.PADDING}


def test_time_stamp_bursts_cross_integers_at_the_starts(sampler: clips.ClipSampler) -> None:
    labels = sampler.labels(clips.Clip(0, 0, 400))
    target = timestamps.burst_targets(labels, 200)
    mass = np.cumsum(target) * (len(labels.ids) + 1) / target.sum()  # as FunASR scales it
    fired = [int(np.argmax(mass >= k - 1e-3)) for k in range(1, len(labels.ids) + 2)]
    heard = [(frame - timestamps.FIRE_DELAY) * timestamps.UPSAMPLED_SECONDS for frame in fired]
    assert heard[:-1] == pytest.approx(labels.starts.tolist(), abs=0.021)
    assert heard[-1] == pytest.approx(labels.ends[-1], abs=0.03)


def test_a_tight_tape_has_the_same_speech_without_its_pauses(tape: Tape) -> None:
    for seed in range(20):
        tight = clips.tighten(tape, random.Random(seed))
        pause = tight.starts[3] - tight.ends[2]
        assert 0 <= pause <= clips.TIGHT_SECONDS + 0.03
        assert len(tape.fbank) - len(tight.fbank) == pytest.approx((0.75 - pause) * 100, abs=1.5)
        assert tight.ends - tight.starts == pytest.approx(0.25, abs=0.011)
        # A frame in the middle of the last character is still there.
        assert (tight.fbank[int(tight.starts[7] * 100) + 12] == tape.fbank[310:314]).all(axis=1).any()


def test_settled_labels_follow_the_weights_to_a_neighbouring_frame_only(sampler: clips.ClipSampler) -> None:
    batch = sampler.batch([clips.Clip(0, 40, 340)])
    truth = np.flatnonzero(batch.spikes[0].numpy())
    weights = np.zeros(batch.spikes.shape, np.float32)
    weights[0, truth[1] + 1] = weights[0, truth[3] + 2] = 1.0
    settled = recogniser.settle(batch, torch.from_numpy(weights))
    fired = np.flatnonzero(settled.spikes[0].numpy())
    assert len(fired) == len(truth)
    assert fired[1] == truth[1] + 1
    assert abs(fired - truth).max() <= 1
    assert fired[-1] == truth[-1], "</s> stays where it is"
    assert settled.targets[0].tolist() == batch.targets[0].tolist()


def test_a_cut_character_is_a_token_when_the_predictor_says_so(sampler: clips.ClipSampler) -> None:
    batch = sampler.batch([clips.Clip(0, 68, 260)])  # ends 0.1 s into a character
    weights = np.zeros(batch.spikes.shape, np.float32)
    assert recogniser.settle(batch, torch.from_numpy(weights)).counts.tolist() == batch.counts.tolist()
    weights[0, -2] = 0.9
    settled = recogniser.settle(batch, torch.from_numpy(weights))
    assert settled.counts.tolist() == [batch.counts.tolist()[0] + 1]
    assert settled.targets[0, -2:].tolist() == [clips.PADDING, clips.EOS]

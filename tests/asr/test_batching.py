"""Batches: within the budget whatever comes, nothing dropped, little padding."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest

from app.asr.batching import MOST_PADDING, BatchLimits, cut_frames, next_batch, plan
from app.asr.memory import BatchShape, CostModel


def _case(seed: int) -> tuple[list[int], CostModel, BatchLimits]:
    rng = random.Random(seed)
    spread = rng.choice(["even", "lognormal", "two kinds", "all alike"])
    count = rng.randrange(1, 200)
    if spread == "even":
        lengths = [rng.randrange(1, 2000) for _ in range(count)]
    elif spread == "lognormal":
        lengths = [min(2000, int(rng.lognormvariate(4.5, 1.0)) + 1) for _ in range(count)]
    elif spread == "two kinds":
        lengths = [rng.choice([33, 966]) for _ in range(count)]
    else:
        lengths = [500] * count
    cost = CostModel(
        fixed=rng.uniform(0, 2e7),
        per_frame=rng.uniform(1e3, 2e5),
        per_frame_squared=rng.choice([0.0, rng.uniform(0, 100)]),
        per_hotword_frame=rng.choice([0.0, rng.uniform(0, 50)]),
    )
    limits = BatchLimits(rng.randrange(10**6, 10**9), rng.randrange(1, 65), rng.choice([0, 3, 1000]))
    return lengths, cost, limits


@pytest.mark.parametrize("seed", range(200))
def test_no_batch_is_above_the_budget_and_nothing_is_lost(seed: int) -> None:
    lengths, cost, limits = _case(seed)
    batches, too_long = plan(lengths, cost, limits)
    assert sorted([*(index for batch in batches for index in batch), *too_long]) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[index] for index in batch)
        assert 1 <= len(batch) <= limits.most_rows
        assert cost.bytes(BatchShape(len(batch), longest, limits.hotwords)) <= limits.budget
        assert sum(lengths[index] for index in batch) >= (1 - MOST_PADDING - 1e-9) * len(batch) * longest
    for index in too_long:
        assert cost.bytes(BatchShape(1, lengths[index], limits.hotwords)) > limits.budget


def test_one_long_segment_does_not_stretch_a_hundred_short_ones() -> None:
    """The case that makes FunASR's batching take 5858 s of padded audio for 258 s of speech."""
    lengths = [33] * 100 + [966]
    batches, too_long = plan(lengths, CostModel(0, 1e5), BatchLimits(1 << 30, 128))
    assert not too_long and [100] in batches
    assert sum(len(batch) * max(lengths[index] for index in batch) for batch in batches) == sum(lengths)


def test_the_longest_goes_first_and_ties_keep_their_order() -> None:
    assert next_batch([5, 9, 9, 8], CostModel(0, 1), BatchLimits(10**6, 3)) == [1, 2, 3]


def test_nothing_is_chosen_when_the_longest_does_not_fit() -> None:
    assert next_batch([100, 5], CostModel(0, 1), BatchLimits(50, 8)) == []
    assert next_batch([], CostModel(0, 1), BatchLimits(50, 8)) == []


@pytest.mark.parametrize("seed", range(50))
def test_pieces_cover_a_segment_and_share_what_is_asked_for(seed: int) -> None:
    rng = np.random.default_rng(seed)
    overlap = int(rng.integers(4, 50))
    most = overlap * 4 + int(rng.integers(0, 500))
    loudness = rng.random(int(rng.integers(1, 5000))).astype(np.float32)
    pieces = cut_frames(loudness, most, overlap)
    assert pieces[0][0] == 0 and pieces[-1][1] == len(loudness)
    assert all(0 < end - begin <= most for begin, end in pieces)
    for (_, end), (begin, _) in pairwise(pieces):
        assert overlap // 2 - 1 <= end - begin <= overlap


def test_pieces_are_cut_where_it_is_quiet() -> None:
    loudness = np.ones(1000, np.float32)
    quiet = np.arange(7, 1000, 10)
    loudness[quiet] = 0.0
    for (_, end), (begin, _) in pairwise(cut_frames(loudness, 300, 60)):
        assert end in quiet and begin in quiet

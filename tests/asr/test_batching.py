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


def test_mates_that_are_not_padded_may_be_of_any_length() -> None:
    limits = BatchLimits(10**6, 3, side_by_side=10**6)
    assert next_batch([5, 900, 40, 8], CostModel(0, 1), limits) == [1, 2, 3]
    assert next_batch([5, 904], CostModel(0, 1), BatchLimits(1000, 3, side_by_side=10**6)) == [1], "none less"


@pytest.mark.parametrize(("together", "rows"), [(800, 1), (1600, 2), (2399, 2), (2400, 3), (10**6, 4)])
def test_several_side_by_side_take_what_is_set_for_them_and_one_alone_the_budget(
    together: int, rows: int
) -> None:
    limits = BatchLimits(3200, 8, side_by_side=together)
    assert next_batch([800] * 5, CostModel(0, 1), limits) == list(range(rows))
    assert next_batch([3200], CostModel(0, 1), limits) == [0], "however little is set for several"


@pytest.mark.parametrize(("shorter", "together"), [(9, True), (8, True), (7, False)])
def test_a_tenth_of_a_batch_may_be_padding(shorter: int, together: bool) -> None:
    """10 and 8 frames make a batch of 20, of which 2 are padding."""
    assert next_batch([10, shorter], CostModel(0, 1), BatchLimits(10**6, 8)) == ([0, 1] if together else [0])


def test_a_batch_takes_what_the_budget_holds_to_the_byte() -> None:
    """8 frames a row at 10 bytes, and half as much again with 5 hot words."""
    cost = CostModel(100, 10, per_hotword_frame=1)
    for budget, hotwords, rows in ((340, 0, 3), (339, 0, 2), (340, 5, 2), (219, 5, 0)):
        assert len(next_batch([8] * 9, cost, BatchLimits(budget, 64, hotwords))) == rows
    assert len(next_batch([8] * 9, cost, BatchLimits(340, 64))) == 3, "no hot words unless some are given"


def test_what_fits_nowhere_is_set_aside_longest_first_and_the_rest_goes_on() -> None:
    batches, too_long = plan([8, 80, 16, 96, 80], CostModel(0, 1), BatchLimits(40, 8))
    assert too_long == [3, 1, 4]
    assert batches == [[2], [0]]


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


def test_pieces_to_the_frame() -> None:
    """Where all is alike the first place of each search counts: from 150 for a joint, 15 beyond it for an end."""
    assert cut_frames(np.ones(700, np.float32), 300, 60) == [
        *((0, 165), (120, 285), (240, 405), (360, 525)),
        (480, 700),
    ]
    assert cut_frames(np.ones(300, np.float32), 300, 60) == [(0, 300)], "what fits is not cut"
    assert cut_frames(np.ones(301, np.float32), 300, 60) == [(0, 165), (120, 301)]


@pytest.mark.parametrize("place", [150, 200, 270])
def test_joints_are_sought_in_the_later_half_of_what_fits(place: int) -> None:
    """A pause in the first half would make a short piece, and one at the very end leaves no room to share."""
    loudness = np.ones(500, np.float32)
    loudness[[100, 149, 271, 290]] = 0.0
    loudness[place] = 0.5
    loudness[place + 20] = 0.7
    loudness[place - 20] = 0.6
    (_, end), (begin, _) = cut_frames(loudness, 300, 60)[:2]
    assert (begin, end) == (place - 20, place + 20)


def test_pieces_are_cut_where_it_is_quiet() -> None:
    loudness = np.ones(1000, np.float32)
    quiet = np.arange(7, 1000, 10)
    loudness[quiet] = 0.0
    for (_, end), (begin, _) in pairwise(cut_frames(loudness, 300, 60)):
        assert end in quiet and begin in quiet

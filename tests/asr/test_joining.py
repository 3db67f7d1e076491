"""Cutting anywhere changes no word: random speech, random cuts, random damage at the edges."""

from __future__ import annotations

import numpy as np
import pytest

from app.asr.joining import Joiner, Recognition, TimedTokens, _pairs


def recognition(tokens: list[tuple[int, float, float]]) -> Recognition:
    ids, starts, ends = zip(*tokens, strict=True) if tokens else ((), (), ())
    return Recognition(np.array(ids, np.int32), np.array(starts, np.float32), np.array(ends, np.float32))


def collect(joiner: Joiner, segments: list[tuple[float, float, float, Recognition]]) -> TimedTokens:
    parts = [joiner.add(*segment) for segment in segments]
    return join([*parts, joiner.flush()])


def join(parts: list[TimedTokens]) -> TimedTokens:
    line = parts[0]
    for part in parts[1:]:
        line = line.then(part)
    return line


class Speech:
    """Tokens without a pause between them, and what a recogniser hears of a piece of them."""

    def __init__(self, seed: int, vocabulary: int, seconds: float = 120.0) -> None:
        self.random = np.random.default_rng(seed)
        lengths = self.random.uniform(0.12, 0.32, int(seconds / 0.12))
        self.ends = np.cumsum(lengths)
        self.ends = self.ends[self.ends < seconds]
        self.starts = self.ends - lengths[: len(self.ends)]
        self.ids = self.random.integers(0, vocabulary, len(self.ends))

    def heard(self, start: float, end: float) -> Recognition:
        """Whole tokens with jittered times; a token cut by an edge is lost, kept, or heard as another."""
        tokens = []
        for token, begin, finish in zip(self.ids, self.starts, self.ends, strict=True):
            inside = min(finish, end) - max(begin, start)
            if inside <= 0:
                continue
            cut = begin < start or finish > end
            fate = self.random.integers(0, 3) if cut else 1
            if fate == 0:
                continue
            name = int(token) if fate == 1 else int(self.random.integers(5000, 6000))
            jitter = self.random.uniform(-0.03, 0.03, 2)
            tokens.append((name, max(begin, start) - start + jitter[0], min(finish, end) - start + jitter[1]))
        return recognition(sorted(tokens, key=lambda token: token[1]))

    def pieces(
        self, longest: float, overlap: tuple[float, float]
    ) -> list[tuple[float, float, float, Recognition]]:
        total, start, given, result = float(self.ends[-1]), 0.0, 0.0, []
        while True:
            end = min(total + 0.1, start + self.random.uniform(0.6, 1.0) * longest)
            result.append((start, max(0.0, given - start), end - start, self.heard(start, end)))
            if end >= total:
                return result
            given, start = end, end - self.random.uniform(*overlap)


@pytest.mark.parametrize("vocabulary", [4000, 12, 3])
@pytest.mark.parametrize(("longest", "overlap"), [(30.0, (1.0, 2.0)), (12.0, (1.0, 2.0)), (6.0, (1.0, 1.5))])
def test_joined_equals_the_original(vocabulary: int, longest: float, overlap: tuple[float, float]) -> None:
    for seed in range(25):
        speech = Speech(seed, vocabulary)
        line = collect(Joiner(), speech.pieces(longest, overlap))
        assert line.ids.tolist() == speech.ids.tolist(), f"seed {seed}"
        assert np.abs(line.starts - speech.starts).max() < 0.1
        assert (np.diff(line.starts) >= 0).all() and (line.ends >= line.starts).all()


def test_small_overlaps_of_short_segments_keep_every_word_too() -> None:
    wrong = total = 0
    for seed in range(40):
        speech = Speech(seed, 4000)
        line = collect(Joiner(), speech.pieces(5.0, (0.6, 1.25)))
        total += 1
        wrong += line.ids.tolist() != speech.ids.tolist()
    assert wrong == 0, f"{wrong} of {total}"


def test_one_repeated_token_is_neither_lost_nor_doubled() -> None:
    # "8888888888" at five a second: every token equals its neighbours, only time tells them apart.
    starts = np.arange(50) * 0.2
    first = recognition([(8, t, t + 0.2) for t in starts if t < 6.0])
    second = recognition([(8, t - 4.5 + 0.02, t - 4.3) for t in starts if t >= 4.5])
    line = collect(Joiner(), [(0.0, 0.0, 6.0, first), (4.5, 1.5, 5.5, second)])
    assert len(line) == 50


def test_without_overlap_everything_is_kept_and_times_are_absolute() -> None:
    first, second = recognition([(1, 0.0, 0.2), (2, 0.8, 1.0)]), recognition([(2, 0.0, 0.2), (3, 0.5, 0.7)])
    line = collect(Joiner(), [(10.0, 0.0, 1.0, first), (11.0, 0.0, 1.0, second)])
    assert line.ids.tolist() == [1, 2, 2, 3]
    assert np.allclose(line.starts, [10.0, 10.8, 11.0, 11.5], atol=1e-6)


def test_without_a_common_token_the_middle_decides() -> None:
    first = recognition([(1, 8.0, 8.2), (2, 8.7, 8.9), (9, 9.8, 10.0)])
    second = recognition([(7, 0.0, 0.1), (3, 1.2, 1.4), (4, 2.5, 2.7)])
    line = collect(Joiner(), [(0.0, 0.0, 10.0, first), (8.0, 2.0, 4.0, second)])
    assert line.ids.tolist() == [1, 2, 3, 4]


def test_a_side_that_heard_nothing_takes_nothing_away() -> None:
    words, nothing = recognition([(1, 8.2, 8.4), (2, 9.2, 9.4)]), recognition([])
    assert collect(Joiner(), [(0, 0, 10, words), (8, 2, 4, nothing)]).ids.tolist() == [1, 2]
    late = recognition([(3, 0.3, 0.5), (4, 1.4, 1.6)])
    assert collect(Joiner(), [(0, 0, 10, nothing), (8, 2, 4, late)]).ids.tolist() == [3, 4]


def test_tokens_come_out_as_soon_as_they_are_settled() -> None:
    joiner = Joiner()
    tokens = recognition([(index, index * 0.5, index * 0.5 + 0.3) for index in range(20)])
    early = joiner.add(0.0, 0.0, 10.0, tokens)
    assert len(early) >= 14
    assert len(joiner.flush()) == 20 - len(early)
    assert len(joiner.flush()) == 0


def test_words_are_found_again_though_one_side_has_them_a_token_too_late() -> None:
    """As a network does that counts half a word at its edge: every start is the word's before."""
    said = [11, 12, 13, 14, 15, 16, 17, 18]
    starts = np.array([0.3, 0.8, 1.3, 1.8, 2.3, 2.8, 3.3, 3.8], np.float32)
    earlier = Recognition(np.array(said[:6], np.int32), starts[:6], starts[:6] + 0.2)
    # The overlap is 1.5 .. 3.0 s; the later side begins with half of 13, and 0.5 s is missing in each of its times.
    later = Recognition(
        np.array([99, *said[3:]], np.int32), np.maximum(0.0, starts[2:] - 2.0), starts[2:] - 1.8
    )
    joiner = Joiner()
    line = joiner.add(0.0, 0.0, 3.0, earlier).ids.tolist()
    line += joiner.add(1.5, 1.5, 3.0, later).ids.tolist() + joiner.flush().ids.tolist()
    assert line == said


def test_one_equal_token_far_away_is_a_chance() -> None:
    earlier = Recognition(
        np.array([11, 12, 13], np.int32),
        np.array([0.3, 1.3, 2.0], np.float32),
        np.array([0.5, 1.5, 2.2], np.float32),
    )
    later = Recognition(
        np.array([21, 13, 22], np.int32),
        np.array([0.2, 1.2, 2.2], np.float32),
        np.array([0.4, 1.4, 2.4], np.float32),
    )
    joiner = Joiner()
    line = joiner.add(0.0, 0.0, 3.0, earlier).ids.tolist()
    line += joiner.add(1.5, 1.5, 3.0, later).ids.tolist() + joiner.flush().ids.tolist()
    assert line == [11, 12, 13, 13, 22], "cut in the middle of the overlap, at 2.25 s"


def test_what_a_next_segment_might_share_waits() -> None:
    """3 s and a margin of 0.3 s: of a segment up to 10 s, tokens that begin before 6.7 s are final."""
    joiner = Joiner()
    early = joiner.add(0.0, 0.0, 10.0, recognition([(1, 6.6, 6.65), (2, 6.75, 6.8), (3, 9.9, 10.0)]))
    assert early.ids.tolist() == [1]
    held = joiner.add(20.0, 0.0, 10.0, recognition([(4, 0.0, 0.2)]))
    assert held.ids.tolist() == [2, 3, 4], "after silence nothing is shared any more"


def test_the_pair_nearest_the_middle_joins_the_sides() -> None:
    """Both heard 5, 6 and 7 in the overlap from 8 to 10 s; before 6 the earlier side counts, after it the later."""
    earlier = recognition([(1, 7.0, 7.2), (5, 8.2, 8.4), (6, 8.9, 9.1), (7, 9.6, 9.8), (91, 9.9, 10.0)])
    later = recognition(
        [(92, 0.0, 0.1), (5, 0.2, 0.4), (93, 0.5, 0.6), (6, 0.95, 1.1), (7, 1.62, 1.8), (8, 2.5, 2.7)]
    )
    line = collect(Joiner(), [(0.0, 0.0, 10.0, earlier), (8.0, 2.0, 4.0, later)])
    assert line.ids.tolist() == [1, 5, 6, 7, 8]
    assert line.starts.tolist() == pytest.approx([7.0, 8.2, 8.9, 9.62, 10.5], abs=1e-6)


@pytest.mark.parametrize(("apart", "joined"), [(0.24, [1, 5, 2]), (0.26, [1, 5, 5, 2])])
def test_one_token_is_the_same_when_it_begins_within_a_quarter_of_a_second(
    apart: float, joined: list[int]
) -> None:
    earlier = recognition([(1, 7.0, 7.2), (5, 8.9, 8.95)])
    later = recognition([(5, 0.9 + apart, 1.3), (2, 2.5, 2.7)])
    line = collect(Joiner(), [(0.0, 0.0, 10.0, earlier), (8.0, 2.0, 4.0, later)])
    assert line.ids.tolist() == joined


def test_what_lies_outside_the_overlap_is_no_copy_of_what_lies_in_it() -> None:
    """A token said twice, 0.2 s apart: once before the overlap's margin, once after it."""
    earlier = recognition([(5, 7.6, 7.65), (1, 8.4, 8.5)])
    later = recognition([(5, 0.0, 0.1), (1, 0.4, 0.5), (2, 2.5, 2.7)])
    line = collect(Joiner(), [(0.0, 0.0, 10.0, earlier), (8.0, 2.0, 4.0, later)])
    assert line.ids.tolist() == [5, 1, 2], (
        "the pair in the overlap joins them, and 5 was heard by the earlier side"
    )


def test_a_side_whose_words_end_before_the_overlap_takes_no_part() -> None:
    earlier = recognition([(1, 7.0, 7.9)])
    later = recognition([(2, 0.1, 0.3), (3, 1.9, 2.0)])
    assert collect(Joiner(), [(0, 0, 10, earlier), (8, 2, 4, later)]).ids.tolist() == [1, 2, 3]
    heard = recognition([(1, 7.0, 7.9), (4, 9.7, 9.9)])
    silent = recognition([(3, 2.1, 2.4)])
    assert collect(Joiner(), [(0, 0, 10, heard), (8, 2, 4, silent)]).ids.tolist() == [1, 4, 3]


def test_a_long_token_counts_where_it_begins() -> None:
    """Its end may lie far in a pause: 8.8 to 11 s would be centred behind the middle, at 9 s, and be lost."""
    earlier = recognition([(1, 8.8, 9.9)])
    later = recognition([(2, 1.1, 1.3), (3, 2.5, 2.7)])
    assert collect(Joiner(), [(0, 0, 10, earlier), (8, 2, 4, later)]).ids.tolist() == [1, 2, 3]


def test_times_ascend_across_a_joint_and_no_token_ends_before_it_begins() -> None:
    earlier = recognition([(1, 8.0, 8.2), (5, 9.1, 9.3)])
    later = recognition([(5, 1.0, 1.1), (2, 1.05, 1.08), (3, 2.5, 2.7)])
    line = collect(Joiner(), [(0, 0, 10, earlier), (8, 2, 4, later)])
    assert line.ids.tolist() == [1, 5, 2, 3]
    assert line.starts.tolist() == pytest.approx([8.0, 9.1, 9.1, 10.5], abs=1e-6)
    assert line.ends.tolist() == pytest.approx([8.2, 9.3, 9.1, 10.7], abs=1e-6)


def test_a_segment_without_words_is_empty_in_every_part() -> None:
    nothing = Recognition.nothing()
    assert [(len(part), part.dtype.kind) for part in (nothing.ids, nothing.starts, nothing.ends)] == [
        *((0, "i"), (0, "f"), (0, "f")),
    ]
    assert len(Joiner().add(0.0, 0.0, 1.0, nothing)) == 0


def test_a_copy_just_behind_the_overlap_s_end_is_a_copy() -> None:
    """Times are not exact: the later side has the word 0.2 s late, beyond the 10 s at which the overlap ends."""
    earlier = recognition([(1, 7.0, 7.2), (5, 9.95, 10.0)])
    later = recognition([(5, 2.15, 2.3), (2, 3.0, 3.2)])
    line = collect(Joiner(), [(0.0, 0.0, 10.0, earlier), (8.0, 2.0, 4.0, later)])
    assert line.ids.tolist() == [1, 5, 2]
    assert line.starts.tolist() == pytest.approx([7.0, 9.95, 11.0], abs=1e-6)


@pytest.mark.parametrize(("late", "joined"), [(0.7, [12, 13, 14]), (1.5, [12, 13, 12, 13, 14])])
def test_two_words_in_order_are_found_again_up_to_a_second_away(late: float, joined: list[int]) -> None:
    """Where no word pairs nearer; further away they were said twice."""
    earlier = recognition([(12, 8.0, 8.2), (13, 8.3, 8.5)])
    later = recognition([(12, 1.0 + late, 1.1 + late), (13, 1.3 + late, 1.4 + late), (14, 3.5, 3.7)])
    line = collect(Joiner(), [(0.0, 0.0, 10.0, earlier), (7.0, 3.0, 4.0, later)])
    assert line.ids.tolist() == joined


def test_one_pair_at_its_place_is_worth_more_than_two_that_are_shifted() -> None:
    """8 at 9.0 and 9.2 on one side, at 9.2 and 9.4 on the other: three times 8, not two."""
    earlier = recognition([(8, 9.0, 9.1), (8, 9.2, 9.3)])
    later = recognition([(8, 1.2, 1.3), (8, 1.4, 1.5)])
    line = collect(Joiner(), [(0.0, 0.0, 10.0, earlier), (8.0, 2.0, 4.0, later)])
    assert line.starts.tolist() == pytest.approx([9.0, 9.2, 9.4], abs=1e-6)


def test_pairs_are_found_whatever_lies_between_them() -> None:
    first = TimedTokens(np.array([1, 2, 9, 3, 4]), 0.3 * np.arange(5.0), 0.3 * np.arange(5.0) + 0.1)
    second = TimedTokens(
        np.array([7, 1, 2, 3, 8, 4]), np.array([0.0, 0.02, 0.35, 0.95, 1.0, 1.2]), np.ones(6)
    )
    assert _pairs(first, second, 0.25) == [(0, 1), (1, 2), (3, 3), (4, 5)]
    assert _pairs(first, second.part(1, 3), 0.25) == [(0, 0), (1, 1)]
    assert _pairs(first.part(2, 3), second, 0.25) == []

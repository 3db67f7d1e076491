"""Segments hold all speech, stay within their limit, and are decided without holding the file."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable, Iterator

import numpy as np
import pytest

from app.asr.errors import InputError
from app.asr.segments import MERGE_SECONDS, Segment, _Ring, cut
from app.asr.silero import CHUNK
from app.asr.vad import SpeechDetector

RATE = 16_000


class LoudIsSpeech:
    """A scorer for tests: a chunk with any sample above 0.01 (before gain, 0.32 after) is speech."""

    def score(self, chunks: np.ndarray) -> np.ndarray:
        return (np.abs(chunks).max(axis=1) > 0.2).astype(np.float32)


def pattern(*parts: tuple[str, float], seed: int = 0) -> np.ndarray:
    """Noise bursts ("speech") and silence of the given seconds."""
    random = np.random.default_rng(seed)
    pieces = [
        random.uniform(-0.5, 0.5, round(seconds * RATE))
        if kind == "speech"
        else np.zeros(round(seconds * RATE))
        for kind, seconds in parts
    ]
    return np.concatenate(pieces).astype(np.float32)


def blocks(samples: np.ndarray, size: int = RATE) -> Iterator[np.ndarray]:
    for start in range(0, len(samples), size):
        yield samples[start : start + size]


def segments_of(
    samples: np.ndarray, max_seconds: float = 30.0, size: int = RATE, join_seconds: float | None = None
) -> list[Segment]:
    detector = SpeechDetector(scorer=LoudIsSpeech())
    parts = cut(blocks(samples, size), max_seconds=max_seconds, join_seconds=join_seconds, detector=detector)
    return list(parts)


def check(segments: Iterable[Segment], samples: np.ndarray, max_seconds: float) -> np.ndarray:
    """What holds always; returns which samples are covered."""
    covered = np.zeros(len(samples), bool)
    end = 0
    for index, segment in enumerate(segments):
        stop = segment.start + len(segment.samples)
        assert segment.index == index
        assert 0 < len(segment.samples) <= max_seconds * RATE
        assert np.array_equal(segment.samples, samples[segment.start : stop])
        assert segment.overlap == max(0, end - segment.start) <= min(3 * RATE, len(segment.samples))
        assert stop > end
        covered[segment.start : stop] = True
        end = stop
    return covered


@pytest.mark.parametrize("max_seconds", [5, 7.5, 12, 20, 30, 60, 90, 120])
@pytest.mark.parametrize("seed", range(6))
def test_all_speech_is_covered_within_the_limit(max_seconds: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    parts: list[tuple[str, float]] = []
    for _ in range(12):
        parts += [
            ("speech", random.choice([0.1, 0.5, 3, 12, 45])),
            ("silence", random.choice([0.1, 0.4, 0.9, 1.6, 8])),
        ]
    samples = pattern(*parts, seed=seed)
    covered = check(segments_of(samples, max_seconds), samples, max_seconds)
    assert not (np.abs(samples) > 0.01)[~covered].any()


@pytest.mark.parametrize("size", [999, 8192, 50_000, 10_000_000])
def test_block_size_does_not_matter(size: int) -> None:
    samples = pattern(("speech", 20), ("silence", 0.6), ("speech", 50), ("silence", 3), ("speech", 1))
    for one, other in zip(segments_of(samples, 12), segments_of(samples, 12, size), strict=True):
        assert (one.start, one.overlap, len(one.samples)) == (other.start, other.overlap, len(other.samples))


@pytest.mark.parametrize("seconds", [0, 1 / RATE, 0.1, 40])
def test_silence_gives_no_segment(seconds: float) -> None:
    assert segments_of(pattern(("silence", seconds))) == []


def test_first_and_last_samples_are_kept() -> None:
    samples = pattern(("speech", 4.321))
    (segment,) = segments_of(samples)
    assert segment.start == 0 and len(segment.samples) == len(samples)


def test_near_spans_are_merged_with_their_silence_and_far_ones_are_not() -> None:
    samples = pattern(("speech", 2), ("silence", 1.2), ("speech", 2), ("silence", 2.0), ("speech", 2))
    first, second = segments_of(samples)
    assert first.start == 0 and first.samples[int(2.5 * RATE)] == 0.0
    assert second.start > 7.2 * RATE - RATE / 2
    assert MERGE_SECONDS == 1.0


def test_sentences_are_joined_up_to_a_length_of_their_own() -> None:
    """What is said without a pause may be longer than what is joined."""
    samples = pattern(*[("speech", 4), ("silence", 0.8)] * 3, ("speech", 18))
    lengths = [round(len(one.samples) / RATE) for one in segments_of(samples, 20, join_seconds=10)]
    assert lengths == [9, 4, 18]
    assert [round(len(one.samples) / RATE) for one in segments_of(samples, 20)] == [14, 18]
    assert len(segments_of(pattern(("speech", 4), ("silence", 0.8), ("speech", 4)), 5, join_seconds=60)) == 2


@pytest.mark.parametrize(("silence", "count"), [(1.3, 1), (1.7, 2)])
def test_silence_up_to_a_second_beside_the_padding_stays_inside(silence: float, count: int) -> None:
    """The detector adds a quarter of a second to either side, so 1.5 s of real silence is the limit."""
    assert len(segments_of(pattern(("speech", 2), ("silence", silence), ("speech", 2)))) == count


def test_what_does_not_fit_is_parted_at_silence() -> None:
    samples = pattern(("speech", 6), ("silence", 0.8), ("speech", 6))
    first, second = segments_of(samples, 10)
    assert second.overlap == 0
    assert first.start + len(first.samples) <= 6.8 * RATE
    assert second.start >= 6 * RATE


def test_a_hard_cut_falls_on_the_quietest_moment_with_overlap() -> None:
    samples = pattern(("speech", 40))
    quiet = slice(int(24.0 * RATE), int(24.15 * RATE))
    samples[quiet] *= 0.15
    first, second = segments_of(samples, 30)
    assert 1.5 * RATE <= second.overlap <= 3 * RATE
    middle = (second.start + first.start + len(first.samples)) / 2
    assert abs(middle - 24.075 * RATE) < 0.05 * RATE


@pytest.mark.parametrize("beyond", [0.9, 1.2])
def test_both_sides_of_a_hard_cut_end_where_it_is_quiet_too(beyond: float) -> None:
    """Around the moment at 24 s there are pauses as far before it as after it; those nearer than 0.75 s are too near
    for an overlap, and one at 25.05 s has no other half."""
    samples = pattern(("speech", 40))
    pauses = (
        (24.0, 0.02),
        (25.05, 0.5),
        (23.4, 0.1),
        (24.6, 0.1),
        (24.0 - beyond, 0.2),
        (24.0 + beyond, 0.2),
    )
    for moment, level in pauses:
        samples[int((moment - 0.06) * RATE) : int((moment + 0.06) * RATE)] *= level
    first, second = segments_of(samples, 30)
    assert second.start / RATE == pytest.approx(24.0 - beyond, abs=0.03)
    assert (first.start + len(first.samples)) / RATE == pytest.approx(24.0 + beyond, abs=0.03)


@pytest.mark.parametrize(("max_seconds", "least", "most"), [(5, 0.8, 1.67), (9, 1.5, 3.0), (120, 1.5, 3.0)])
def test_overlap_is_scaled_down_for_short_segments(max_seconds: float, least: float, most: float) -> None:
    segments = segments_of(pattern(("speech", 2.5 * max_seconds)), max_seconds)
    assert len(segments) >= 3
    for segment in segments[1:]:
        assert least <= segment.overlap / RATE <= most


def test_speech_that_ends_just_after_a_hard_cut_is_not_given_twice() -> None:
    for extra in np.arange(-0.6, 1.5, 0.1):
        samples = pattern(("speech", 10 + extra), ("silence", 5))
        covered = check(segments_of(samples, 10), samples, 10)
        assert not (np.abs(samples) > 0.01)[~covered].any()


def test_segments_come_as_soon_as_they_are_decided() -> None:
    taken = 0

    def feed() -> Iterator[np.ndarray]:
        nonlocal taken
        for block in blocks(pattern(("speech", 3), ("silence", 4), ("speech", 100)), CHUNK * 16):
            taken += len(block)
            yield block

    stream = cut(feed(), max_seconds=20, detector=SpeechDetector(scorer=LoudIsSpeech()))
    next(stream)
    assert taken < 6 * RATE
    next(stream)
    assert taken < 29 * RATE


@pytest.mark.parametrize("kind", ["silence", "speech"])
def test_memory_does_not_grow_with_length(kind: str) -> None:
    minute = pattern((kind, 60))

    def hour() -> Iterator[np.ndarray]:
        for _ in range(60):
            yield from blocks(minute)

    tracemalloc.start()
    count = sum(1 for _ in cut(hour(), max_seconds=30, detector=SpeechDetector(scorer=LoudIsSpeech())))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (count > 100) == (kind == "speech")
    # The ring before and after it grows, one segment on its way out, and change: 4 bytes a sample.
    assert peak < 4 * RATE * 4 * 36


def test_samples_that_are_gone_or_not_yet_there_are_silence() -> None:
    ring = _Ring()
    for first in range(0, 200_000, 1000):
        ring.append(np.arange(first, first + 1000, dtype=np.float32))
        ring.drop_before(first - 20_000)
    assert ring.end == 200_000
    assert ring.take(199_990, 200_005).tolist() == [*range(199_990, 200_000), *[0.0] * 5]
    oldest = 199_000 - 20_000
    assert ring.take(oldest - 3, oldest + 2).tolist() == [0.0] * 3 + [oldest, oldest + 1]
    assert ring.take(300_000, 300_002).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("max_seconds", [0, 4.99, 120.1, float("nan")])
def test_limits_outside_the_range_are_refused(max_seconds: float) -> None:
    with pytest.raises(InputError, match="limits"):
        cut(iter([]), max_seconds=max_seconds)

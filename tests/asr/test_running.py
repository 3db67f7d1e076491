"""Whatever the device does, every segment comes out right, in order, and once; or there is a clear error."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from app.asr.backend import EncodedHotwords
from app.asr.errors import AsrError, DeviceLostError, DeviceMemoryError, NumericError, ResourceError
from app.asr.joining import Recognition
from app.asr.memory import MIB, SIDE_BY_SIDE_BYTES, Budget, CostModel, calibrate
from app.asr.running import OVERLAP_FRAMES, BatchRunner, Prepared, Station
from tests.fakes.backend import FakeBackend, FakeMemory, speech

COST = CostModel(fixed=1 * MIB, per_frame=20_000)


def _segments(seed: int, count: int = 60, longest: int = 90) -> list[Prepared]:
    rng = random.Random(seed)
    return [speech([rng.randrange(3, 9000) for _ in range(rng.randrange(1, longest))]) for _ in range(count)]


def _station(backend: FakeBackend, cost: CostModel = COST, working: int | None = None) -> Station:
    return Station(backend, Budget(backend.memory, limit=None, working=working, reserve=0), cost)


def _check(runner: BatchRunner, segments: list[Prepared], words: list[list[int]] | None = None) -> None:
    hotwords = runner.backend.encode_hotwords(words) if words else None
    for segment, found in zip(segments, runner.run(segments, hotwords), strict=True):
        assert found.ids.tolist() == segment[segment[:, 0] > 0, 0].tolist()


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("total", [4, 8, 40, 4000])
def test_everything_comes_out_in_order_within_the_memory_there_is(seed: int, total: int) -> None:
    backend = FakeBackend(FakeMemory(total * MIB), COST)
    runner = BatchRunner(_station(backend), batch_size=None)
    _check(runner, _segments(seed), [[1, 2]] * 3)
    assert runner.statistics.out_of_memory == 0, "the prediction was right, so nothing may fail"
    assert runner.statistics.padding <= 0.1
    if total == 4000:
        assert len(backend.ran) < 40


def test_batch_size_is_a_hard_cap() -> None:
    backend = FakeBackend(FakeMemory(4000 * MIB), COST)
    _check(BatchRunner(_station(backend), batch_size=3), _segments(1))
    assert max(shape.rows for shape in backend.ran) == 3


def test_other_programs_come_and_go() -> None:
    memory = FakeMemory(100 * MIB)
    backend = FakeBackend(memory, COST)
    runner = BatchRunner(_station(backend), batch_size=None)
    for others in (0, 80, 20, 94, 0):
        memory.others = others * MIB
        _check(runner, _segments(others, count=20))
    assert runner.statistics.out_of_memory == 0 and runner.statistics.fallbacks == []
    assert runner.statistics.cut_segments > 0


@pytest.mark.parametrize("seed", range(5))
def test_a_wrong_prediction_is_halved_retried_remembered_and_counted(seed: int) -> None:
    backend = FakeBackend(FakeMemory(60 * MIB), CostModel(COST.fixed * 4, COST.per_frame * 4))
    runner = BatchRunner(_station(backend), batch_size=None)
    _check(runner, _segments(seed))
    failures = runner.statistics.out_of_memory
    assert failures > 0 and backend.released == failures
    _check(runner, _segments(seed + 100))
    assert runner.statistics.out_of_memory - failures <= 2, "what was learned must be remembered"


def test_the_plan_is_told_beside_what_was_taken() -> None:
    backend = FakeBackend(FakeMemory(60 * MIB), COST)
    runner = BatchRunner(_station(backend, working=8 * MIB), batch_size=None)
    assert "budget_bytes=None, predicted_bytes=None" in repr(runner.statistics)
    _check(runner, _segments(1))
    assert runner.statistics.budget_bytes == 8 * MIB
    assert (
        runner.statistics.predicted_bytes
        == max(COST.bytes(shape) for shape in backend.ran) + backend.memory.held()
    )


def test_halving_works_where_measuring_showed_no_cost() -> None:
    """Probes in memory that was there already take nothing; a batch that fails must get smaller all the same."""
    seen_nothing = calibrate(lambda _: 0, one_at_a_time=False, with_hotwords=False)
    backend = FakeBackend(FakeMemory(60 * MIB), CostModel(1 * MIB, 100_000))
    runner = BatchRunner(_station(backend, seen_nothing), batch_size=None)
    _check(runner, _segments(3, longest=20))
    assert runner.statistics.out_of_memory > 0 and runner.statistics.fallbacks == []


def test_halving_leaves_room_for_what_every_batch_takes() -> None:
    """Half of a prediction that is mostly constant would be less than the smallest batch needs."""
    backend = FakeBackend(FakeMemory(60 * MIB), CostModel(32 * MIB, COST.per_frame * 3))
    runner = BatchRunner(_station(backend, CostModel(32 * MIB, COST.per_frame)), batch_size=None)
    _check(runner, _segments(7, longest=20))
    assert runner.statistics.out_of_memory > 0 and runner.statistics.fallbacks == []


def test_a_segment_that_fits_in_no_batch_is_cut_and_joined_again() -> None:
    backend = FakeBackend(FakeMemory(7 * MIB), COST)
    segment = speech([7 + index % 50 for index in range(200)])
    runner = BatchRunner(_station(backend), batch_size=None)
    _check(runner, [segment])
    assert runner.statistics.cut_segments >= 1
    assert len(backend.ran) * OVERLAP_FRAMES < 4000


def test_without_room_for_a_piece_the_next_backend_takes_over_with_the_reason() -> None:
    gpu = FakeBackend(FakeMemory(2 * MIB), COST)
    cpu = FakeBackend(FakeMemory(4000 * MIB), COST, device="cpu")
    told: list[AsrError] = []

    def fallback(error: AsrError) -> Station:
        told.append(error)
        return _station(cpu)

    runner = BatchRunner(_station(gpu), batch_size=None, fallback=fallback)
    _check(runner, _segments(3), [[5]])
    assert len(told) == 1 and isinstance(told[0], DeviceMemoryError)
    used: object = runner.backend
    assert used is cpu and runner.statistics.fallbacks == [told[0].problem]


def test_without_another_backend_it_is_refused() -> None:
    runner = BatchRunner(_station(FakeBackend(FakeMemory(2 * MIB), COST)), batch_size=None)
    with pytest.raises(ResourceError, match="has no room for"):
        runner.run(_segments(1), None)


def test_results_that_are_not_finite_are_computed_elsewhere() -> None:
    gpu = FakeBackend(FakeMemory(4000 * MIB), COST, failing=NumericError("NaN", fix="fp32"))
    cpu = FakeBackend(FakeMemory(4000 * MIB), COST, device="cpu")
    runner = BatchRunner(_station(gpu), batch_size=None, fallback=lambda _: _station(cpu))
    _check(runner, _segments(2))
    alone = BatchRunner(_station(gpu), batch_size=None)
    with pytest.raises(NumericError):
        alone.run(_segments(2), None)


def test_a_lost_device_ends_the_work_and_is_not_tried_again() -> None:
    backend = FakeBackend(FakeMemory(4000 * MIB), COST, failing=DeviceLostError("gone", fix="restart"))
    runner = BatchRunner(_station(backend), batch_size=None, fallback=lambda _: pytest.fail("not asked for"))
    with pytest.raises(DeviceLostError):
        runner.run(_segments(1), None)


def test_without_a_cost_model_segments_run_one_by_one() -> None:
    backend = FakeBackend(FakeMemory(4000 * MIB), COST)
    runner = BatchRunner(Station(backend), batch_size=8)
    _check(runner, _segments(4, count=5))
    assert [shape.rows for shape in backend.ran] == [1] * 5 and runner.most_rows == 1


def test_a_device_that_never_has_room_is_left_after_some_tries_and_each_is_counted() -> None:
    """Even of a thousand segments at once the eighth try is the last."""

    class FullBackend(FakeBackend):
        def recognise(self, batch: Sequence[Prepared], hotwords: EncodedHotwords | None) -> list[Recognition]:
            raise DeviceMemoryError("no room", fix="none")

    gpu = FullBackend(FakeMemory(4000 * MIB), COST, most_rows=1024)
    cpu = FakeBackend(FakeMemory(4000 * MIB), COST, device="cpu")
    runner = BatchRunner(_station(gpu), batch_size=None, fallback=lambda _: _station(cpu))
    _check(runner, [speech([7]) for _ in range(1024)])
    assert runner.statistics.out_of_memory == gpu.released == 8
    [told] = runner.statistics.fallbacks
    assert "ran out of memory 8 times" in told and told.startswith("fake:0")


def test_the_longest_segment_follows_the_memory_there_is() -> None:
    backend = FakeBackend(FakeMemory(9 * MIB), COST)
    runner = BatchRunner(_station(backend), batch_size=None)
    fits = COST.longest(9 * MIB)
    assert runner.longest_seconds(None) == pytest.approx(fits * 0.06)
    with_words = BatchRunner(_station(backend, CostModel(1 * MIB, 20_000, 0.0, 100.0)), batch_size=None)
    shorter = with_words.longest_seconds(backend.encode_hotwords([[1]] * 199))
    assert shorter == pytest.approx(fits / 2 * 0.06, abs=0.5), "200 hot words take as much as the frames"
    assert BatchRunner(Station(backend), batch_size=None).longest_seconds(None) is None
    limited = Station(backend, longest_seconds=30.0)
    assert BatchRunner(limited, batch_size=None).longest_seconds(None) == 30.0


def test_what_is_offered_at_once_is_the_smaller_of_backend_and_user() -> None:
    backend = FakeBackend(FakeMemory(4000 * MIB), COST, most_rows=16)
    sizes = [BatchRunner(_station(backend), batch_size=size).most_rows for size in (None, 4, 64)]
    assert sizes == [16, 4, 16]


def test_what_has_run_is_counted_to_the_frame() -> None:
    backend = FakeBackend(FakeMemory(4000 * MIB), COST)
    runner = BatchRunner(_station(backend), batch_size=None)
    assert runner.statistics.padding == 0.0, "nothing has run"
    _check(runner, [speech([5] * tokens) for tokens in (20, 19, 3)])
    counted = runner.statistics
    assert (counted.batches, counted.segments, counted.frames, counted.padded_frames) == (2, 3, 420, 430)
    assert counted.padding == pytest.approx(10 / 430)


def test_segments_side_by_side_share_a_batch_without_padding() -> None:
    backend = FakeBackend(FakeMemory(4000 * MIB), COST, most_rows=2, pads=False)
    runner = BatchRunner(_station(backend), batch_size=None)
    _check(runner, [speech([5] * tokens) for tokens in (20, 3, 9)])
    assert [shape.rows for shape in backend.ran] == [2, 1]
    assert runner.statistics.frames == runner.statistics.padded_frames == 320


def test_side_by_side_stay_small_however_much_memory_there_is() -> None:
    large = CostModel(0, 20_000, per_row=SIDE_BY_SIDE_BYTES // 3)
    backend = FakeBackend(FakeMemory(4000 * MIB), large, most_rows=8, pads=False)
    _check(BatchRunner(_station(backend, large), batch_size=None), [speech([5] * 9) for _ in range(6)])
    assert [shape.rows for shape in backend.ran] == [2, 2, 2]


def test_one_less_side_by_side_when_both_do_not_fit() -> None:
    """What each takes by itself is not halved away: the next try is one segment."""
    foretold, true = CostModel(0, 20_000, per_row=8 * MIB), CostModel(0, 20_000, per_row=16 * MIB)
    backend = FakeBackend(FakeMemory(30 * MIB), true, most_rows=2, pads=False)
    runner = BatchRunner(_station(backend, foretold), batch_size=None)
    _check(runner, [speech([5] * 9) for _ in range(6)])
    assert {shape.rows for shape in backend.ran} == {1} and runner.statistics.fallbacks == []
    assert 1 <= runner.statistics.out_of_memory <= 3

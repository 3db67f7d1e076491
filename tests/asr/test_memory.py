"""The cost model finds what probes show, the budget follows the device, and measurements are kept."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from app.asr import host, memory
from app.asr.host import MemoryGrant
from app.asr.memory import (
    GPU_RESERVE_BYTES,
    HOST_RESERVE_BYTES,
    MIB,
    PROBE_HOTWORDS,
    WORKING_BYTES,
    BatchShape,
    Budget,
    CostModel,
    HostMemory,
    MeasurementStore,
    cache_directory,
    calibrate,
    probe_with,
)
from tests.fakes.backend import FakeBackend, FakeMemory


def test_a_prediction_by_hand() -> None:
    """Two rows of 13 frames are padded to 16: 1000 + 32 x (10 + 2 x 16), and half a byte a frame for each hot word."""
    cost = CostModel(1000, 10, 2.0, 0.5)
    assert cost.bytes(BatchShape(2, 13)) == 1000 + 32 * 42
    assert cost.bytes(BatchShape(2, 13, 6)) == 1000 + 32 * 42 + 96
    assert cost.bytes(BatchShape(2, 16)) == cost.bytes(BatchShape(2, 9)) < cost.bytes(BatchShape(2, 17))
    assert CostModel(1000, 10).bytes(BatchShape(1, 8, 100)) == 1080, "terms that are not given cost nothing"


def test_memory_that_is_told_to_users() -> None:
    """docs/devices.md: 64 MiB are left to others, and a batch has 120 MiB; the goal is 128 MiB beside the weights."""
    assert GPU_RESERVE_BYTES == HOST_RESERVE_BYTES == 64 * 1024**2
    assert WORKING_BYTES == 120 * 1024**2


@pytest.mark.parametrize("one_at_a_time", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_calibration_finds_the_costs_it_is_shown(seed: int, one_at_a_time: bool) -> None:
    rng = random.Random(seed)
    true = CostModel(
        rng.uniform(1e6, 5e7), rng.uniform(1e4, 2e5), rng.choice([0.0, 40.0]), rng.uniform(0, 40)
    )
    asked: list[BatchShape] = []

    def measure(shape: BatchShape) -> int:
        asked.append(shape)
        return true.bytes(shape)

    found = calibrate(measure, one_at_a_time=one_at_a_time, with_hotwords=True)
    for rows, frames in ((1, 2000), (32, 200), (4, 500)):
        for words in (0, 1000):
            shape = BatchShape(1 if one_at_a_time else rows, frames, words)
            assert found.bytes(shape) == pytest.approx(true.bytes(shape), rel=0.02)
    assert max(shape.rows * shape.frames for shape in asked) <= 640, "probes must be small"
    assert {shape.hotwords for shape in asked} == {0, PROBE_HOTWORDS}
    if one_at_a_time:
        assert {shape.rows for shape in asked} == {1}, "such a backend cannot be asked for more"


def test_segments_side_by_side_each_take_what_one_alone_takes() -> None:
    found = calibrate(lambda shape: 10**7 + 10**5 * shape.frames, one_at_a_time=True, with_hotwords=False)
    alone = found.bytes(BatchShape(1, 400))
    assert found.least == pytest.approx(10**7, rel=0.01) and alone == pytest.approx(5 * 10**7, rel=0.01)
    assert found.bytes(BatchShape(3, 400)) == pytest.approx(3 * alone, abs=3)
    assert found.longest(alone - 1) < 400, "the constant counts here too"


@pytest.mark.parametrize("one_at_a_time", [False, True])
def test_what_is_set_up_once_is_not_the_cost_of_a_batch(one_at_a_time: bool) -> None:
    """The first batch, and the first with hot words, take what stays: room for libraries, tables, kernels."""
    true = CostModel(1e6, 1e4, 40.0, 30.0)
    seen: set[bool] = set()

    def measure(shape: BatchShape) -> int:
        first = bool(shape.hotwords) not in seen
        seen.add(bool(shape.hotwords))
        return true.bytes(shape) + 500 * MIB * first

    found = calibrate(measure, one_at_a_time=one_at_a_time, with_hotwords=True)
    assert found.bytes(BatchShape(1, 800, 300)) == pytest.approx(
        true.bytes(BatchShape(1, 800, 300)), rel=0.02
    )


def test_hot_words_that_cost_nothing_are_foretold_as_nothing() -> None:
    found = calibrate(lambda shape: 1000 * shape.rows * shape.frames, one_at_a_time=False, with_hotwords=True)
    assert found.per_hotword_frame == pytest.approx(0.0, abs=1e-3)
    assert calibrate(lambda _: 0, one_at_a_time=False, with_hotwords=True).per_hotword_frame == 0.0


def test_a_cost_that_was_not_seen_is_that_of_the_features() -> None:
    """Of a frame: 560 numbers of 4 bytes. Without it halving a batch that failed would do nothing."""
    found = calibrate(lambda _: 0, one_at_a_time=False, with_hotwords=False)
    assert (found.fixed, found.per_frame, found.per_frame_squared) == (0.0, 2240.0, 0.0)


def test_where_a_straight_line_would_begin_below_nothing_there_is_no_constant() -> None:
    def steep(shape: BatchShape) -> int:
        return max(1, 10_000 * (shape.rows * shape.frames - 100))

    found = calibrate(steep, one_at_a_time=False, with_hotwords=False)
    assert found.fixed == 0.0 and found.per_frame > 5000


def test_probes_are_speech_of_the_length_and_number_asked_for() -> None:
    backend = FakeBackend(FakeMemory(4000 * MIB), CostModel(1 * MIB, 20_000, 0.0, 50.0))
    speech = np.arange(1.0, 11.0, dtype=np.float32)[:, None]
    measure = probe_with(backend, backend.memory, speech)
    for shape in (BatchShape(3, 25, 7), BatchShape(1, 10), BatchShape(2, 4)):
        assert measure(shape) == backend.true_cost.bytes(shape)
        assert backend.ran[-1] == shape
        for segment in backend.newest:
            assert segment[:, 0].tolist() == [1.0 + index % 10 for index in range(shape.frames)]
    assert probe_with(backend, backend.memory, speech[:1])(BatchShape(1, 7)) and backend.ran[-1].frames == 7


@pytest.mark.parametrize("seed", range(20))
def test_noise_never_makes_a_model_that_falls_with_length_or_below_what_was_seen(seed: int) -> None:
    rng = random.Random(seed)
    seen: dict[BatchShape, int] = {}

    def measure(shape: BatchShape) -> int:
        seen[shape] = int((2e7 + 3e4 * shape.rows * shape.frames) * rng.uniform(0.9, 1.1))
        return seen[shape]

    found = calibrate(measure, one_at_a_time=False, with_hotwords=False)
    assert min(found.fixed, found.per_frame, found.per_frame_squared) >= 0
    for shape, cost in seen.items():
        assert found.bytes(shape) >= cost - 1


def test_the_longest_segment_that_fits_fits_and_the_next_does_not() -> None:
    cost = CostModel(1e6, 1e4, 3.0)
    longest = cost.longest(50 * MIB)
    assert cost.bytes(BatchShape(1, longest)) <= 50 * MIB < cost.bytes(BatchShape(1, longest + 8))
    assert cost.longest(1000) == 0


def test_the_longest_segment_to_the_frame() -> None:
    cost = CostModel(1000, 10, 0.0, 1.0)
    assert cost.longest(1000 + 800) == 80
    assert cost.longest(1000 + 799) == 72, "frames are padded to eights"
    assert cost.longest(1000 + 1600, hotwords=10) == 80
    assert cost.longest(10**9, at_most=77) == 77
    assert cost.longest(1 << 60) == 1 << 20, "no file is asked for more"


def test_the_budget_is_the_smallest_of_its_bounds_and_is_read_anew() -> None:
    memory = FakeMemory(total=2000 * MIB, weights=500 * MIB)
    free = Budget(memory, limit=None, working=None, reserve=64 * MIB)
    assert free.now() == (1500 - 64) * MIB
    assert Budget(memory, limit=None, working=120 * MIB, reserve=64 * MIB).now() == 120 * MIB
    assert Budget(memory, limit=530 * MIB, working=None, reserve=64 * MIB).now() == 30 * MIB
    assert Budget(memory, limit=400 * MIB, working=None, reserve=0).now() == 0
    memory.others = 1490 * MIB
    assert free.now() == 0


def test_after_a_failure_batches_are_halved_and_trust_comes_back() -> None:
    memory = FakeMemory(total=1000 * MIB)
    budget = Budget(memory, limit=None, working=None, reserve=0)
    budget.did_not_fit(400 * MIB)
    assert budget.now() == 200 * MIB
    budget.did_not_fit(200 * MIB)
    assert budget.now() == 100 * MIB
    for _ in range(100):
        budget.fitted()
    assert 120 * MIB < budget.now() < 400 * MIB
    for _ in range(1000):
        budget.fitted()
    assert budget.now() == 1000 * MIB


def test_what_every_batch_takes_is_not_halved() -> None:
    budget = Budget(FakeMemory(1000 * MIB), limit=None, working=None, reserve=0)
    budget.did_not_fit(400 * MIB, 100 * MIB)
    assert budget.now() == pytest.approx((100 + (400 - 100) / 2) * MIB, abs=2)
    budget.did_not_fit(100 * MIB, 100 * MIB)  # nothing of it would get smaller
    assert budget.now() == pytest.approx(100 * MIB, abs=2)


def test_a_failure_of_a_small_prediction_makes_the_next_smaller_all_the_same() -> None:
    """Others took the memory: half of the prediction is above what there is, and it must not be tried again."""
    device = FakeMemory(100 * MIB)
    budget = Budget(device, limit=None, working=None, reserve=0)
    for _ in range(3):
        before = budget.now()
        budget.did_not_fit(1000 * MIB)
        assert budget.now() <= before / 1.25 + 1
    assert budget.now() == pytest.approx(100 * MIB / 1.25**3, rel=1e-6)


def test_measurements_are_kept_and_damage_is_not_fatal(tmp_path: Path) -> None:
    store = MeasurementStore(tmp_path / "new")
    assert store.get("card a") is None
    store.put("card a", CostModel(1.0, 2.0))
    store.put("card b", CostModel(3.0, 4.0, 5.0, 6.0))
    assert MeasurementStore(tmp_path / "new").get("card a") == CostModel(1.0, 2.0)
    assert store.get("card b") == CostModel(3.0, 4.0, 5.0, 6.0)
    (tmp_path / "new" / "memory.json").write_text("{ half", encoding="utf-8")
    assert store.get("card a") is None
    store.put("card a", CostModel(1.0, 2.0))
    assert store.get("card a") == CostModel(1.0, 2.0)
    (tmp_path / "file").write_text("", encoding="utf-8")
    MeasurementStore(tmp_path / "file").put("card", CostModel(1.0, 2.0))  # cannot be written: no error
    (tmp_path / "new" / "memory.json").write_text("[1]", encoding="utf-8")
    assert store.get("card a") is None
    (tmp_path / "taken" / "memory.json").mkdir(parents=True)
    MeasurementStore(tmp_path / "taken").put("card", CostModel(1.0, 2.0))
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["memory.json"], "no half file stays"


def test_where_measurements_are_kept() -> None:
    assert cache_directory({"ASR_CACHE_DIR": "/a", "HOME": "/h"}) == Path("/a")
    assert cache_directory({"XDG_CACHE_HOME": "/x", "HOME": "/h"}) == Path("/x/seaco-speech")
    assert cache_directory({"HOME": "/h"}) == Path("/h/.cache/seaco-speech")
    assert cache_directory({}) == Path("/tmp/.cache/seaco-speech")


def test_a_host_reuses_what_it_took_since_the_weights_were_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    resident = [500 * MIB]
    free: list[int | None] = [800 * MIB]
    monkeypatch.setattr(memory, "rss_bytes", lambda: resident[0])
    monkeypatch.setattr(memory, "memory_grant", lambda: MemoryGrant(None, free[0], None, None))
    monkeypatch.setattr(memory, "peak_rss_bytes", lambda: 900 * MIB)
    monkeypatch.setattr(memory, "peak_rss_during", lambda work: resident[0] + 30 * MIB)
    device = HostMemory()
    assert device.available() == 800 * MIB
    resident[0] = 570 * MIB
    assert device.available() == 870 * MIB
    assert device.held() == 500 * MIB, "the weights, and not what earlier batches left"
    assert device.peak_of(lambda: None) == 100 * MIB and device.peak() == 900 * MIB
    resident[0] = 450 * MIB  # given back to the system, which counts it as free already
    assert device.available() == 800 * MIB
    assert device.peak_of(lambda: None) == 0
    free[0] = None
    assert device.available() == 1 << 50, "where nothing is told, nothing is held against a batch"
    assert host.cpu_features().model in device.identity()


def test_a_host_sees_what_work_takes_and_remembers_its_highest_peak() -> None:
    memory = HostMemory()
    before = host.peak_rss_bytes()

    def take() -> None:
        bytearray(b"x") * (200 * MIB)

    assert memory.peak_of(take) >= 190 * MIB  # the kernel counts pages in portions
    highest = host.peak_rss_bytes()
    assert highest >= before + 100 * MIB
    assert memory.peak_of(lambda: None) < 150 * MIB, "the peak before must be forgotten"
    assert host.peak_rss_bytes() >= highest, "and still be told to those who ask for the process's peak"

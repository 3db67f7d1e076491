"""The cost model finds what probes show, the budget follows the device, and measurements are kept."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from app.asr import host
from app.asr.memory import (
    MIB,
    PROBE_HOTWORDS,
    BatchShape,
    Budget,
    CostModel,
    HostMemory,
    MeasurementStore,
    cache_directory,
    calibrate,
)
from tests.fakes.backend import FakeMemory


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


def test_where_measurements_are_kept() -> None:
    assert cache_directory({"ASR_CACHE_DIR": "/a", "HOME": "/h"}) == Path("/a")
    assert cache_directory({"XDG_CACHE_HOME": "/x", "HOME": "/h"}) == Path("/x/seaco-speech")
    assert cache_directory({"HOME": "/h"}) == Path("/h/.cache/seaco-speech")


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

"""Tests of app/bench/prediction.py: the grid, and memory foretold beside memory taken."""

from __future__ import annotations

import json

import pytest

from app.asr.catalogue import DEMO_PACKS
from app.asr.memory import MIB, BatchShape, CostModel
from app.asr.pack import Pack
from app.bench.prediction import as_text, compared, grid
from app.cli import main
from tests.fakes.backend import FakeBackend, FakeMemory

COST = CostModel(fixed=1 * MIB, per_frame=20_000)


def test_the_grid_goes_from_one_short_segment_to_many_long_ones() -> None:
    shapes = grid()
    assert BatchShape(1, 100, 0) in shapes and BatchShape(64, 1000, 1000) in shapes
    assert all(shape.rows * shape.frames <= 64_000 for shape in shapes)
    assert {shape.hotwords for shape in grid(hotwords=False)} == {0}
    assert {shape.rows for shape in grid(rows=1)} == {1}


def test_what_does_not_fit_is_told_and_the_rest_goes_on() -> None:
    backend = FakeBackend(FakeMemory(20 * MIB), CostModel(2 * MIB, 20_000))
    shapes = [BatchShape(1, 104), BatchShape(16, 104), BatchShape(2, 104)]
    fitting, too_large, last = compared(backend, COST, shapes, Pack.open(DEMO_PACKS / "int8"))
    assert fitting["predicted_bytes"] == COST.bytes(shapes[0])
    assert fitting["measured_bytes"] == backend.true_cost.bytes(shapes[0])
    assert "do not fit" in str(too_large["failed"]) and "measured_bytes" not in too_large
    assert "measured_bytes" in last and backend.released == 3


def test_people_see_the_error_as_a_share_of_all_that_is_held() -> None:
    shape = {"rows": 1, "frames": 104, "hotwords": 0, "predicted_bytes": 60 * MIB, "measured_bytes": 50 * MIB}
    figures = {
        "model": "m",
        "device": "cuda:0",
        "precision": "fp16",
        "held_bytes": 50 * MIB,
        "ready_seconds": 1.0,
        "self_check": None,
        "shapes": [shape, {**shape, "failed": "too large"}],
    }
    lines = as_text(figures).splitlines()
    assert lines[-2].split()[-1] == "10.0%" and lines[-1].endswith("too large")


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_the_verb(
    more: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.bench import prediction

    monkeypatch.setattr(prediction, "FRAMES", (100,))
    assert main(["bench", "--memory", "--threads", "1", "--device", "cpu", *more]) == 0
    told = capsys.readouterr().out
    if more:
        figures = json.loads(told)
        assert figures["self_check"]["passed"] and len(figures["shapes"]) == 3
    else:
        assert "self-check: all" in told

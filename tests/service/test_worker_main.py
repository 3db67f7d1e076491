"""What the worker tells of a device's memory: the plan, beside what was taken. With a device that is memory alone."""

from __future__ import annotations

from typing import Any

import pytest

from app.asr.engine import EngineOptions
from app.asr.memory import MIB, Budget, CostModel
from app.asr.opening import Opened
from app.asr.running import Station
from app.asr.written_text import TextVocabulary
from app.service import worker_main
from app.service.worker_main import _Engine, _Work
from tests.fakes.backend import FakeBackend, FakeMemory, speech

COST = CostModel(fixed=1 * MIB, per_frame=20_000)


def _statistics(monkeypatch: pytest.MonkeyPatch, device: str, *, work: bool) -> dict[str, Any]:
    backend = FakeBackend(FakeMemory(60 * MIB), COST, device=device)
    station = Station(backend, Budget(backend.memory, limit=None, working=8 * MIB, reserve=0), COST)
    opened = Opened("fake", TextVocabulary(), has_hotwords=True, station=station, verdict=None)
    monkeypatch.setattr(worker_main, "open_model", lambda options: opened)
    engine = _Engine(EngineOptions())
    told = engine.description()["statistics"]
    assert told["out_of_memory"] == 0, "counters are there before the first batch"
    if work:
        monkeypatch.setattr(engine._opened.vocabulary, "tokens", dict.fromkeys(range(9000), "x"))
        told = engine.run(_Work(1, [speech([5, 6, 7])], ())).header["statistics"]
    assert isinstance(told, dict)
    return told


def test_plan_and_peak_of_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    before = _statistics(monkeypatch, "cuda:0", work=False)
    assert (before["device_budget_bytes"], before["device_predicted_bytes"]) == (None, None)
    told = _statistics(monkeypatch, "cuda:0", work=True)
    assert told["device_budget_bytes"] == 8 * MIB
    assert told["device_predicted_bytes"] >= told["device_peak_bytes"] > 0


def test_a_processor_has_no_device_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    told = _statistics(monkeypatch, "cpu", work=True)
    assert {name: value for name, value in told.items() if name.startswith("device_")} == {
        "device_peak_bytes": None,
        "device_budget_bytes": None,
        "device_predicted_bytes": None,
    }

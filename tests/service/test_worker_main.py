"""What the worker tells of a device's memory: the plan, beside what was taken. With a device that is memory alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from app.asr.backend import EncodedHotwords
from app.asr.engine import EngineOptions
from app.asr.memory import MIB, Budget, CostModel
from app.asr.opening import Opened
from app.asr.running import Station
from app.asr.written_text import TextVocabulary
from app.service import worker_main
from app.service.worker_main import _Engine, _Work
from tests.fakes.backend import FakeBackend, FakeMemory, speech

COST = CostModel(fixed=1 * MIB, per_frame=20_000)


def _engine(monkeypatch: pytest.MonkeyPatch, device: str) -> tuple[_Engine, FakeBackend]:
    backend = FakeBackend(FakeMemory(60 * MIB), COST, device=device)
    station = Station(backend, Budget(backend.memory, limit=None, working=8 * MIB, reserve=0), COST)
    opened = Opened("fake", TextVocabulary(), has_hotwords=True, station=station, verdict=None)
    monkeypatch.setattr(worker_main, "open_model", lambda options: opened)
    return _Engine(EngineOptions()), backend


def _statistics(monkeypatch: pytest.MonkeyPatch, device: str, *, work: bool) -> dict[str, Any]:
    engine, _ = _engine(monkeypatch, device)
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


def test_lists_of_hot_words_are_kept_encoded_as_far_as_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, backend = _engine(monkeypatch, "cpu")
    encoded: list[int] = []
    encode = backend.encode_hotwords

    def counted(words: Sequence[Sequence[int]]) -> EncodedHotwords:
        encoded.append(len(words))
        return encode(words)

    monkeypatch.setattr(backend, "encode_hotwords", counted)

    def words(count: int) -> tuple[tuple[int, ...], ...]:
        return tuple((3, number) for number in range(count))

    for count in (10, 900, 10, 500, 900, 10):
        held = engine._words(words(count))
        assert held is not None and len(held) == count + 1
    assert encoded == [10, 900, 500], "all three have room"
    engine._words(words(1000))
    engine._words(words(10))
    assert encoded == [10, 900, 500, 1000, 10], "the oldest made room, and no more than was needed"
    engine._words(words(500 - 10))
    engine._words(words(1000))
    assert encoded[5:] == [490], "1,500 words in all may be kept"
    for count in range(20, 29):
        engine._words(words(count))
    engine._words(words(20))
    assert encoded[-1] == 20, "however short, eight lists are kept"

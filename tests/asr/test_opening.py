"""From a name to a backend that has proved itself, and on to the next one when it has not."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from app.asr import opening
from app.asr.backend import Backend, EncodedHotwords
from app.asr.catalogue import DEMO_PACKS
from app.asr.devices import Candidate, Card, CudaReport
from app.asr.engine import NO_GPU, EngineOptions
from app.asr.errors import (
    DeviceError,
    DeviceLostError,
    DeviceMemoryError,
    InputError,
    MemoryShortageError,
    PackError,
    ResourceError,
)
from app.asr.host import MemoryGrant
from app.asr.joining import Recognition
from app.asr.memory import MeasurementStore
from app.asr.opening import look_for_cards, open_model, open_next
from app.asr.pack import MANIFEST, Pack
from app.asr.running import Station
from app.asr.selfcheck import golden_samples, self_check
from app.asr.transcribe import Transcriber
from tests.fakes.backend import FakeMemory

GPU = CudaReport((Card(0, "NVIDIA GeForce RTX 3050", (8, 6), 4 << 30, 3 << 30),))


class Pretender:
    """Stands for a backend on a GPU that this host does not have: it fails, or misreads, in the way it is told."""

    precision, device, most_rows, pads = "fp16", "cuda:0", 64, True

    def __init__(self, failure: Exception | None) -> None:
        self._failure = failure
        self.memory = FakeMemory(1 << 30)

    def prepare(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        return samples

    def encode_hotwords(self, words: Sequence[Sequence[int]]) -> EncodedHotwords:
        raise AssertionError("not asked for")

    def recognise(
        self, batch: Sequence[NDArray[np.float32]], hotwords: EncodedHotwords | None
    ) -> list[Recognition]:
        if self._failure is not None:
            raise self._failure
        some = np.array([7, 8, 9])
        times = np.arange(3, dtype=np.float32)
        return [Recognition(some.astype(np.int32), times, times) for _ in batch]

    def release(self) -> None:
        return None


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> list[Exception | None]:
    """Failures of the backends on the GPU, in the order in which they are tried; the CPU is real."""
    failures: list[Exception | None] = []
    load = opening._load

    def pretend(candidate: Candidate, pack: Pack, options: EngineOptions) -> Backend:
        if candidate.device == "cpu":
            return load(candidate, pack, options)
        backend: Backend = Pretender(failures.pop(0))
        return backend

    monkeypatch.setattr(opening, "_load", pretend)
    return failures


def test_a_cpu_host_needs_no_words() -> None:
    opened = open_model(EngineOptions(threads=1))
    assert (opened.name, opened.station.backend.device, opened.station.backend.precision) == (
        "demo",
        "cpu",
        "int8",
    )
    assert opened.reasons == [NO_GPU]
    assert opened.verdict is not None and opened.verdict.passed and "12 tokens" in opened.verdict.reason
    assert opened.station.cost is not None and opened.station.budget is not None


def test_a_gpu_that_fails_is_left_for_the_cpu_with_every_reason(pretended: list[Exception | None]) -> None:
    pretended += [
        None,  # fp16 misreads the golden clip
        DeviceMemoryError("cuda:0 has not enough memory", fix="Stop others."),
        DeviceLostError("cuda:0 failed (CUDA error: unspecified launch failure)", fix="Restart."),
    ]
    opened = open_model(EngineOptions(threads=1), report=GPU)
    assert opened.station.backend.device == "cpu" and not pretended
    told = "; ".join(opened.reasons)
    for part in ("fp16 failed its self-check", "has not enough memory", "unspecified launch failure"):
        assert part in told


def test_a_gpu_that_was_asked_for_is_not_silently_replaced(pretended: list[Exception | None]) -> None:
    pretended += [None, None, None]
    with pytest.raises(DeviceError, match=r"cannot run here: .*self-check: .*golden clip"):
        open_model(EngineOptions(device="cuda", threads=1), report=GPU)


def test_going_on_with_the_cpu_after_the_gpu_gave_up(pretended: list[Exception | None]) -> None:
    pretended += [None, None, None]
    before = open_model(EngineOptions(threads=1), report=GPU)
    before.station = Station(Pretender(None))
    before.others = [Candidate("cpu", "int8", "int8", "x")]
    error = DeviceMemoryError("cuda:0 has no room", fix="Stop others.")
    after = open_next(before, EngineOptions(threads=1), error)
    assert after.station.backend.device == "cpu" and "cuda:0 has no room" in after.reasons[0]
    after.others = [Candidate("cpu", "fp16", "fp16", "x")]
    with pytest.raises(MemoryShortageError, match="has no room"):  # no precision of the CPU needs less
        open_next(after, EngineOptions(threads=1), error)


def test_a_pack_whose_golden_tokens_are_wrong_does_not_run(tmp_path: Path) -> None:
    directory = tmp_path / "pack"
    shutil.copytree(DEMO_PACKS / "int8", directory)
    manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
    manifest["golden"]["tokens"][2] += 1
    manifest["golden"]["packed_tokens"] = manifest["golden"]["tokens"]
    (directory / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(DeviceError, match="1 of 12 tokens of the golden clip are wrong"):
        open_model(EngineOptions(str(directory), threads=1))


def test_the_self_check_sees_a_neighbour_that_changes_the_result() -> None:
    pack = Pack.open(DEMO_PACKS / "int8")
    real = opening._load(Candidate("cpu", "int8", "int8", ""), pack, EngineOptions(threads=1))
    assert self_check(real, pack).passed
    length = len(real.prepare(golden_samples(pack)))

    class Leaky(Pretender):
        def prepare(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
            return real.prepare(samples)

        def recognise(
            self, batch: Sequence[NDArray[np.float32]], hotwords: EncodedHotwords | None
        ) -> list[Recognition]:
            found = real.recognise(batch, hotwords)
            return found if len(batch) == 1 else [found[0], found[0]]

    assert length > 20
    verdict = self_check(Leaky(None), pack)
    assert not verdict.passed and "beside another segment" in verdict.reason


def test_measuring_happens_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ASR_CACHE_DIR", str(tmp_path))
    first = open_model(EngineOptions(threads=1))
    monkeypatch.setattr(opening, "calibrate", lambda *_, **__: pytest.fail("measured again"))
    second = open_model(EngineOptions(threads=1))
    assert first.station.cost == second.station.cost
    assert MeasurementStore(tmp_path).get("something else") is None


def test_too_little_memory_is_refused_before_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    grant = MemoryGrant(total=60 << 20, machine_available=60 << 20, limit=None, used_of_limit=None)
    monkeypatch.setattr(opening, "memory_grant", lambda: grant)
    with pytest.raises(ResourceError, match="may use 60 MB"):
        open_model(EngineOptions(device="cpu"))


def test_memory_that_nobody_tells_refuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "memory_grant", lambda: MemoryGrant(None, None, None, None))
    assert open_model(EngineOptions(device="cpu", threads=1)).name == "demo"


def test_a_model_of_another_family_runs_in_one_precision_and_from_one_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(InputError, match="runs in fp32 only, and int8 was asked for") as caught:
        open_model(EngineOptions("sensevoice-small", device="cpu", precision="int8"))
    assert "--precision" in caught.value.fix
    monkeypatch.setitem(sys.modules, "app.asr.funasr_backend", None)
    with pytest.raises(ResourceError, match="needs the Python package") as missing:
        open_model(EngineOptions("sensevoice-small", device="cpu"))
    assert "toolbox image" in missing.value.fix


def test_without_torch_a_gpu_is_told_of_and_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "nvidia_driver", lambda: "580.95.05")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    report = look_for_cards("auto")
    assert report.cards == () and report.problem == "torch is not installed in this environment"


def test_a_device_that_cannot_be_there_says_why() -> None:
    report = look_for_cards("cuda")
    if report.cards:
        pytest.skip("this host has a GPU; tests/gpu are for it")
    assert report.problem and report.fix
    with pytest.raises(DeviceError, match="cuda cannot be used: "):
        open_model(EngineOptions(device="cuda"))


def test_a_precision_that_no_pack_has() -> None:
    with pytest.raises(PackError, match="no fp32 pack, only fp16, int8"):
        open_model(EngineOptions(precision="fp32", device="cpu"))


def test_the_engine_tells_where_it_runs() -> None:
    with Transcriber.open(EngineOptions(threads=1, device="cpu", precision="fp16")) as engine:
        assert (engine.device, engine.precision) == ("cpu", "fp16 storage")
        assert engine.reasons == ["it was asked for"]
        assert engine.device_peak_bytes is None and engine.verdict is not None

"""Whole files through a backend that takes batches: torch, with the CPU as its device."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the backend needs torch; serving on a CPU does not")

from app.asr.backend import Backend  # noqa: E402
from app.asr.catalogue import DEMO_PACKS  # noqa: E402
from app.asr.engine import EngineOptions  # noqa: E402
from app.asr.hotwords import parse_hotwords  # noqa: E402
from app.asr.memory import MIB, Budget, CostModel  # noqa: E402
from app.asr.opening import Opened  # noqa: E402
from app.asr.pack import Pack  # noqa: E402
from app.asr.running import Station  # noqa: E402
from app.asr.selfcheck import self_check  # noqa: E402
from app.asr.torch_backend import TorchBackend  # noqa: E402
from app.asr.transcribe import Transcriber  # noqa: E402

RECORDINGS = DEMO_PACKS.parent / "recordings"
LISTED = {
    row["file"]: row
    for row in json.loads((RECORDINGS / "recordings.json").read_text(encoding="utf-8"))["recordings"]
}
MEETING = LISTED["meeting.ogg"]["text"]
COST = CostModel(fixed=8 * MIB, per_frame=30_000)


@pytest.fixture(scope="module")
def pack() -> Pack:
    return Pack.open(DEMO_PACKS / "fp16")


@pytest.fixture(scope="module")
def backend(pack: Pack) -> TorchBackend:
    return TorchBackend(pack, precision="fp32", threads=2)


def _engine(
    pack: Pack,
    backend: Backend,
    working: int | None,
    *,
    batch_size: int | None = None,
    seconds: float | None = None,
) -> Transcriber:
    budget = Budget(backend.memory, limit=None, working=working, reserve=0)
    opened = Opened(
        pack.name, pack.vocabulary, True, Station(backend, budget, COST), self_check(backend, pack)
    )
    return Transcriber(opened, EngineOptions(batch_size=batch_size, segment_seconds=seconds))


def _text(engine: Transcriber, name: str, hotwords: str | None = None) -> str:
    words = parse_hotwords([hotwords], engine.vocabulary) if hotwords else None
    utterances = engine.transcribe(RECORDINGS / name, words)
    return "".join(word.text for utterance in utterances for word in utterance.words)


def test_batches_change_no_word_and_waste_little(pack: Pack, backend: TorchBackend) -> None:
    engine = _engine(pack, backend, None, seconds=5)
    assert _text(engine, "meeting.ogg") == MEETING
    assert engine.statistics.segments > 1.5 * engine.statistics.batches
    assert engine.statistics.padding <= 0.1


@pytest.mark.parametrize("working", [40, 20, 14])
def test_less_memory_changes_no_word(pack: Pack, backend: TorchBackend, working: int) -> None:
    engine = _engine(pack, backend, working * MIB, seconds=30)
    assert _text(engine, "meeting.ogg") == MEETING
    assert engine.statistics.out_of_memory == 0


def test_batch_size_one_is_one(pack: Pack, backend: TorchBackend) -> None:
    engine = _engine(pack, backend, None, batch_size=1, seconds=5)
    assert _text(engine, "meeting.ogg") == MEETING
    assert engine.statistics.batches == engine.statistics.segments


def test_hot_words_reach_every_batch(pack: Pack, backend: TorchBackend) -> None:
    name = next(file for file, row in LISTED.items() if row["hotwords"])
    wanted = LISTED[name]
    engine = _engine(pack, backend, None)
    assert _text(engine, name, "，".join(wanted["hotwords"])) == wanted["text"]
    assert _text(engine, name) != wanted["text"]


def test_words_come_before_the_file_is_read(pack: Pack, backend: TorchBackend) -> None:
    engine = _engine(pack, backend, None, seconds=5)
    transcription = engine.transcribe(RECORDINGS / "meeting.ogg")
    first = next(iter(transcription))
    assert first.words and engine.statistics.segments <= 5


def test_the_planner_can_be_calibrated_on_a_cpu() -> None:
    """In a process of its own: memory that this one kept from other tests would hide what a batch takes."""
    code = (
        "from app.asr.catalogue import DEMO_PACKS; from app.asr.host import keep_heap_small; keep_heap_small()\n"
        "from app.asr.memory import calibrate, probe_with; from app.asr.onnx_backend import OnnxBackend\n"
        "from app.asr.pack import Pack; from app.asr.selfcheck import golden_samples\n"
        "pack = Pack.open(DEMO_PACKS / 'int8'); backend = OnnxBackend(pack, threads=1)\n"
        "measure = probe_with(backend, backend.memory, backend.prepare(golden_samples(pack)))\n"
        "print(calibrate(measure, one_at_a_time=True, with_hotwords=False).per_frame)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 1_000 < float(done.stdout) < 1_000_000


def test_the_recordings_exist() -> None:
    assert Path(RECORDINGS / "meeting.ogg").exists() and len(MEETING) > 300

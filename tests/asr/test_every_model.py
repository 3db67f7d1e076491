"""Each entry of the catalogue, found by its name and run end to end with real code.

The Paraformer family goes through our packing and onnxruntime, the others through FunASR; all but demo on tiny
random checkpoints of the entry's own class, as real ones are large.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("funasr", reason="making the checkpoints needs FunASR")
pytest.importorskip("whisper", reason="Whisper needs openai-whisper")

from app.asr.catalogue import (
    MODELS_VARIABLE,
    CatalogueEntry,
    known_entry,
    listing,
    model_packs,
    on_this_machine,
    source_directory,
)
from app.asr.funasr_backend import FunasrBackend
from app.asr.onnx_backend import OnnxBackend
from app.asr.pack import Pack
from app.asr.packing import pack_model
from scripts.random_checkpoint import SHAPES, probe_audio, write_directory
from tests.support import tiny_models

# Whisper leaves its vocabulary's file open.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

SECONDS = 6
# The small Paraformer differs from the large one in its sizes.
CHECKPOINTS = {
    "seaco-paraformer-large": ("seaco", SHAPES["tiny"]),
    "paraformer-large": ("paraformer", SHAPES["tiny"]),
    "paraformer-small": ("paraformer", replace(SHAPES["tiny"], width=48, encoder_blocks=2, decoder_blocks=1)),
}


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path))
    return tmp_path


def _names(family: str) -> list[str]:
    return [wanted.name for wanted in listing() if wanted.family == family]


@pytest.mark.parametrize("name", _names("paraformer"))
def test_a_paraformer_runs_from_its_pack(name: str, models: Path) -> None:
    wanted = known_entry(name)
    if name != "demo":
        arch, shape = CHECKPOINTS[name]
        with contextlib.redirect_stdout(io.StringIO()):
            write_directory(shape, arch, 0, models / "source")
        assert f"model: {wanted.kind}\n" in (models / "source" / "config.yaml").read_text(encoding="utf-8")
        pack_model(str(models / "source"), models / name / "int8", "int8", lambda _: None, name=name)
    assert "int8" in on_this_machine(wanted)
    pack = Pack.open(model_packs(name)["int8"])
    assert pack.manifest.architecture.has_hotwords == wanted.hotwords
    backend = OnnxBackend(pack, threads=1)
    [found] = backend.recognise([backend.prepare(probe_audio(0, SECONDS))], None)
    assert len(found.ids) > 3 and pack.vocabulary.decode(found.ids)
    assert np.all(np.diff(found.starts) >= 0) and found.starts[0] >= 0 and found.ends[-1] <= SECONDS + 0.1


def _make(wanted: CatalogueEntry) -> None:
    directory = source_directory(wanted)
    if wanted.kind == "SenseVoiceSmall":
        tiny_models.sensevoice(directory)
    elif wanted.kind == "UniASR":
        tiny_models.uniasr(directory)
    else:
        tiny_models.whisper_checkpoint(directory / f"{wanted.source}.pt")


@pytest.mark.parametrize("name", _names("funasr"))
def test_another_model_runs_through_funasr(name: str) -> None:
    wanted = known_entry(name)
    assert on_this_machine(wanted) == ()
    _make(wanted)
    assert on_this_machine(wanted) == ("files",)
    backend = FunasrBackend.open(wanted, device="cpu", threads=1)
    assert (backend.kind, backend.longest_seconds) == (wanted.kind, wanted.longest_seconds)
    [found] = backend.recognise([backend.prepare(probe_audio(0))], None)
    words = backend.vocabulary.words(found.ids, found.starts, found.ends)
    assert len(words) > 3 and all(word.text for word in words)
    assert backend.times_are_estimated == (not wanted.timestamps)

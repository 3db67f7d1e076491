"""Half precision on the device: the same tokens as fp32, with activations of every size; and the self-check."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="the network needs torch")

from app.asr import opening  # noqa: E402
from app.asr.engine import EngineOptions  # noqa: E402
from app.asr.errors import DeviceError  # noqa: E402
from app.asr.half import STORAGE_ONLY  # noqa: E402
from app.asr.pack import MANIFEST, Pack  # noqa: E402
from app.asr.selfcheck import self_check  # noqa: E402
from scripts.bench.gpu_materials import Materials  # noqa: E402
from tests.support.device import Device, backend_on, differing, some_words  # noqa: E402
from tests.support.heldout import heldout  # noqa: E402
from tests.support.outlier import demo_network, enlarge, float_pack  # noqa: E402

SAMPLE_RATE = 16_000
PRECISIONS = ("fp16", STORAGE_ONLY)
# Random weights give scores that lie closer together than those of a trained model, and half rounds them.
MOST_DIFFERENT_OF_RANDOM = 0.03


@pytest.fixture(scope="module")
def outlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    network = demo_network()
    enlarge(network, 2.0**14)
    return float_pack(tmp_path_factory.mktemp("outlier") / "pack", network).directory


def tokens(device: Device, pack: Pack, precision: str, clips: list[NDArray[np.float32]]) -> list[list[int]]:
    """Ids of all clips as one batch, without and with hot words."""
    backend = backend_on(device, pack, precision)
    prepared = [backend.prepare(clip) for clip in clips]
    names = sorted({utterance.name for utterance in heldout("rare") if utterance.name})
    words = [ids for ids in (pack.vocabulary.encode_word(name) for name in names) if ids]
    plain = backend.recognise(prepared, None)
    biased = backend.recognise(prepared, backend.encode_hotwords(words or some_words(pack, 100).ids))
    return [found.ids.tolist() for found in (*plain, *biased)]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_demo_model_says_the_same_in_half(device: Device, demo: Path, precision: str) -> None:
    clips = [utterance.samples for utterance in heldout("rare")[:24]]
    wanted = tokens(device, Pack.open(demo), "fp32", clips)
    assert tokens(device, Pack.open(demo), precision, clips) == wanted
    assert sum(map(len, wanted)) > 400


@pytest.mark.parametrize("precision", PRECISIONS)
def test_activations_of_half_a_million_change_no_word(
    device: Device, demo: Path, outlier: Path, precision: str
) -> None:
    clips = [utterance.samples for utterance in heldout("rare")[:12]]
    wanted = tokens(device, Pack.open(demo), "fp32", clips)
    assert tokens(device, Pack.open(outlier), precision, clips) == wanted


@pytest.mark.parametrize("precision", PRECISIONS)
def test_full_size_random_weights_differ_only_where_rounding_decides(
    device: Device, materials: Materials, meeting: NDArray[np.float32], precision: str
) -> None:
    pack = Pack.open(materials.pack("fp16"))
    clips = [meeting[start * SAMPLE_RATE : (start + 12) * SAMPLE_RATE] for start in range(0, 144, 12)]
    wanted = tokens(device, pack, "fp32", clips)
    found = tokens(device, pack, precision, clips)
    counts = sum(len(mine) != len(theirs) for mine, theirs in zip(found, wanted, strict=True))
    apart = [
        differing(map(str, mine), map(str, theirs)) * max(len(mine), len(theirs))
        for mine, theirs in zip(found, wanted, strict=True)
    ]
    total = sum(map(len, wanted))
    print(
        f"{precision}: {sum(apart):.0f} of {total} tokens differ, {counts} of {len(wanted)} clips in number"
    )
    assert sum(apart) <= MOST_DIFFERENT_OF_RANDOM * total


@pytest.mark.parametrize("precision", ["fp32", *PRECISIONS])
def test_the_self_check_passes(device: Device, demo: Path, precision: str) -> None:
    pack = Pack.open(demo)
    verdict = self_check(backend_on(device, pack, precision), pack)
    print(f"{precision}: {verdict.reason}, {verdict.seconds:.2f} s")
    assert verdict.passed, verdict.reason


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_self_check_of_full_size_weights(device: Device, materials: Materials, precision: str) -> None:
    pack = Pack.open(materials.pack(precision))
    verdict = self_check(backend_on(device, pack, precision), pack)
    assert verdict.passed, verdict.reason


def falsified(pack: Path, target: Path) -> Path:
    """A copy of a pack that claims other tokens for its golden clip."""
    shutil.copytree(pack, target)
    manifest = json.loads((target / MANIFEST).read_text(encoding="utf-8"))
    golden = manifest["golden"]
    for name in ("tokens", "packed_tokens"):
        golden[name] = [token + 1 for token in golden[name]]
    (target / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    return target


def test_golden_tokens_that_do_not_come_out_fail_the_check(
    device: Device, demo: Path, tmp_path: Path
) -> None:
    pack = Pack.open(falsified(demo, tmp_path / "pack"))
    verdict = self_check(backend_on(device, pack, "fp32"), pack)
    assert not verdict.passed and "tokens of the golden clip are wrong" in verdict.reason
    with pytest.raises(DeviceError, match="failed its self-check"):
        opening.open_model(EngineOptions(model=str(pack.directory), device=device.name))


def test_a_precision_that_fails_gives_way_to_the_next(
    device: Device, demo: Path, outlier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU fp16 gives way to fp32, on a CPU int8 to another pack; the reason is told."""
    first, second = ("fp16", "fp32") if device.cuda else ("int8", "fp16")
    bad = falsified(demo if device.cuda else demo.parent / "int8", tmp_path / "bad")
    packs = {first: bad, second: outlier if device.cuda else demo}
    monkeypatch.setattr(opening, "model_packs", lambda _: packs)
    opened = opening.open_model(EngineOptions(model="demo", device=device.name))
    assert opened.verdict is not None and opened.verdict.passed
    assert any(f"{first} failed its self-check" in reason for reason in opened.reasons)
    assert opened.station.backend.precision == ("fp32" if device.cuda else "fp16 storage")
    assert opened.station.backend.device == device.name

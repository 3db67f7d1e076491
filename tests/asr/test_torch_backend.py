"""The torch backend, on the CPU as device: equal to the ONNX backend, alone and in a batch, and its failures named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="the network needs torch; serving on a CPU does not")

from app.asr import torch_backend  # noqa: E402
from app.asr.audio import Frontend  # noqa: E402
from app.asr.backend import Backend  # noqa: E402
from app.asr.backend import filtered_rows as filtered_rows_of_one  # noqa: E402
from app.asr.catalogue import DEMO_PACKS  # noqa: E402
from app.asr.errors import (  # noqa: E402
    DeviceLostError,
    DeviceMemoryError,
    InputError,
    NumericError,
    PackError,
)
from app.asr.joining import Recognition  # noqa: E402
from app.asr.onnx_backend import OnnxBackend  # noqa: E402
from app.asr.pack import Pack  # noqa: E402
from app.asr.packing import pack_model  # noqa: E402
from app.asr.torch_backend import TorchBackend, filtered_rows  # noqa: E402
from tests.support.heldout import heldout  # noqa: E402
from tests.support.reference import random_directory  # noqa: E402


@pytest.fixture(scope="module")
def pack() -> Pack:
    return Pack.open(DEMO_PACKS / "fp16")


@pytest.fixture(scope="module")
def backend(pack: Pack) -> TorchBackend:
    return TorchBackend(pack, precision="fp32")


@pytest.fixture(scope="module")
def clips(pack: Pack) -> list[NDArray[np.float32]]:
    frontend = Frontend(pack.frontend)
    return [frontend.features(utterance.samples) for utterance in heldout("rare")[:12]]


def _words(count: int) -> list[list[int]]:
    return [[3 + (7 * i) % 250, 4 + (3 * i) % 240, 5 + i % 90][: 2 + i % 2] for i in range(count)]


def _same(found: list[Recognition], wanted: list[Recognition]) -> None:
    assert len(found) == len(wanted)
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine.ids.tolist() == theirs.ids.tolist()
        np.testing.assert_allclose(mine.starts, theirs.starts, atol=0.02)
        np.testing.assert_allclose(mine.ends, theirs.ends, atol=0.02)


@pytest.mark.parametrize("count", [0, 3, 200])
def test_a_batch_gives_what_onnxruntime_gives_one_by_one(
    pack: Pack, backend: TorchBackend, clips: list[NDArray[np.float32]], count: int
) -> None:
    reference = OnnxBackend(pack, threads=1)
    words = _words(count)
    found = backend.recognise(clips, backend.encode_hotwords(words) if words else None)
    _same(found, reference.recognise(clips, reference.encode_hotwords(words) if words else None))
    assert sum(len(result.ids) for result in found) > 100


@pytest.mark.parametrize("count", [0, 200])
def test_batch_mates_change_nothing(
    backend: TorchBackend, clips: list[NDArray[np.float32]], count: int
) -> None:
    hotwords = backend.encode_hotwords(_words(count)) if count else None
    noise = np.random.default_rng(0).normal(0, 5, (400, clips[0].shape[1])).astype(np.float32)
    alone = [backend.recognise([clip], hotwords)[0] for clip in clips[:4]]
    _same(backend.recognise([*clips[:4], noise], hotwords)[:4], alone)
    _same(backend.recognise([clips[3], clips[2], noise, clips[1], clips[0]], hotwords)[3:], alone[1::-1])


@pytest.mark.parametrize("arch", ["bicif", "paraformer"])
def test_networks_without_hot_words_or_time_stamps(arch: str, tmp_path: Path) -> None:
    source = random_directory(tmp_path / arch, arch=arch, seed=4)
    pack = Pack.open(pack_model(str(source), tmp_path / "pack", "fp32", lambda _: None))
    noise = np.random.default_rng(1)
    clips = [noise.normal(0, 1, (frames, 560)).astype(np.float32) for frames in (30, 97, 64)]
    mine, theirs = TorchBackend(pack), OnnxBackend(pack, threads=1)
    _same(mine.recognise(clips, None), theirs.recognise(clips, None))
    with pytest.raises(InputError, match="no hot words"):
        mine.encode_hotwords([[5]])


def test_nothing_to_hear_gives_nothing(backend: TorchBackend, clips: list[NDArray[np.float32]]) -> None:
    empty = np.zeros((0, 560), np.float32)
    found = backend.recognise([empty, clips[0], np.zeros((2, 560), np.float32)], None)
    assert len(found) == 3 and len(found[0].ids) == 0 and len(found[1].ids) > 5
    assert backend.recognise([empty], None)[0].ids.shape == (0,)


def test_weights_of_an_fp32_pack_stay_in_the_file(tmp_path: Path) -> None:
    source = random_directory(tmp_path / "source", arch="seaco", seed=4)
    pack = Pack.open(pack_model(str(source), tmp_path / "pack", "fp32", lambda _: None))
    network = torch_backend.load(pack, torch.device("cpu"), "fp32", hotwords=True)
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    mapped = [line.split("-", 1) for line in maps.splitlines() if str(pack.directory) in line]
    lowest = min(int(begin, 16) for begin, _ in mapped)
    highest = max(int(rest.split(" ", 1)[0], 16) for _, rest in mapped)
    assert all(lowest <= tensor.data_ptr() < highest for tensor in network.state_dict().values()), (
        "copied into memory of their own"
    )


def test_hot_words_off_does_not_load_their_part(pack: Pack, clips: list[NDArray[np.float32]]) -> None:
    whole, part = TorchBackend(pack), TorchBackend(pack, hotwords=False)
    assert part.weight_bytes < 0.8 * whole.weight_bytes
    _same(part.recognise(clips, None), whole.recognise(clips, None))
    with pytest.raises(InputError, match="no hot words"):
        part.encode_hotwords([[5]])


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB"), DeviceMemoryError),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 8 bytes"),
            DeviceMemoryError,
        ),
        (MemoryError(), DeviceMemoryError),
        (RuntimeError("CUDA error: unspecified launch failure"), DeviceLostError),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), DeviceLostError),
        (ValueError("something else"), ValueError),
    ],
)
def test_failures_of_the_device_are_named(
    pack: Pack,
    clips: list[NDArray[np.float32]],
    monkeypatch: pytest.MonkeyPatch,
    raised: Exception,
    expected: type[Exception],
) -> None:
    backend = TorchBackend(pack)

    def fail(*_: Any) -> None:
        raise raised

    with monkeypatch.context() as patch:
        patch.setattr(backend._network, "encode", fail)
        with pytest.raises(expected):
            backend.recognise(clips[:1], None)
    assert len(backend.recognise(clips[:1], None)[0].ids), "a failure that is over leaves a working backend"


def test_nan_is_never_taken_for_words(backend: TorchBackend, clips: list[NDArray[np.float32]]) -> None:
    broken = clips[0].copy()
    broken[3, 7] = np.nan
    with pytest.raises(NumericError, match="NaN or Inf"):
        backend.recognise([clips[1], broken], None)


def test_packs_that_torch_cannot_run_are_refused(pack: Pack) -> None:
    with pytest.raises(InputError, match="int8"):
        TorchBackend(Pack.open(DEMO_PACKS / "int8"))
    with pytest.raises(InputError, match="bf16"):
        TorchBackend(pack, precision="bf16")


def test_weights_of_another_network_are_refused(tmp_path: Path, pack: Pack) -> None:
    other = random_directory(tmp_path / "other", arch="paraformer", seed=4)
    foreign = Pack.open(pack_model(str(other), tmp_path / "pack", "fp32", lambda _: None))
    mixed = Pack(foreign.directory, pack.manifest)
    with pytest.raises(PackError, match="other tensors"):
        TorchBackend(mixed)


def test_the_filter_of_a_batch_is_the_filter_of_each_segment() -> None:
    scores = np.random.default_rng(3).random((5, 200)).astype(np.float32)
    scores[2, 10:60] = 0.5  # ties keep their order
    rows = filtered_rows(torch.from_numpy(scores)).numpy()
    assert [row.tolist() for row in rows] == [filtered_rows_of_one(row).tolist() for row in scores]


def test_it_fills_the_protocol(backend: TorchBackend) -> None:
    filled: Backend = backend
    assert (filled.device, filled.precision) == ("cpu", "fp32") and filled.most_rows > 1

"""Memory on the device: what was foretold, the bound for any length, what loading takes of the host."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="the network needs torch")

from app.asr.memory import MIB, BatchShape  # noqa: E402
from app.asr.opening import Opened  # noqa: E402
from app.asr.pack import Pack  # noqa: E402
from app.bench.prediction import compared, golden_pack, grid  # noqa: E402
from scripts.bench.gpu_materials import Materials  # noqa: E402
from tests.support.device import (  # noqa: E402
    ROOT,
    Device,
    backend_on,
    opened_on,
    some_words,
    text_of,
    transcriber_on,
    write_speech,
)

MOST_ABOVE_WEIGHTS = 128 * MIB
MOST_HOST_BYTES = 250 * 10**6
LENGTHS = (10, 60, 300, 10_800)
CHILD = Path(__file__).with_name("child.py")


def weights_of(opened: Opened) -> int:
    """Bytes of the weights; what other tests may have left on the device does not count."""
    backend: Any = opened.station.backend
    return int(backend.weight_bytes)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_batches_take_what_was_foretold(device: Device, materials: Materials, precision: str) -> None:
    """Within 10 % of `max_memory_allocated`, from one segment of 6 s to 64 of 60 s, for any number of hot words."""
    opened = opened_on(device, materials.pack(precision), precision)
    backend, cost = opened.station.backend, opened.station.cost
    assert cost is not None
    shapes = grid() if device.cuda else [BatchShape(1, 100), BatchShape(4, 100, 100)]
    held = weights_of(opened)
    rows: list[dict[str, Any]] = list(
        compared(backend, cost, shapes, golden_pack(str(materials.pack(precision)), precision))
    )
    errors = []
    for row in rows:
        apart = row["predicted_bytes"] - row["measured_bytes"]
        errors.append(abs(apart) / (held + row["measured_bytes"]))
        print(row["rows"], row["frames"], row["hotwords"], apart // 1024, "KiB", f"{errors[-1]:.1%}")
    if device.cuda:
        assert len(rows) > 30 and max(errors) <= 0.10


@pytest.mark.parametrize("seconds", LENGTHS)
def test_any_length_with_a_hundred_hot_words_stays_beside_the_weights(
    device: Device, materials: Materials, meeting: NDArray[np.float32], tmp_path: Path, seconds: int
) -> None:
    if not device.cuda and seconds > 60:
        pytest.skip("a rehearsal on the CPU runs the short lengths only")
    directory = materials.pack("fp16")
    recording = write_speech(tmp_path / "speech.wav", meeting, seconds)
    transcriber = transcriber_on(device, directory, "fp16")
    if device.cuda:
        torch.cuda.reset_peak_memory_stats(device.name)
    weights = transcriber._opened.station.backend.memory.held()
    assert text_of(transcriber, recording, some_words(Pack.open(directory), 100))
    assert transcriber.statistics.out_of_memory == 0
    if device.cuda:
        above = torch.cuda.max_memory_allocated(device.name) - weights
        print(f"{seconds} s: {above / MIB:.1f} MiB above {weights / MIB:.1f} MiB of weights")
        assert transcriber.device == device.name
        assert above <= MOST_ABOVE_WEIGHTS


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_loading_takes_little_of_the_host(device: Device, materials: Materials, precision: str) -> None:
    command = [sys.executable, str(CHILD), "load", device.name, str(materials.pack(precision)), precision]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    above, weights = told["peak_rss_above"], told["weight_bytes"]
    print(f"{precision}: {above / 1e6:.0f} MB of the host, {weights / MIB:.0f} MiB of weights")
    if device.cuda:
        assert told["expandable_segments"] in {True, None}, "the allocator's settings came too late"
        assert above <= MOST_HOST_BYTES


def test_without_hot_words_less_is_loaded(device: Device, materials: Materials) -> None:
    pack = Pack.open(materials.pack("fp16"))
    whole, part = backend_on(device, pack, "fp16"), backend_on(device, pack, "fp16", hotwords=False)
    assert part.weight_bytes < 0.97 * whole.weight_bytes
    if device.cuda:
        part.release()
        before = torch.cuda.memory_allocated(device.name)
        again = backend_on(device, pack, "fp16", hotwords=False)
        taken = torch.cuda.memory_allocated(device.name) - before
        assert taken <= 1.02 * again.weight_bytes + MIB

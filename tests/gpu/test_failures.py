"""What cannot be done says so, in time, and leaves no half a result."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="the network needs torch")

from app.asr.engine import EngineOptions  # noqa: E402
from app.asr.errors import DeviceLostError  # noqa: E402
from app.cli import main  # noqa: E402
from scripts.bench.gpu_materials import Materials  # noqa: E402
from tests.support.device import Device, text_of, transcriber_on, write_speech  # noqa: E402

FAILED = 2


def test_a_limit_below_the_weights_is_refused(
    cuda: Device, materials: Materials, demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golden = str(demo / "golden.wav")
    model = str(materials.pack("fp16"))
    begun = ["transcribe", golden, "--model", model, "--vram-limit", "100MiB", "--output", str(tmp_path)]
    assert main([*begun, "--device", "cuda"]) == FAILED
    told = capsys.readouterr().err
    assert "needs" in told and "may be used" in told
    assert list(tmp_path.iterdir()) == []
    assert main([*begun, "--device", "auto"]) == 0
    told = capsys.readouterr().err
    assert "device: cpu" in told and "may be used" in told
    assert len(list(tmp_path.iterdir())) == 1


def test_a_device_that_is_not_there(
    device: Device, demo: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    begun = ["transcribe", str(demo / "golden.wav"), "--model", str(demo), "--output", str(tmp_path)]
    assert main([*begun, "--device", "cuda:99"]) == FAILED
    told = capsys.readouterr().err
    assert "cuda:99" in told and "what to do:" in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("said", ["CUDA error: unspecified launch failure", "cuDNN error: EXECUTION_FAILED"])
def test_a_device_lost_in_the_middle_ends_the_work(
    device: Device,
    demo: Path,
    meeting: NDArray[np.float32],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    said: str,
) -> None:
    audio = write_speech(tmp_path / "speech.wav", meeting, 170)
    transcriber = transcriber_on(device, demo, "fp16", batch_size=2)
    network = transcriber._opened.station.backend._network  # type: ignore[attr-defined]
    encode, calls = network.encode, [0]

    def lost(features: Any, lengths: Any) -> Any:
        calls[0] += 1
        if calls[0] > 2:
            raise RuntimeError(said)
        return encode(features, lengths)

    monkeypatch.setattr(network, "encode", lost)
    started = time.monotonic()
    with pytest.raises(DeviceLostError, match="failed"):
        text_of(transcriber, audio)
    assert time.monotonic() - started < 60
    calls[0] = 0

    def again(_: EngineOptions) -> Any:
        return transcriber

    output = tmp_path / "out"
    command = ["transcribe", str(audio), "--model", str(demo), "--format", "srt", "--output", str(output)]
    assert main(command, engine_factory=again) == FAILED
    told = capsys.readouterr().err
    assert said.split(":", maxsplit=1)[0] in told and "what to do:" in told
    assert list(output.iterdir()) == [], "half a transcript must not look like a whole one"

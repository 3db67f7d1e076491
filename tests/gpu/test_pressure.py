"""Too little memory, in every way it can come: nothing is lost, and the text is the same as with plenty."""

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

from app.asr.memory import MIB  # noqa: E402
from scripts.bench.gpu_materials import Materials  # noqa: E402
from tests.support.device import (  # noqa: E402
    ROOT,
    Device,
    differing,
    text_of,
    transcriber_on,
    write_speech,
)

CHILD = Path(__file__).with_name("child.py")
# Random weights: other batches add in another order, and close scores change places.
MOST_DIFFERENT_OF_RANDOM = 0.02


def run_child(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(CHILD), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def transcribed(*before: str, audio: Path, model: Path, device: str, precision: str = "fp16") -> Any:
    """`python -m app transcribe` in a process of its own, as a result or a failure."""
    command = [sys.executable, *before, "-m", "app", "transcribe", str(audio), "--model", str(model)]
    command += ["--device", device, "--precision", precision, "--format", "json", "--threads", "1"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=400)


@pytest.mark.parametrize(("gib", "precision"), [(2, "fp16"), (2, "fp32"), (4, "fp32")])
def test_cards_of_2_and_4_gb(
    cuda: Device, materials: Materials, meeting: NDArray[np.float32], tmp_path: Path, gib: int, precision: str
) -> None:
    audio = write_speech(tmp_path / "speech.wav", meeting, 300)
    model = materials.pack(precision)
    smaller = ("-m", "scripts.bench.small_card", str(gib))
    texts = []
    for before in ((), smaller, (*smaller, "--unannounced")):
        done = transcribed(*before, audio=audio, model=model, device=cuda.name, precision=precision)
        assert done.returncode == 0, done.stderr[-2000:]
        told = json.loads(done.stdout)
        assert told["device"] == cuda.name
        assert told["device_memory"]["peak_bytes"] < gib << 30
        texts.append([word["text"] for word in told["words"]])
    print(f"{gib} GB, {precision}: {len(texts[0])} words, {differing(texts[1], texts[0]):.2%} differ")
    assert len(texts[0]) > 100
    assert all(differing(text, texts[0]) <= MOST_DIFFERENT_OF_RANDOM for text in texts[1:])


@pytest.mark.parametrize("shares", ["0.5", "0.9,0.6,0.45,0.7"])
def test_allocations_that_fail_are_tried_again_in_smaller_batches(
    cuda: Device, materials: Materials, meeting: NDArray[np.float32], tmp_path: Path, shares: str
) -> None:
    """Caps that nobody announced, also such that shrink and grow while a file is run."""
    audio = write_speech(tmp_path / "speech.wav", meeting, 1200)
    told = run_child("pressed", cuda.name, str(materials.pack("fp16")), "fp16", str(audio), shares)
    free, pressed = told["free"], told["pressed"]
    apart = differing(pressed, free)
    taken = f"{told['taken_bytes'] / MIB:.0f} MiB taken freely"
    print(
        f"{shares}: {taken}, {told['out_of_memory']} failures, {told['cut_segments']} cut, {apart:.2%} differ"
    )
    assert told["out_of_memory"] > 0, "the cap was not felt, so nothing was tested"
    assert told["fallbacks"] == [] and told["device"] == cuda.name
    assert len(free) > 500 and abs(len(pressed) - len(free)) <= MOST_DIFFERENT_OF_RANDOM * len(free)
    assert apart <= MOST_DIFFERENT_OF_RANDOM


@pytest.mark.parametrize("leave_mib", [400, 160])
def test_another_process_takes_the_memory_while_we_run(
    cuda: Device, demo: Path, meeting: NDArray[np.float32], tmp_path: Path, leave_mib: int
) -> None:
    audio = write_speech(tmp_path / "speech.wav", meeting, 600)
    transcriber = transcriber_on(cuda, demo, "fp16", vram_limit=1 << 36)
    wanted = text_of(transcriber, audio)
    transcriber._opened.station.backend.release()
    eater = subprocess.Popen(
        [sys.executable, str(CHILD), "eat", cuda.name, str(leave_mib * MIB)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert eater.stdout is not None
        # It grows while we run: the first words come before it is done.
        utterances = iter(transcriber.transcribe(audio))
        found = [word.text for word in next(utterances).words]
        left = json.loads(eater.stdout.readline())["left"]
        found += [word.text for said in utterances for word in said.words]
    finally:
        eater.communicate(timeout=60)
    print(f"{left / MIB:.0f} MiB were left; {transcriber.statistics}")
    assert left <= (leave_mib + 64) * MIB
    assert found == wanted
    assert transcriber.device == cuda.name


def test_batches_that_fail_for_lack_of_memory_lose_nothing(
    device: Device, demo: Path, meeting: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same without statistics: the network itself says that there is no room, and less and less of it."""
    audio = write_speech(tmp_path / "speech.wav", meeting, 120)
    transcriber = transcriber_on(device, demo, "fp16")
    wanted = text_of(transcriber, audio)
    network = transcriber._opened.station.backend._network  # type: ignore[attr-defined]
    encode, room = network.encode, [900.0]

    def narrow(features: Any, lengths: Any) -> Any:
        if features.shape[0] * features.shape[1] > room[0]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB (simulated)")
        room[0] = max(450.0, room[0] * 0.8)
        return encode(features, lengths)

    monkeypatch.setattr(network, "encode", narrow)
    assert text_of(transcriber, audio) == wanted
    assert transcriber.statistics.out_of_memory > 0
    assert transcriber.statistics.fallbacks == []

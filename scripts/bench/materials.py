"""What the contestants work on: one random full-size checkpoint, packs and graphs made of it, and audio files.

All of it is made once, below build/bench, and used again. Not here: measuring.
"""

from __future__ import annotations

import json
import shutil
import sys
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scripts.bench.measure import BenchError, run
from scripts.random_checkpoint import SAMPLE_RATE, probe_audio

ROOT = Path(__file__).resolve().parent.parent.parent
PEER_PYTHON = ROOT / ".venv-bench" / "bin" / "python"
OUR_PYTHON = ROOT / ".venv" / "bin" / "python"
TORCH_PYTHON = ROOT / ".venv-dev" / "bin" / "python"  # ours with torch
MEETING = ROOT / "app" / "demo" / "recordings" / "meeting.ogg"
RUNNER = Path(__file__).resolve().parent / "run_peer.py"
GAP_SECONDS = 0.5
# Files of the model directory that funasr-onnx reads beside its graphs.
BESIDE_GRAPHS = ("config.yaml", "am.mvn", "tokens.json", "seg_dict")


@dataclass(frozen=True)
class Materials:
    """Where everything lies; `audio` is by length in seconds."""

    checkpoint: Path
    packs: dict[str, Path]
    graphs: Path
    sherpa: Path
    audio: dict[int, Path]
    hotwords: str


def prepare(folder: Path, size: str, seconds: list[int]) -> Materials:
    """Make what is missing.

    Raises:
        BenchError: a step failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / f"checkpoint-{size}"
    if not (checkpoint / "model.pt").exists():
        step(f"random {size} checkpoint")
        run([sys.executable, "-m", "scripts.random_checkpoint", checkpoint, "--size", size])
    packs = {precision: folder / f"pack-{size}-{precision}" for precision in ("int8", "fp32")}
    for precision, pack in packs.items():
        if not (pack / "manifest.json").exists():
            step(f"our {precision} pack")
            run([sys.executable, "-m", "app", "pack", checkpoint, "--output", pack, "--precision", precision])
    graphs = folder / f"funasr-onnx-{size}"
    if not (graphs / "complete").exists():
        step("FunASR's own ONNX graphs")
        graphs.mkdir(exist_ok=True)
        for name in BESIDE_GRAPHS:
            shutil.copy(checkpoint / name, graphs / name)
        run([PEER_PYTHON, RUNNER, "export", checkpoint, graphs])
        (graphs / "complete").touch()
    sherpa = folder / f"sherpa-onnx-{size}"
    if not (sherpa / "complete").exists():
        step("graphs for sherpa-onnx")
        sherpa.mkdir(exist_ok=True)
        run([PEER_PYTHON, RUNNER, "export-sherpa", checkpoint, sherpa])
        (sherpa / "complete").touch()
    audio = {length: make_audio(folder, length) for length in seconds}
    return Materials(checkpoint, packs, graphs, sherpa, audio, choose_hotwords(checkpoint))


def step(what: str) -> None:
    print(f"making {what} ...", file=sys.stderr, flush=True)


def choose_hotwords(checkpoint: Path) -> str:
    """Three words of two characters that every contestant has in its vocabulary."""
    tokens = json.loads((checkpoint / "tokens.json").read_text(encoding="utf-8"))
    return " ".join(tokens[at] + tokens[at + 1] for at in (20, 60, 100))


def make_audio(folder: Path, seconds: int) -> Path:
    """Write `seconds` of the shipped meeting, over and over with short gaps, as 16 kHz mono WAV."""
    path = folder / f"meeting-{seconds}s.wav"
    if path.exists():
        return path
    step(f"{seconds} s of audio")
    tile = np.concatenate([read_meeting(), np.zeros(int(GAP_SECONDS * SAMPLE_RATE), np.int16)])
    partial = path.with_suffix(".part")
    with wave.open(str(partial), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(SAMPLE_RATE)
        left = seconds * SAMPLE_RATE
        while left > 0:
            sound.writeframes(tile[:left].tobytes())
            left -= min(left, tile.size)
    partial.replace(path)
    return path


def read_meeting() -> NDArray[np.int16]:
    """The shipped meeting, (samples,) at 16 kHz; made-up syllables where it is missing."""
    if not MEETING.exists():
        return (probe_audio(0, seconds=60) * 32767).astype(np.int16)
    import av

    pieces = []
    with av.open(str(MEETING)) as container:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        for frame in container.decode(audio=0):
            pieces += [part.to_ndarray()[0] for part in resampler.resample(frame)]
        pieces += [part.to_ndarray()[0] for part in resampler.resample(None)]
    if not pieces:
        raise BenchError(f"{MEETING} holds no audio. Check it out again.")
    return np.concatenate(pieces).astype(np.int16)

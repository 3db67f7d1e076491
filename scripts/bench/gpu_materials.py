"""What the GPU benchmark works on: a checkpoint, packs, recordings of every length with known spans, hot words.

Made once below the working folder; a recording is a WAV file and, beside it, the spans in which somebody speaks, in
milliseconds. Not here: measuring.
"""

from __future__ import annotations

import json
import random
import sys
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scripts.bench.materials import read_meeting, step
from scripts.bench.measure import run
from scripts.random_checkpoint import SAMPLE_RATE

PRECISIONS = ("fp16", "fp32")
LIMIT_SECONDS = 400.0
# How long people speak without a pause, in seconds, and the pause after it.
SPEECH_SECONDS, PAUSE_SECONDS = (1.0, 25.0), (0.6, 1.6)
BATCH_BREAKER = (2.0,) * 100 + (58.0,)  # FunASR pads all of it to the last: see the page


@dataclass(frozen=True)
class Materials:
    """Where everything lies."""

    folder: Path
    size: str

    @property
    def checkpoint(self) -> Path:
        return self.folder / f"checkpoint-{self.size}"

    def pack(self, precision: str) -> Path:
        return self.folder / f"pack-{self.size}-{precision}"

    def recording(self, name: str) -> Path:
        return self.folder / f"{name}.wav"

    def hotwords(self, count: int) -> Path:
        return self.folder / f"hotwords-{self.size}-{count}.txt"

    def make_model(self) -> None:
        """The checkpoint and both packs, where they are missing.

        Raises:
            BenchError: a step failed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.checkpoint / "model.pt").exists():
            step(f"random {self.size} checkpoint")
            command: list[str | Path] = [
                sys.executable,
                "-m",
                "scripts.random_checkpoint",
                self.checkpoint,
                "--size",
                self.size,
            ]
            run(command, timeout=LIMIT_SECONDS)
        for precision in PRECISIONS:
            if not (self.pack(precision) / "manifest.json").exists():
                step(f"our {precision} pack")
                command = [sys.executable, "-m", "app", "pack", self.checkpoint]
                command += ["--output", self.pack(precision), "--precision", precision]
                run(command, timeout=LIMIT_SECONDS)

    def make_hotwords(self, count: int) -> Path:
        """A file of so many different words of two or three characters that the model knows."""
        path = self.hotwords(count)
        if not path.exists():
            tokens = json.loads((self.checkpoint / "tokens.json").read_text(encoding="utf-8"))
            path.write_text(" ".join(choose_words(tokens, count)), encoding="utf-8")
        return path

    def make_recording(self, name: str, lengths: list[float]) -> Path:
        """Speech of these lengths with pauses between, and its spans."""
        path = self.recording(name)
        spans = path.with_suffix(".json")
        if not (path.exists() and spans.exists()):
            step(f"the recording {name}")
            samples, found = spoken(read_meeting(), lengths, seed=len(lengths))
            with wave.open(str(path), "wb") as sound:
                sound.setnchannels(1)
                sound.setsampwidth(2)
                sound.setframerate(SAMPLE_RATE)
                sound.writeframes(samples.tobytes())
            spans.write_text(json.dumps(found), encoding="utf-8")
        return path


def choose_words(tokens: list[str], count: int) -> list[str]:
    """Words of the vocabulary's Chinese characters, each once."""
    characters = [token for token in tokens if len(token) == 1 and "\u4e00" <= token <= "\u9fff"]
    chooser = random.Random(count)
    words: dict[str, None] = {}
    while len(words) < count:
        words["".join(chooser.choices(characters, k=chooser.randint(2, 3)))] = None
    return list(words)


def mixed_lengths(seconds: float) -> list[float]:
    """Lengths of speech that fill about `seconds` with their pauses: many short ones, few long ones."""
    chooser = random.Random(1)
    lengths: list[float] = []
    left = seconds
    shortest, longest = SPEECH_SECONDS
    while left > shortest:
        length = min(longest, max(shortest, chooser.lognormvariate(1.6, 0.8)))
        lengths.append(min(length, left))
        left -= length + sum(PAUSE_SECONDS) / 2
    return lengths


def spoken(
    speech: NDArray[np.int16], lengths: list[float], *, seed: int
) -> tuple[NDArray[np.int16], list[list[int]]]:
    """Pieces of `speech`, taken one after the other and around again, with silence between.

    Returns:
        Samples at 16 kHz, and [begin, end] of each piece in milliseconds.
    """
    chooser = random.Random(seed)
    pieces: list[NDArray[np.int16]] = []
    spans: list[list[int]] = []
    place = written = 0
    for seconds in lengths:
        count = round(seconds * 1000) * (SAMPLE_RATE // 1000)
        pieces.append(np.take(speech, np.arange(place, place + count), mode="wrap"))
        spans.append([written * 1000 // SAMPLE_RATE, (written + count) * 1000 // SAMPLE_RATE])
        place = (place + count) % len(speech)
        pause = round(chooser.uniform(*PAUSE_SECONDS) * 1000) * (SAMPLE_RATE // 1000)
        pieces.append(np.zeros(pause, np.int16))
        written += count + pause
    return np.concatenate(pieces), spans

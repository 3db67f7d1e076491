"""The programs that are compared: how each is started, and what of its run is counted.

Not here: materials, repetition, tables.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from scripts.bench.materials import OUR_PYTHON, PEER_PYTHON, RUNNER, TORCH_PYTHON, Materials
from scripts.bench.measure import BenchError, run

PIECE_SECONDS = 30
FRAME_SECONDS = 0.06
# Eager attention holds four copies of (4 heads, T, T) in fp32: scores, masked, softmax, masked again.
ATTENTION_BYTES_PER_FRAME_SQUARED = 64
# `python -m app` with the torch backend, made for GPUs, in place of the CPU's. The product has no such setting.
_TORCH_ON_CPU = """
import functools, sys
import app.asr.opening as opening
from app.asr.torch_backend import TorchBackend
from app.cli import main
opening.OnnxBackend = functools.partial(TorchBackend, device="cpu", precision="fp32")
sys.exit(main(sys.argv[1:]))
"""


@dataclass(frozen=True)
class Task:
    """One file for every contestant."""

    seconds: int
    audio: Path
    threads: int
    whole_file_limit_bytes: int


@dataclass(frozen=True)
class Run:
    """What one process took.

    Attributes:
        load_seconds: from the start of the process to a model that is ready.
        transcribe_seconds: from there to the last word.
        first_seconds: from the start of the process to the first text that a reader sees.
        peak_rss_bytes: the most memory it held.
        words: words or characters with a time in the answer.
    """

    contestant: str
    seconds: int
    threads: int
    load_seconds: float
    transcribe_seconds: float
    first_seconds: float
    peak_rss_bytes: int
    words: int


def attention_bytes(seconds: int) -> int:
    """Memory that AutoModel's encoder needs for attention when a file of this length is one segment."""
    return ATTENTION_BYTES_PER_FRAME_SQUARED * round(seconds / FRAME_SECONDS) ** 2


def piece_seconds(task: Task) -> int:
    """0 when a peer can take the file as it is, else the length of the pieces it is fed by hand."""
    return 0 if attention_bytes(task.seconds) < task.whole_file_limit_bytes else PIECE_SECONDS


@dataclass(frozen=True)
class Ours:
    """This program's command line; `start` is what Python is given to run it."""

    name: str
    start: tuple[str | Path, ...]
    pack: Path
    hotwords: str

    def run(self, task: Task) -> Run:
        command: list[str | Path] = [*self.start, "transcribe", task.audio, "--model", self.pack]
        command += ["--threads", str(task.threads), "--hotwords", self.hotwords, "--format"]
        told = run([*command, "json"])
        answer = json.loads(told.text)
        transcribe_seconds = answer["rtf"] * answer["duration"]
        shown = run([*command, "text"])
        if not shown.lines:
            raise BenchError(f"No speech was found in {task.audio}. Delete it, so that it is made again.")
        return Run(
            self.name,
            task.seconds,
            task.threads,
            told.seconds - transcribe_seconds,
            transcribe_seconds,
            shown.lines[0][0],
            max(told.peak_rss_bytes, shown.peak_rss_bytes),
            len(answer["words"]),
        )


@dataclass(frozen=True)
class Peer:
    """A program in .venv-bench, behind run_peer.py."""

    name: str
    verb: str
    model: Path
    hotwords: str

    def run(self, task: Task) -> Run:
        length, threads = str(piece_seconds(task)), str(task.threads)
        finished = run(
            [PEER_PYTHON, RUNNER, self.verb, self.model, task.audio, threads, self.hotwords, length]
        )
        loaded, _ = finished.event("loaded")
        first, _ = finished.event("first")
        done, facts = finished.event("done")
        words = int(facts["words"])
        taken = (loaded, done - loaded, first, finished.peak_rss_bytes)
        return Run(self.name, task.seconds, task.threads, *taken, words)


def all_contestants(materials: Materials) -> list[Ours | Peer]:
    """In the order of the tables."""
    words, packs, ours = materials.hotwords, materials.packs, (OUR_PYTHON, "-m", "app")
    return [
        Peer("FunASR AutoModel fp32", "automodel", materials.checkpoint, words),
        Peer("funasr-onnx fp32", "onnx-fp32", materials.graphs, words),
        Peer("funasr-onnx int8", "onnx-int8", materials.graphs, words),
        Peer("sherpa-onnx fp32, no hot words", "sherpa-fp32", materials.sherpa, words),
        Peer("sherpa-onnx int8, no hot words", "sherpa-int8", materials.sherpa, words),
        Ours("ours fp32, by torch", (TORCH_PYTHON, "-c", _TORCH_ON_CPU), packs["fp32"], words),
        Ours("ours fp32", ours, packs["fp32"], words),
        Ours("ours int8", ours, packs["int8"], words),
    ]

"""The programs that are compared: how each is started, and what of its run is counted.

Not here: materials, repetition, tables.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from scripts.bench.materials import OUR_PYTHON, PEER_PYTHON, RUNNER, Materials
from scripts.bench.measure import BenchError, run

PIECE_SECONDS = 30
FRAME_SECONDS = 0.06
# Eager attention holds four copies of (4 heads, T, T) in fp32: scores, masked, softmax, masked again.
ATTENTION_BYTES_PER_FRAME_SQUARED = 64


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
    """This program's command line."""

    precision: str
    materials: Materials

    @property
    def name(self) -> str:
        return f"ours {self.precision}"

    def run(self, task: Task) -> Run:
        pack = self.materials.packs[self.precision]
        command: list[str | Path] = [OUR_PYTHON, "-m", "app", "transcribe", task.audio, "--model", pack]
        command += ["--threads", str(task.threads), "--hotwords", self.materials.hotwords, "--format"]
        told = run([*command, "json"])
        answer = json.loads(told.text)
        transcribe_seconds = answer["rtf"] * answer["duration"]
        shown = run([*command, "text"])
        if not shown.lines:
            raise BenchError(f"No speech was found in {task.audio}. Delete it, so that it is made again.")
        return Run(
            self.name,
            task.seconds,
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
        return Run(self.name, task.seconds, loaded, done - loaded, first, finished.peak_rss_bytes, words)


def all_contestants(materials: Materials) -> list[Ours | Peer]:
    """In the order of the tables."""
    words = materials.hotwords
    return [
        Peer("FunASR AutoModel fp32", "automodel", materials.checkpoint, words),
        Peer("funasr-onnx fp32", "onnx-fp32", materials.graphs, words),
        Peer("funasr-onnx int8", "onnx-int8", materials.graphs, words),
        Peer("sherpa-onnx fp32, no hot words", "sherpa-fp32", materials.sherpa, words),
        Peer("sherpa-onnx int8, no hot words", "sherpa-int8", materials.sherpa, words),
        Ours("fp32", materials),
        Ours("int8", materials),
    ]

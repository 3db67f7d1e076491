"""The steps of the GPU benchmark: which program runs on which recording with which hot words, and the row it gives.

Every run is a process of its own with a time limit; one that fails becomes a row with the reason. Not here: the
order and the clock (gpu.py), tables (gpu_report.py), recordings and weights (gpu_materials.py).
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.bench.gpu_materials import BATCH_BREAKER, Materials, mixed_lengths
from scripts.bench.materials import ROOT
from scripts.bench.measure import BenchError, Finished, run

MIXED_SECONDS = 3600
CALIBRATIONS = "seaco-speech"  # folder below XDG_CACHE_HOME in which the product keeps what it measured
SHORTEST_SECONDS = 5.0  # of a recording in a rehearsal
_POLL_SECONDS = 0.25
_LONGEST_REASON = 200


@dataclass(frozen=True)
class Row:
    """One run.

    Attributes:
        step, program, case: what was run; `case` is the recording, or what else tells two rows apart.
        hotwords: how many were given.
        audio_seconds: length of the recording.
        seconds: from a ready model to the last word.
        load_seconds: from the start of the process to a ready model.
        peak_bytes: the most that torch's allocator gave out at once.
        device_bytes: the most that the whole device held beside what it held before, context included.
        rss_bytes: the most host memory the process held.
        failed: why there are no figures.
        facts: what else the run told.
    """

    step: str
    program: str
    case: str
    hotwords: int = 0
    audio_seconds: float | None = None
    seconds: float | None = None
    load_seconds: float | None = None
    peak_bytes: int | None = None
    device_bytes: int | None = None
    rss_bytes: int | None = None
    failed: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """What every step works with.

    Attributes:
        device: "cuda:0", or "cpu" for a rehearsal.
        left: seconds that are left for the next run.
        factor: lengths of recordings are multiplied by it; 1 except in a rehearsal.
        cache: folder given to the programs as XDG_CACHE_HOME.
    """

    materials: Materials
    device: str
    left: Callable[[], float]
    cache: Path
    factor: float = 1.0
    rounds: int = 2

    def recording(self, name: str) -> Path:
        """A recording by its name in the tables: "60 s", "1 h", "100 x 2 s + 58 s"."""
        lengths = (
            list(BATCH_BREAKER)
            if name == BREAKER
            else mixed_lengths(max(SHORTEST_SECONDS, SECONDS[name] * self.factor))
        )
        if name == BREAKER and self.factor < 1:
            lengths = [2.0] * 5 + [20.0]
        return self.materials.make_recording(name.replace(" ", ""), lengths)


BREAKER = "100 x 2 s + 58 s"
SECONDS = {"10 s": 10, "60 s": 60, "300 s": 300, "1 h": MIXED_SECONDS, "3 h": 3 * MIXED_SECONDS}
OURS = ("ours fp16", "ours fp32")
AUTOMODEL = "AutoModel fp32"
PROGRAMS = (*OURS, AUTOMODEL)


def measured(bench: Bench, row: Row, *, card: float | None = None) -> Row:
    """Runs a row's program on its recording, and fills the row in. Never raises what a run can raise.

    Args:
        card: GiB of the card that is pretended; None: the real one.
    """
    try:
        if bench.left() < 1:
            return _replaced(row, failed="not started: the time was up")
        audio = bench.recording(row.case.partition(",")[0])
        words = bench.materials.make_hotwords(row.hotwords) if row.hotwords else None
        with DeviceWatch(bench.device) as watch:
            made = (_automodel if row.program == AUTOMODEL else _ours)(bench, row, audio, words, card)
        return _replaced(made, device_bytes=watch.most)
    except (BenchError, OSError, ValueError, KeyError) as error:
        return _replaced(row, failed=reason_of(error))


def _ours(bench: Bench, row: Row, audio: Path, words: Path | None, card: float | None) -> Row:
    precision = row.program.split()[1]
    model = "demo" if precision == "demo" else bench.materials.pack(precision)
    command: list[str | Path] = ["-m", "app", "transcribe", audio, "--model", model, "--format", "json"]
    command += ["--device", bench.device, "--hotwords", f"@{words}" if words else "off"]
    command += [] if precision == "demo" else ["--precision", precision]
    finished = _run(bench, command, card)
    told = json.loads(finished.text)
    seconds = told["rtf"] * told["duration"]
    facts = {name: told[name] for name in ("device", "precision")} | {"words": len(told["words"])}
    return _replaced(
        row,
        audio_seconds=told["duration"],
        seconds=seconds,
        load_seconds=finished.seconds - seconds,
        peak_bytes=told.get("device_memory", {}).get("peak_bytes"),
        rss_bytes=finished.peak_rss_bytes,
        facts=facts,
    )


def _automodel(bench: Bench, row: Row, audio: Path, words: Path | None, card: float | None) -> Row:
    listed = words or _empty(bench)
    command: list[str | Path] = ["-m", "scripts.bench.run_automodel", bench.materials.checkpoint, audio]
    finished = _run(bench, [*command, bench.device, listed, *([str(card)] if card else [])], None)
    loaded, _ = finished.event("loaded")
    _, told = finished.event("done")
    spans = json.loads(audio.with_suffix(".json").read_text(encoding="utf-8"))
    return _replaced(
        row,
        audio_seconds=spans[-1][1] / 1000,
        seconds=told["seconds"],
        load_seconds=loaded,
        peak_bytes=told["peak_bytes"],
        rss_bytes=finished.peak_rss_bytes,
        facts={"words": told["words"], "held_bytes": told["held_bytes"]},
    )


def _empty(bench: Bench) -> Path:
    path = bench.materials.folder / "hotwords-none.txt"
    path.touch()
    return path


def _run(bench: Bench, command: list[str | Path], card: float | None) -> Finished:
    smaller = ["-m", "scripts.bench.small_card", str(card)] if card else []
    return run([sys.executable, *smaller, *command], timeout=max(1.0, bench.left()))


def _replaced(row: Row, **changes: Any) -> Row:
    return Row(**(row.__dict__ | changes))


def reason_of(error: BaseException) -> str:
    """The line of a failure that says most: of a program's output the one that names an error, else the last."""
    lines = [line.strip().replace(f"{ROOT}/", "") for line in str(error).splitlines() if line.strip()]
    if any(line.endswith("ended with 124:") for line in lines):
        return "took longer than the time that was left"
    telling = [line for line in lines if "rror: " in line or "OutOfMemory" in line]
    said = (telling or lines or [type(error).__name__])[-1]
    return said if len(said) <= _LONGEST_REASON else said[: _LONGEST_REASON - 1] + "…"


class DeviceWatch:
    """Asks nvidia-smi, while a program runs, how much memory the device holds beside what it held before."""

    def __init__(self, device: str) -> None:
        self._index = device.partition(":")[2] or "0" if device.startswith("cuda") else None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._before = 0
        self.most: int | None = None

    def __enter__(self) -> DeviceWatch:
        before = self._used()
        if before is not None:
            self._before = before
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(_POLL_SECONDS):
            used = self._used()
            if used is not None:
                self.most = max(self.most or 0, used - self._before)

    def _used(self) -> int | None:
        if self._index is None:
            return None
        command = [
            "nvidia-smi",
            "--query-gpu=memory.used",
            "--format=csv,noheader,nounits",
            "-i",
            self._index,
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
            return int(done.stdout.split()[0]) << 20
        except (OSError, ValueError, IndexError, subprocess.SubprocessError):
            return None


def materials_step(bench: Bench) -> Iterator[Row]:
    """Weights, packs and recordings; no figures."""
    try:
        bench.materials.make_model()
        for name in (*SECONDS, BREAKER):
            bench.recording(name)
    except (BenchError, OSError) as error:
        yield Row("materials", "materials", bench.materials.size, failed=reason_of(error))


def ready_step(bench: Bench) -> Iterator[Row]:
    """From the start of the process to a ready model: the first time on this device, and later."""
    (bench.cache / CALIBRATIONS / "memory.json").unlink(missing_ok=True)
    for case in ("10 s, first start", "10 s, later start"):
        for program in PROGRAMS:
            yield measured(bench, Row("ready", program, case))


def memory_step(bench: Bench) -> Iterator[Row]:
    """What batches take beside what was foretold, and the self-check."""
    for program in OURS:
        row = Row("memory", program, "grid")
        precision = program.split()[1]
        command: list[str | Path] = ["-m", "app", "bench", "--memory", "--json", "--device", bench.device]
        command += ["--model", bench.materials.pack(precision), "--precision", precision]
        try:
            finished = _run(bench, command, None)
            facts = json.loads(finished.text)
        except (BenchError, ValueError) as error:
            yield _replaced(row, failed=reason_of(error))
            continue
        yield _replaced(row, peak_bytes=facts["peak_bytes"], rss_bytes=finished.peak_rss_bytes, facts=facts)


def mixed_step(bench: Bench) -> Iterator[Row]:
    """One hour of speech of mixed lengths, in turns; and our audio side alone, which a tiny model shows."""
    for _ in range(bench.rounds):
        for program in PROGRAMS:
            yield measured(bench, Row("mixed", program, "1 h", hotwords=100))
    yield measured(bench, Row("mixed", "ours demo", "1 h"))


def breaker_step(bench: Bench) -> Iterator[Row]:
    """The recording that AutoModel makes one huge batch of."""
    for program in PROGRAMS:
        yield measured(bench, Row("breaker", program, BREAKER, hotwords=100))


def lengths_step(bench: Bench) -> Iterator[Row]:
    """From ten seconds to three hours; one hour is in the mixed step."""
    for name in SECONDS:
        if name != "1 h":
            for program in PROGRAMS:
                yield measured(bench, Row("lengths", program, name, hotwords=100))


def hotwords_step(bench: Bench) -> Iterator[Row]:
    """One hour without, with few and with many hot words, in turns."""
    for count in (0, 100, 1000):
        for program in PROGRAMS:
            yield measured(bench, Row("hotwords", program, "1 h", hotwords=count))


def small_step(bench: Bench) -> Iterator[Row]:
    """Cards of 2 and 4 GB."""
    for card in (2, 4):
        for name in ("300 s", BREAKER):
            for program in PROGRAMS:
                row = Row("small", program, f"{name}, {card} GB", hotwords=100)
                yield measured(bench, row, card=float(card))


STEPS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "materials": materials_step,
    "ready": ready_step,
    "memory": memory_step,
    "breaker": breaker_step,
    "mixed": mixed_step,
    "lengths": lengths_step,
    "small": small_step,
    "hotwords": hotwords_step,
}

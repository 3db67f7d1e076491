"""`make bench-memory`: one model on files of one minute, one hour and ten hours; memory must stay the same.

Writes docs/benchmarks/memory.md and memory.json. Takes the demo model, or the pack that --model names.

    python -m scripts.bench.memory [--quick] [--model PACK] [--seconds 60,3600,36000] [--threads N]
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scripts.bench.machine import describe, granted_cores
from scripts.bench.materials import OUR_PYTHON, ROOT, make_audio
from scripts.bench.measure import BenchError, run
from scripts.bench.report import MIB, length_of

WORK = ROOT / "build" / "bench"


@dataclass(frozen=True)
class Footprint:
    """One file's run: seconds of audio, peak memory, first text after the start, the whole run, lines of text."""

    seconds: int
    peak_rss_bytes: int
    first_seconds: float
    total_seconds: float
    lines: int


def measure(model: str, seconds: int, threads: int) -> Footprint:
    """Transcribe a file of that length to standard output, as text.

    Raises:
        BenchError: the program failed, or printed nothing.
    """
    command: list[str | Path] = [
        OUR_PYTHON,
        "-m",
        "app",
        "transcribe",
        make_audio(WORK, seconds),
        "--model",
        model,
    ]
    finished = run([*command, "--threads", str(threads), "--format", "text"], timeout=86_400)
    if not finished.lines:
        raise BenchError(
            f"No text came out of {seconds} s of audio. Does the model {model} know the meeting?"
        )
    return Footprint(
        seconds, finished.peak_rss_bytes, finished.lines[0][0], finished.seconds, len(finished.lines)
    )


def table(model: str, machine: dict[str, Any], found: list[Footprint]) -> str:
    """Write the page."""
    base = found[0]
    cores = (
        f"{machine['cores']} cores granted, load average {machine['load_average_at_start']} before the start"
    )
    lines = [
        "# Memory against length",
        "",
        f"Written by `make bench-memory` on {machine['date']}; do not edit. Model: {model}.",
        f"Machine: {machine['processor']}, {cores}. Peak RSS of the whole process, as the kernel counts it.",
        "",
        "| audio | peak RSS MiB | against the first | first text after s | whole run s | of the audio |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {length_of(one.seconds)} | {one.peak_rss_bytes / MIB:.0f}"
        f" | {one.peak_rss_bytes / base.peak_rss_bytes:.3f} | {one.first_seconds:.2f}"
        f" | {one.total_seconds:.1f} | {one.total_seconds / one.seconds:.4f} |"
        for one in found
    ]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.bench.memory", description="Memory against length."
    )
    parser.add_argument("--quick", action="store_true", help="10 s and 60 s only, written below build/")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--seconds")
    parser.add_argument("--threads", type=int, default=granted_cores())
    options = parser.parse_args(arguments)
    lengths = options.seconds or ("10,60" if options.quick else "60,3600,36000")
    folder = WORK / "quick" if options.quick else ROOT / "docs" / "benchmarks"
    machine = describe({"ours": OUR_PYTHON})
    found = []
    try:
        WORK.mkdir(parents=True, exist_ok=True)
        for length in lengths.split(","):
            found.append(measure(options.model, int(length), options.threads))
            print(found[-1], file=sys.stderr, flush=True)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    name = Path(options.model).name
    folder.mkdir(parents=True, exist_ok=True)
    raw = {"machine": machine, "model": name, "runs": [asdict(one) for one in found]}
    (folder / "memory.json").write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
    (folder / "memory.md").write_text(table(name, machine, found), encoding="utf-8")
    print(table(name, machine, found), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

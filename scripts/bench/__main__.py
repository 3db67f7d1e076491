"""`make bench`: all contestants on all files, in turns; writes docs/benchmarks/NAME.md and NAME.json.

python -m scripts.bench [--quick] [--seconds 10,60,300,3600] [--rounds 3] [--threads 2,1] [--only TEXT] [--name peers]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from scripts.bench.contestants import Ours, Peer, Run, Task, all_contestants
from scripts.bench.machine import describe, granted_cores
from scripts.bench.materials import OUR_PYTHON, PEER_PYTHON, ROOT, prepare
from scripts.bench.measure import BenchError
from scripts.bench.report import GIB, Report, title

WORK = ROOT / "build" / "bench"
# From here on a file is long enough that one round tells; more, and other numbers of threads, would take the day.
ONE_ROUND_SECONDS = 1800
MODELS = {
    "full": "random weights in the shape of the published SeACo-Paraformer (247.3 M parameters, seed 0)",
    "thin": "random weights of a network without depth: a rehearsal, its figures mean nothing",
}


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.bench", description="Compare programs on this CPU."
    )
    parser.add_argument("--quick", action="store_true", help="rehearse on a small model and short files")
    parser.add_argument("--seconds", help="lengths of the files (default: 10,60,300,3600)")
    parser.add_argument("--rounds", type=int, help="runs per program and file (default: 3)")
    parser.add_argument("--threads", default=str(granted_cores()), help="numbers of threads, such as 2,1")
    parser.add_argument("--only", default="", help="only programs whose name contains this")
    parser.add_argument("--output", type=Path, help="folder for the report (default: docs/benchmarks)")
    parser.add_argument("--name", default="peers", help="of the report's files (default: peers)")
    options = parser.parse_args(arguments)
    quick = options.quick
    options.threads = [int(part) for part in options.threads.split(",")]
    options.seconds = [
        int(part) for part in (options.seconds or ("5,20" if quick else "10,60,300,3600")).split(",")
    ]
    options.rounds = options.rounds or (1 if quick else 3)
    options.output = options.output or (WORK / "quick" if quick else ROOT / "docs" / "benchmarks")
    return options


def memory_limit() -> int:
    """Memory a peer may take for attention: half of what is free now."""
    for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024 // 2
    return 4 * GIB


def run_all(
    contestants: list[Ours | Peer], tasks: list[Task], rounds: int
) -> tuple[list[Run], dict[str, str]]:
    """Run in turns; a program that fails on a file is told, and left out for that file."""
    runs: list[Run] = []
    failures: dict[str, str] = {}
    for task in tasks:
        for number in range(rounds if task.seconds < ONE_ROUND_SECONDS else 1):
            for contestant in contestants:
                label = f"{contestant.name}, {title(task)}"
                if label in failures:
                    continue
                try:
                    run = contestant.run(task)
                except BenchError as error:
                    failures[label] = str(error).strip().splitlines()[-1]
                    print(f"{label}: failed: {error}", file=sys.stderr, flush=True)
                    continue
                runs.append(run)
                speed = run.transcribe_seconds / task.seconds
                print(
                    f"{label}, round {number + 1}: RTF {speed:.4f}, load {run.load_seconds:.1f} s,"
                    f" first text {run.first_seconds:.1f} s, {run.peak_rss_bytes / 2**20:.0f} MiB",
                    file=sys.stderr,
                    flush=True,
                )
    return runs, failures


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    size = "thin" if options.quick else "full"
    try:
        machine = describe({"ours": OUR_PYTHON, "peers": PEER_PYTHON})
        materials = prepare(WORK, size, options.seconds)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    limit = memory_limit()
    tasks = [
        Task(length, materials.audio[length], threads, limit)
        for threads in options.threads
        for length in options.seconds
        if length < ONE_ROUND_SECONDS or threads == options.threads[0]
    ]
    contestants = [one for one in all_contestants(materials) if options.only in one.name]
    runs, failures = run_all(contestants, tasks, options.rounds)
    report = Report(machine, tasks, runs, MODELS[size], len(materials.hotwords.split()), failures)
    report.write(options.output, options.name)
    print("\n".join(report.lines()))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

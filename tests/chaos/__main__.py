"""`make chaos`: a campaign of random faults, and the page about it.

    .venv-dev/bin/python -m tests.chaos [--seed N] [--minutes M] [--only WORD]... [--write]

Ends with 1 when anything was lost, doubled, changed or told wrongly. Writes build/chaos.*, with --write
docs/benchmarks/chaos.*.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from scripts.bench.machine import describe
from tests.chaos.campaign import run
from tests.chaos.faults import FAULTS
from tests.chaos.report import write

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(description="Random faults against a real service.")
    parser.add_argument("--seed", type=int, default=1, help="of the order of faults and of what clients send")
    parser.add_argument(
        "--minutes", type=float, default=3.0, help="of faults; the reckoning comes after them"
    )
    parser.add_argument(
        "--only", action="append", default=[], help="only faults with this word in their name"
    )
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks")
    told = parser.parse_args()
    names = [name for name in FAULTS if not told.only or any(word in name for word in told.only)]
    if not names:
        parser.error(f"no fault has such a name; there are: {', '.join(FAULTS)}")
    for name in list(os.environ):  # the service and its clients are alone, whatever is set at this keyboard
        if name.startswith("ASR_") or name.lower().endswith("_proxy"):
            del os.environ[name]
    machine = describe({"service": Path(sys.executable)})
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        outcome = run(
            Path(folder), told.seed, told.minutes * 60, names, lambda line: print(line, file=sys.stderr)
        )
    target = ROOT / ("docs/benchmarks" if told.write else "build")
    print(write(outcome, machine, time.monotonic() - began, target))
    return 1 if outcome.violations else 0


sys.exit(main())

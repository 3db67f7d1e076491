"""`make bench-gpu`: ours in fp16 and fp32 beside FunASR's AutoModel in fp32 on one CUDA device.

Writes docs/benchmarks/gpu.md and gpu.json after every run, so that nothing is lost when it is stopped. Steps can be
run one by one, also on other days: those already in gpu.json stay, as long as the device and torch are the same.

    python -m scripts.bench.gpu [--only STEP,...] [--minutes N] [--device cuda:0] [--rehearse]

--rehearse takes the CPU for the device, tiny weights and short recordings, and writes below build/ only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scripts.bench.gpu_materials import Materials
from scripts.bench.gpu_report import page
from scripts.bench.gpu_steps import AUTOMODEL, STEPS, Bench, Row, reason_of
from scripts.bench.machine import describe
from scripts.bench.materials import ROOT

WORK = ROOT / "build" / "bench-gpu"
NAME = "gpu"
DEFAULT_MINUTES = 25.0
# No run may take so long that the others have no time left.
LONGEST_RUN_SECONDS = 300.0
REHEARSAL_FACTOR = 1 / 180
MODELS = {
    "full": "random weights in the shape of the published SeACo-Paraformer (247.3 M parameters, seed 0)",
    "tiny": "random weights of a tiny network",
}
_ASK = (
    "import json, sys, torch\n"
    "index = int((sys.argv[1].split(':') + ['0'])[1])\n"
    "if not torch.cuda.is_available(): sys.exit('torch %s sees no CUDA device' % torch.__version__)\n"
    "p = torch.cuda.get_device_properties(index)\n"
    "print(json.dumps({'name': p.name, 'memory MiB': p.total_memory >> 20,\n"
    "  'compute capability': '%d.%d' % (p.major, p.minor), 'CUDA': torch.version.cuda, 'torch': torch.__version__}))\n"
)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.bench.gpu", description="Compare programs on a GPU."
    )
    parser.add_argument("--only", type=_steps, default=list(STEPS), metavar="STEP,...", help=", ".join(STEPS))
    parser.add_argument(
        "--minutes", type=float, default=DEFAULT_MINUTES, help="runs that would begin later are left out"
    )
    parser.add_argument("--rounds", type=int, default=2, help="of the hour of mixed segments")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, with tiny weights")
    parser.add_argument("--output", type=Path, help="folder for the page (default: docs/benchmarks)")
    options = parser.parse_args(arguments)
    if options.rehearse:
        options.device, options.rounds = "cpu", 1
    options.output = options.output or (
        WORK / "rehearsal" if options.rehearse else ROOT / "docs" / "benchmarks"
    )
    return options


def _steps(text: str) -> list[str]:
    chosen = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in chosen if name not in STEPS]
    if unknown or not chosen:
        raise argparse.ArgumentTypeError(f"{text!r}: the steps are {', '.join(STEPS)}")
    return [name for name in STEPS if name in chosen]


def describe_device(device: str) -> dict[str, Any]:
    """The card, its driver, torch and CUDA; nothing that names the host. Empty for the CPU.

    Raises:
        RuntimeError: torch sees no such device.
    """
    if device == "cpu":
        return {}
    done = subprocess.run([sys.executable, "-c", _ASK, device], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["torch cannot be loaded"])[-1])
    found: dict[str, Any] = json.loads(done.stdout)
    try:
        version = Path("/sys/module/nvidia/version").read_text(encoding="utf-8").strip()
    except OSError:
        version = _driver_by_tool()
    return found | {"driver": version}


def _driver_by_tool() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
        return done.stdout.split()[0]
    except (OSError, IndexError, subprocess.SubprocessError):
        return ""


def earlier(path: Path, machine: dict[str, Any], model: str) -> list[Row]:
    """Rows of an existing JSON, when they are of this device, these versions and this model."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["machine"]["device"] != machine["device"] or data["model"] != model:
            return []
        return [Row(**row) for row in data["rows"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def write(folder: Path, data: dict[str, Any], rows: list[Row]) -> None:
    """Both files, each at once."""
    folder.mkdir(parents=True, exist_ok=True)
    ordered = sorted(rows, key=lambda row: list(STEPS).index(row.step))
    texts = {
        "json": json.dumps(data | {"rows": [asdict(row) for row in ordered]}, indent=1, ensure_ascii=False)
        + "\n",
        "md": page(data, ordered),
    }
    for ending, text in texts.items():
        partial = folder / f".{NAME}.{ending}.part"
        partial.write_text(text, encoding="utf-8")
        partial.replace(folder / f"{NAME}.{ending}")


def carried_out(name: str, bench: Bench) -> Iterator[Row]:
    """The rows of a step; whatever else fails in it becomes its last row."""
    try:
        yield from STEPS[name](bench)
    except Exception as error:  # noqa: BLE001 - nobody watches, and the other steps must run
        yield Row(name, "step", name, failed=reason_of(error))


def told(row: Row) -> str:
    """A row for the one who waits."""
    what = f"{row.step}: {row.program}, {row.case}, {row.hotwords} hot words"
    if row.failed:
        return f"{what}: {row.failed}"
    if row.seconds is None:
        return f"{what}: done"
    peak = "" if row.peak_bytes is None else f", {row.peak_bytes >> 20} MiB"
    return f"{what}: {row.seconds:.2f} s, ready after {row.load_seconds or 0.0:.1f} s{peak}"


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    size = "tiny" if options.rehearse else "full"
    try:
        machine = describe({"ours": Path(sys.executable)}) | {"device": describe_device(options.device)}
    except RuntimeError as error:
        print(f"{error}. With --rehearse it runs on the CPU.", file=sys.stderr)
        return 1
    data = {"machine": machine, "model": MODELS[size], "rehearsal": options.rehearse}
    target = options.output / f"{NAME}.json"
    rows = earlier(target, machine, data["model"])
    end = time.monotonic() + 60 * options.minutes
    os.environ["XDG_CACHE_HOME"] = str(WORK / "cache")
    bench = Bench(
        materials=Materials(WORK / ("rehearsal" if options.rehearse else "full"), size),
        device=options.device,
        left=lambda: min(LONGEST_RUN_SECONDS, end - time.monotonic()),
        cache=WORK / "cache",
        factor=REHEARSAL_FACTOR if options.rehearse else 1.0,
        rounds=options.rounds,
    )
    try:
        bench.materials.make_model()  # what every step needs
    except Exception as error:  # noqa: BLE001 - whatever it was, it is the result of this run
        rows = [row for row in rows if row.step != "materials"]
        rows.append(Row("materials", "materials", size, failed=reason_of(error)))
        write(options.output, data, rows)
        print(told(rows[-1]), file=sys.stderr)
        return 1
    failed = 0
    for name in options.only:
        rows = [row for row in rows if row.step != name]
        for row in carried_out(name, bench):
            rows.append(row)
            failed += bool(row.failed) and row.program != AUTOMODEL
            print(told(row), file=sys.stderr, flush=True)
            write(options.output, data, rows)
    write(options.output, data, rows)
    print(f"written: {options.output / NAME}.md", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

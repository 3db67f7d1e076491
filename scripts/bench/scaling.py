"""`make bench-scaling`: how time and memory of ours grow with length, threads, hot words and clients, beside the floor.

Every point is a process of its own, in turns over the rounds; clients ask one service. Writes
docs/benchmarks/scaling.md, .json and .svg.

    python -m scripts.bench.scaling [--quick] [--only length|hotwords|clients]
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from scripts.bench.machine import describe, granted_cores
from scripts.bench.materials import OUR_PYTHON, ROOT, TORCH_PYTHON, make_audio, prepare
from scripts.bench.measure import BenchError, run
from scripts.bench.report import MIB, PRICE, length_of
from scripts.bench.service import Service, running

WORK = ROOT / "build" / "bench"
DRAW_PYTHON = ROOT / ".venv-monitoring" / "bin" / "python"
MODEL = "random weights in the shape of the published SeACo-Paraformer (247.3 M parameters, seed 0), int8"
PARTS = ("length", "hotwords", "clients")
_ROUNDS, _ONE_ROUND_SECONDS = 3, 1200  # files of that length or longer run once
_CLIENT_SECONDS, _CLIENT_FILES = 30, 64


@dataclass(frozen=True)
class Plan:
    """What is measured; `quick` plans are rehearsals."""

    size: str = "full"
    lengths: tuple[int, ...] = (10, 60, 300, 1200, 3600)
    hotwords: tuple[int, ...] = (0, 1, 10, 50, 100, 300, 1000)
    hotword_seconds: int = 300
    clients: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    rounds: int = _ROUNDS


QUICK = Plan("thin", (5, 20), (0, 60), 20, (1, 4), 1)


@dataclass(frozen=True)
class Point:
    """One setting: medians over the rounds, and the most memory of them.

    Attributes:
        series: "length" or "hotwords", of PARTS.
        rtf: seconds of work for a second of audio, without loading.
    """

    series: str
    seconds: int
    threads: int
    hotwords: int
    rtf: float
    peak_rss_bytes: int


@dataclass(frozen=True)
class Crowd:
    """Some clients who each send file after file: seconds of audio a second, and seconds to an answer."""

    clients: int
    speed: float
    median_seconds: float
    p95_seconds: float
    failures: int


def settings_of(plan: Plan, cores: int) -> list[Point]:
    """Every setting that is run, without figures."""
    threads = sorted({1, cores}, reverse=True)
    made = [Point("length", length, count, 0, 0, 0) for count in threads for length in plan.lengths]
    seconds = plan.hotword_seconds
    # One thread, whose times differ least from run to run.
    return made + [Point("hotwords", seconds, 1, words, 0, 0) for words in plan.hotwords]


def measure(settings: list[Point], pack: Path, words: list[str], rounds: int) -> list[Point]:
    """Runs all of them, in turns. Raises BenchError."""
    runs: dict[Point, list[tuple[float, int]]] = {setting: [] for setting in settings}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            for setting in settings:
                if number and setting.seconds >= _ONE_ROUND_SECONDS:
                    continue
                runs[setting].append(_once(setting, pack, words, Path(folder)))
                told = f"{setting.seconds} s, {setting.hotwords} hot words, threads: {setting.threads}"
                print(f"{told}: RTF {runs[setting][-1][0]:.4f}", file=sys.stderr, flush=True)
    return [
        replace(
            setting,
            rtf=statistics.median(rtf for rtf, _ in found),
            peak_rss_bytes=max(peak for _, peak in found),
        )
        for setting, found in runs.items()
    ]


def _once(setting: Point, pack: Path, words: list[str], folder: Path) -> tuple[float, int]:
    """RTF and peak memory."""
    listed = folder / f"{setting.hotwords}.txt"
    listed.write_text("\n".join(words[: setting.hotwords]), encoding="utf-8")
    finished = run(
        [
            *(OUR_PYTHON, "-m", "app", "transcribe", make_audio(WORK, setting.seconds), "--model", pack),
            *("--threads", str(setting.threads), "--format", "json"),
            *("--hotwords", f"@{listed}" if setting.hotwords else "off"),
        ]
    )
    return json.loads(finished.text)["rtf"], finished.peak_rss_bytes


def make_hotwords(checkpoint: Path, count: int) -> list[str]:
    """Distinct words of two to four characters of the vocabulary, the same each time."""
    tokens = json.loads((checkpoint / "tokens.json").read_text(encoding="utf-8"))
    characters = [token for token in tokens if len(token) == 1 and "\u4e00" <= token <= "\u9fff"]
    chance, made = random.Random(0), set[str]()
    while len(made) < count:
        made.add("".join(chance.sample(characters, chance.randint(2, 4))))
    return sorted(made)


def crowds(service: Service, plan: Plan) -> list[Crowd]:
    """One level after the other."""
    audio = make_audio(WORK, _CLIENT_SECONDS)
    service.ask(audio, _CLIENT_SECONDS)
    made = []
    for clients in plan.clients:
        # Several for each, or all would be decoded at once in the beginning, with nothing beside it at the end.
        files = max(3 * clients, _CLIENT_FILES if plan.size == "full" else 4)
        with ThreadPoolExecutor(clients) as pool:
            begun = time.monotonic()
            answers = list(pool.map(lambda _: service.ask(audio, _CLIENT_SECONDS), range(files)))
            taken = time.monotonic() - begun
        waits = sorted(answer.seconds for answer in answers)
        failures = sum(not answer.good for answer in answers)
        p95 = waits[min(len(waits) - 1, int(0.95 * len(waits)))]
        made.append(Crowd(clients, files * _CLIENT_SECONDS / taken, statistics.median(waits), p95, failures))
        print(made[-1], file=sys.stderr, flush=True)
    return made


def page(
    machine: dict[str, Any],
    points: list[Point],
    crowd: list[Crowd],
    floors: dict[int, dict[str, Any]],
    rounds: int,
) -> str:
    """The page, with goals beside what they are about."""
    lengths = [point for point in points if point.series == "length"]
    words = [point for point in points if point.series == "hotwords"]
    lines = [
        "# How time and memory grow",
        "",
        f"Written by `make bench-scaling` on {machine['date']}; do not edit. Ours alone.",
        "",
        f"- Model: {MODEL}.",
        f"- Machine: {machine['processor']} ({', '.join(machine['instructions'])}), {machine['cores']} cores granted,",
        f"  {machine['memory_gib']} GiB, load average {machine['load_average_at_start']} before the start.",
        f"- Every run in a fresh process, in turns; medians of {rounds} runs, of one from 20 minutes of audio on;",
        "  memory is the highest. Loading is not in the time.",
        "",
        "![Time and memory against length, hot words and clients](scaling.svg)",
        "",
        *_length_rows(lengths),
        "",
        *_floor_rows(lengths, floors),
        "",
        *_hotword_rows(words, floors),
        "",
        *_crowd_rows(crowd),
    ]
    return "\n".join(lines) + "\n"


def _length_rows(points: list[Point]) -> list[str]:
    lines = [
        "## Length and threads, without hot words",
        "",
        f"| audio | threads | RTF | of 60 s | peak RSS MiB | cost of an hour (a core-hour at {PRICE}) |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    minute = {point.threads: point.rtf for point in points if point.seconds == 60}
    for point in points:
        of_minute = f"{point.rtf / minute[point.threads]:.2f}" if minute else "-"
        lines.append(
            f"| {length_of(point.seconds)} | {point.threads} | {point.rtf:.4f} | {of_minute}"
            f" | {point.peak_rss_bytes / MIB:.0f} | {point.rtf * point.threads * PRICE:.5f} |"
        )
    return [*lines, "", "Goal: one hour within 1.1 of one minute. Memory must not grow with length."]


def _floor_rows(points: list[Point], floors: dict[int, dict[str, Any]]) -> list[str]:
    lines = [
        "## The floor",
        "",
        "The matrix products of encoder and decoder alone, each in onnxruntime by itself with its weights in the",
        "cache; what is left out is told in `scripts/bench/floor.py`.",
        "",
        "| threads | floor, int8: RTF | 10^9 a second | ours int8, 300 s: RTF | of the floor | floor, fp32: RTF |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for threads, found in sorted(floors.items(), reverse=True):
        int8 = found["int8"]["rtf"]
        ours = next((point.rtf for point in points if (point.seconds, point.threads) == (300, threads)), None)
        cells = "- | -" if ours is None else f"{ours:.4f} | {ours / int8:.1f}"
        speed = found["int8"]["gmacs_per_second"]
        lines.append(f"| {threads} | {int8:.4f} | {speed:.0f} | {cells} | {found['fp32']['rtf']:.4f} |")
    return lines


def _hotword_rows(points: list[Point], floors: dict[int, dict[str, Any]]) -> list[str]:
    none, first = points[0], points[1]
    branch = floors[none.threads]["hotwords"]
    lines = [
        f"## Hot words, {length_of(none.seconds)} of audio, one thread",
        "",
        "| hot words | RTF | of none | of one | peak RSS MiB | more than none | more than one |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for point in points:
        more = [(point.peak_rss_bytes - base.peak_rss_bytes) / MIB for base in (none, first)]
        lines.append(
            f"| {point.hotwords} | {point.rtf:.4f} | {point.rtf / none.rtf:.2f} | {point.rtf / first.rtf:.2f}"
            f" | {point.peak_rss_bytes / MIB:.0f} | {more[0]:+.0f} | {more[1]:+.0f} |"
        )
    return [
        *lines,
        "",
        "The first hot word loads a part of the network that stays on the disk without any. The goals are 1.03 of the",
        f"time and 16 MiB for {branch['words']} words against none. On a CPU the first is out of reach as long as that",
        f"part stays in fp32: its matrix products alone take RTF {branch['rtf']:.4f} for {branch['words']} words here,",
        f"{branch['rtf'] / none.rtf:.0%} of the time without hot words.",
    ]


def _crowd_rows(crowd: list[Crowd]) -> list[str]:
    lines = [
        f"## Clients that each send files of {_CLIENT_SECONDS} s without a pause",
        "",
        "| clients | seconds of audio a second | of one client | answer s, median | 95 % within | failed |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for level in crowd:
        lines.append(
            f"| {level.clients} | {level.speed:.1f} | {level.speed / crowd[0].speed:.2f} | {level.median_seconds:.2f}"
            f" | {level.p95_seconds:.2f} | {level.failures} |"
        )
    return [*lines, "", "Goal: 64 clients at 0.95 of one client at least, none failed."]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.bench.scaling",
        description="How time and memory grow with length, hot words and clients.",
    )
    parser.add_argument("--quick", action="store_true", help="a rehearsal, written below build/")
    parser.add_argument(
        "--only", choices=PARTS, help="measure this part anew, the others stay as scaling.json has them"
    )
    options = parser.parse_args(arguments)
    plan = QUICK if options.quick else Plan()
    folder = WORK / "quick" if options.quick else ROOT / "docs" / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    machine, cores = describe({"ours": OUR_PYTHON}), granted_cores()
    parts = (options.only,) if options.only else PARTS
    try:
        raw = json.loads((folder / "scaling.json").read_text(encoding="utf-8")) if options.only else {}
        materials = prepare(WORK, plan.size, [*plan.lengths, plan.hotword_seconds, _CLIENT_SECONDS])
        pack = materials.packs["int8"]
        if "length" in parts:
            raw["floors"] = {
                threads: run([TORCH_PYTHON, "-m", "scripts.bench.floor", pack, str(threads)]).event("done")[1]
                for threads in sorted({1, cores}, reverse=True)
            }
        words = make_hotwords(materials.checkpoint, max(plan.hotwords))
        settings = [one for one in settings_of(plan, cores) if one.series in parts]
        kept = [one for one in raw.get("points", ()) if one["series"] not in parts]
        raw["points"] = kept + [asdict(point) for point in measure(settings, pack, words, plan.rounds)]
        if "clients" in parts:
            with tempfile.TemporaryDirectory() as work, running(str(pack), Path(work)) as service:
                service.wait_for_page()
                raw["crowds"] = [asdict(one) for one in crowds(service, plan)]
        raw["machine"] = machine
        (folder / "scaling.json").write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
        text = page(
            machine,
            [Point(**one) for one in raw["points"]],
            [Crowd(**one) for one in raw["crowds"]],
            {int(threads): found for threads, found in raw["floors"].items()},
            plan.rounds,
        )
        (folder / "scaling.md").write_text(text, encoding="utf-8")
        drawing = (DRAW_PYTHON, "-m", "scripts.bench.draw_scaling")
        run([*drawing, folder / "scaling.json", folder / "scaling.svg"])
    except (BenchError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

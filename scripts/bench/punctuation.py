"""`make bench-punc`: the punctuation model beside FunASR's AutoModel, on random weights of the published shape.

Writes docs/benchmarks/punctuation.md and punctuation.json. One thread each; programs take turns.

    python -m scripts.bench.punctuation [--quick] [--tokens 5000,20000] [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from scripts.bench.machine import describe
from scripts.bench.materials import ROOT
from scripts.bench.measure import BenchError, run
from scripts.bench.report import MIB
from scripts.bench.run_punctuation import OURS
from scripts.random_punctuation import sentences

WORK = ROOT / "build" / "bench-punctuation"
AUTOMODEL = "FunASR AutoModel, fp32"
PROGRAMS = ("ours, int8", "ours, fp32", AUTOMODEL)
MAPPED = "ours, fp32, if the table were mapped"
_SPEECH_TOKENS = 4.0  # a second, about what the recogniser gives


@dataclass(frozen=True)
class Run:
    """One program on one text. Seconds; MiB; `agree` is the share of marks that are AutoModel's."""

    program: str
    tokens: int
    load_seconds: float
    seconds: float
    cpu_seconds: float
    before: float
    anonymous: float
    mapped: float
    peak: float
    agree: float | None = None


def prepare(size: str, tokens: list[int]) -> None:
    """The checkpoint, both packs and the texts, where they are missing. Raises BenchError."""
    checkpoint = WORK / f"checkpoint-{size}"
    if not (checkpoint / "model.pt").exists():
        run([sys.executable, "-m", "scripts.random_punctuation", checkpoint, "--size", size])
    for precision in ("int8", "fp32"):
        pack = WORK / f"pack-{size}-{precision}"
        if not pack.exists():
            run([sys.executable, "-m", "app", "pack", checkpoint, "--output", pack, "--precision", precision])
    listed = json.loads((checkpoint / "tokens.json").read_text(encoding="utf-8"))
    for count in tokens:
        text = "".join(sentences(listed, count, seed=count))
        (WORK / f"{size}-{count}.txt").write_text(text, encoding="utf-8")


def measure(program: str, size: str, tokens: int) -> Run:
    """One run. Raises BenchError."""
    text, target = WORK / f"{size}-{tokens}.txt", WORK / f"{size}-{tokens}-{PLAIN[program]}.json"
    command: list[str | Path] = [sys.executable]
    if program == AUTOMODEL:
        runner = ["-m", "scripts.bench.run_punctuation", "automodel"]
        command += [*runner, WORK / f"checkpoint-{size}", text, target]
    else:
        precision = "int8" if "int8" in program else "fp32"
        table = "mapped" if program == MAPPED else "pread"
        command += ["-c", OURS, WORK / f"pack-{size}-{precision}", text, target, table]
    finished = run(command)
    before, loaded, done = (finished.event(name)[1] for name in ("started", "loaded", "done"))
    return Run(
        program=program,
        tokens=int(done["words"]),
        load_seconds=loaded["seconds"],
        seconds=done["seconds"],
        cpu_seconds=done["cpu"],
        before=before["rss"],
        anonymous=done["anonymous"],
        mapped=done["mapped"],
        peak=finished.peak_rss_bytes / MIB,
        agree=agreement(size, tokens, target),
    )


PLAIN = {AUTOMODEL: "automodel", "ours, int8": "int8", "ours, fp32": "fp32", MAPPED: "mapped"}


def agreement(size: str, tokens: int, target: Path) -> float | None:
    """The share of words that have AutoModel's mark; None while that has not run."""
    reference = WORK / f"{size}-{tokens}-{PLAIN[AUTOMODEL]}.json"
    if not reference.exists() or target == reference:
        return None
    theirs, mine = (json.loads(path.read_text(encoding="utf-8")) for path in (reference, target))
    if len(theirs) != len(mine):
        raise BenchError(f"{target} has {len(mine)} marks, AutoModel gave {len(theirs)}.")
    same = [one for one, other in zip(mine, theirs, strict=True) if one == other]
    return len(same) / len(theirs)


_COLUMNS = (
    "tokens",
    "program",
    "load s",
    "processor ms a token",
    "wall ms a token",
    "marks as AutoModel's",
    "own memory MiB",
    "mapped files MiB",
    "peak RSS MiB",
)


def table(runs: list[Run], machine: dict[str, Any], size: str) -> str:
    """The page. Raises BenchError when a program has no run."""
    beside = f"load average {machine['load_average_at_start']} before the start"
    lines = [
        "# Punctuation",
        "",
        f"Written by `make bench-punc` on {machine['date']}; do not edit. A CT-Transformer of {size} size",
        "(full is that of ct-punc-c: 272,727 tokens, width 256, 4 layers) with random weights: its marks mean nothing.",
        f"Machine: {machine['processor']}, {machine['cores']} cores granted, {beside}. Other work ran beside, so",
        "look at processor time first. One thread each, in turns; medians of times, the worst of memory.",
        "",
        f"| {' | '.join(_COLUMNS)} |",
        "|---:|---|" + "---:|" * (len(_COLUMNS) - 2),
    ]
    keys = dict.fromkeys((one.tokens, one.program) for one in runs)
    for tokens, program in sorted(keys, key=lambda key: key[0]):
        mine = [one for one in runs if (one.tokens, one.program) == (tokens, program)]
        agree = mine[-1].agree
        lines.append(
            f"| {tokens} | {program} | {median(one.load_seconds for one in mine):.2f}"
            f" | {1000 * median(one.cpu_seconds / one.tokens for one in mine):.3f}"
            f" | {1000 * median(one.seconds / one.tokens for one in mine):.3f}"
            f" | {'-' if agree is None or program == MAPPED else f'{100 * agree:.2f} %'}"
            f" | {max(one.anonymous for one in mine):.0f} | {max(one.mapped for one in mine):.0f}"
            f" | {max(one.peak for one in mine):.0f} |"
        )
    return "\n".join([*lines, "", *_words(runs)]) + "\n"


def _words(runs: list[Run]) -> list[str]:
    def cost(program: str) -> float:
        found = [one.cpu_seconds / one.tokens for one in runs if one.program == program]
        if not found:
            raise BenchError(f"{program} was not run.")
        return median(found)

    ours, exact, theirs = (cost(program) for program in PROGRAMS)
    before = median(one.before for one in runs if one.program != AUTOMODEL)
    int8 = [one for one in runs if one.program == PROGRAMS[0]]
    added = max(one.anonymous + one.mapped for one in int8) - before
    speech = f"{ours * _SPEECH_TOKENS:.5f} s for a second of speech ({_SPEECH_TOKENS:g} tokens)"
    return [
        f"Ours in int8 takes {ours / theirs:.2f} of AutoModel's processor time, in fp32 {exact / theirs:.2f}.",
        f"int8 is {speech}.",
        "",
        f"Before the model is opened, our process (numpy and the text modules) holds {before:.0f} MiB. In int8 it adds",
        f"{added:.0f} MiB, the library of its runtime included. The table is read row by row and never mapped; the",
        "rows that say otherwise show what mapping it would add to resident memory.",
    ]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.bench.punctuation", description="Punctuation.")
    parser.add_argument("--quick", action="store_true", help="a tiny model, written below build/")
    parser.add_argument("--tokens", default="")
    parser.add_argument("--rounds", type=int, default=0)
    options = parser.parse_args(arguments)
    size = "tiny" if options.quick else "full"
    tokens = [
        int(count) for count in (options.tokens or ("400" if options.quick else "5000,20000")).split(",")
    ]
    folder = WORK / "quick" if options.quick else ROOT / "docs" / "benchmarks"
    machine = describe({"ours and FunASR": Path(sys.executable)})
    runs = []
    try:
        WORK.mkdir(parents=True, exist_ok=True)
        prepare(size, tokens)
        for _ in range(options.rounds or (1 if options.quick else 2)):
            for count in tokens:
                for program in (AUTOMODEL, *PROGRAMS[:2], MAPPED):
                    runs.append(measure(program, size, count))
                    print(runs[-1], file=sys.stderr, flush=True)
        page = table(runs, machine, size)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    raw = {"machine": machine, "runs": [asdict(one) for one in runs]}
    (folder / "punctuation.json").write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
    (folder / "punctuation.md").write_text(page, encoding="utf-8")
    print(page, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

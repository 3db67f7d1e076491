"""Make the demo model: a small SeACo-Paraformer trained on synthetic Mandarin, with recordings and a held-out report.

    python -m scripts.train_demo_model --output build/demo-model

Needs torch (CPU), funasr, kaldi-native-fbank, scipy, av and the espeakng-loader wheel; nothing from the system.
Lives here: the order of the stages and the command line. Not here: what a stage does (scripts/demo_model/).
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scripts.demo_model import grammar

# Added to --seed, so that every stage draws its own numbers.
SEED_WEIGHTS, SEED_PHASES, SEED_TIMES, SEED_HOTWORDS, SEED_TAPES = 3, (7, 9, 10), 8, 11, 20


@dataclass(frozen=True)
class Size:
    """How much is done: a full run takes about an hour on two cores, a smoke run one or two minutes."""

    tapes: int
    tape_seconds: float
    share_of_steps: float
    timestamp_steps: int
    spelling_steps: int
    hotword_steps: int
    held_out: tuple[int, int, int]  # plain, rare, named


FULL = Size(700, 122.0, 1.0, 220, 300, 1500, (120, 60, 100))
SMOKE = Size(4, 40.0, 0.004, 4, 5, 8, (3, 2, 2))


def log(text: str) -> None:
    """Print one line of progress."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def train(arguments: argparse.Namespace, size: Size) -> None:
    """Run all stages; a complete model directory is written after each, and a finished stage is not run again."""
    import torch

    from scripts.demo_model import clips, hotwords, network, recogniser, spelling, tapes, timestamps

    torch.set_num_threads(arguments.threads)
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    stored = work / "tapes.npz"
    if not stored.exists():
        plan = tapes.TapePlan(seconds=size.tape_seconds, seed=arguments.seed + SEED_TAPES)
        tapes.save_tapes(stored, tapes.make_tapes(plan, size.tapes, arguments.threads))
    recorded = tapes.load_tapes(stored)
    tokens = grammar.vocabulary()
    torch.manual_seed(arguments.seed + SEED_WEIGHTS)
    model = network.build(tokens)
    network.speed_up(model)

    def sampler(seed: int) -> clips.ClipSampler:
        return clips.ClipSampler(recorded, tokens, arguments.seed + seed)

    def write(name: str, drawn: clips.ClipSampler) -> None:
        torch.save(model.state_dict(), work / f"{name}.pt")
        network.write_directory(arguments.output, model.state_dict(), tokens, (drawn.shift, drawn.scale))

    def restored(name: str) -> bool:
        if not (work / f"{name}.pt").exists():
            return False
        model.load_state_dict(torch.load(work / f"{name}.pt", weights_only=True))
        log(f"{name}: taken from {work}")
        return True

    for number, phase in enumerate(recogniser.PHASES, 1):
        name = f"recogniser-{number}"
        if not restored(name):
            drawn = sampler(SEED_PHASES[number - 1])
            steps = max(2, int(phase.steps * size.share_of_steps))
            recogniser.train(model, drawn, replace(phase, steps=steps), log)
            write(name, drawn)
    if not restored("timestamps"):
        drawn = sampler(SEED_TIMES)
        timestamps.train(model, drawn, timestamps.TimestampPlan(size.timestamp_steps), log)
        write("timestamps", drawn)
    if not restored("hotwords"):
        drawn = sampler(SEED_HOTWORDS)
        chosen = hotwords.clips_for_hotwords(drawn, len(drawn.sentences) // 6)
        states = hotwords.remember(model, drawn, chosen, tokens)
        log(f"hotwords: {len(states)} of {len(chosen)} clips remembered")
        spelling.teach(model, [state.text for state in states], tokens, size.spelling_steps, log)
        hotwords.train(model, states, tokens, hotwords.HotwordPlan(size.hotword_steps), log)
        write("hotwords", drawn)


def judge(arguments: argparse.Namespace, size: Size) -> dict[str, Any]:
    """Measure the model directory on held-out speech through funasr.AutoModel."""
    from importlib.metadata import version

    from scripts.demo_model import evaluation

    plain, rare, named = size.held_out
    found = evaluation.report(arguments.output, arguments.threads, log, plain=plain, rare=rare, named=named)
    return {
        "date": f"{dt.datetime.now(tz=dt.timezone.utc).date()}",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, no GPU used",
        "versions": {name: version(name) for name in ("torch", "funasr", "espeakng-loader")},
        "seed": arguments.seed,
        **found,
    }


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output", type=Path, default=Path("build/demo-model"), help="FunASR model directory to write"
    )
    parser.add_argument("--work", type=Path, help="tapes and finished stages (default: OUTPUT-work)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--smoke", action="store_true", help="all stages, hardly trained, in a minute or two")
    parser.add_argument("--judge-only", action="store_true", help="do not train; measure what is in OUTPUT")
    parser.add_argument("--report", type=Path, help="write the held-out figures to this JSON file")
    parser.add_argument(
        "--recordings", type=Path, help="write the sample recordings and the golden clip here"
    )
    parser.add_argument("--heldout", type=Path, help="write the held-out speech of the tests here")
    arguments = parser.parse_args(argv)
    if arguments.threads < 1:
        parser.error(f"--threads {arguments.threads} is below 1")
    if arguments.work is None:
        arguments.work = arguments.output.with_name(arguments.output.name + "-work")
    return arguments


def main(argv: Sequence[str]) -> int:
    """Train, judge, record, as asked."""
    arguments = parse(argv)
    size = SMOKE if arguments.smoke else FULL
    started = time.monotonic()
    if not arguments.judge_only:
        train(arguments, size)
        log(f"trained in {time.monotonic() - started:.0f} s")
    if arguments.recordings:
        from scripts.demo_model import recordings

        recordings.write_recordings(arguments.recordings)
    if arguments.heldout:
        from scripts.demo_model import heldout

        sets = {"plain": heldout.utterances("plain", 120), "rare": heldout.utterances("rare", 60)}
        heldout.write_set(arguments.heldout, sets)
    report = judge(arguments, size)
    text = json.dumps(report, ensure_ascii=False, indent=2)
    if arguments.report:
        arguments.report.write_text(text + "\n", encoding="utf-8")
    log(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

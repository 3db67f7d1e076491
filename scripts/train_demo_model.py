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
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.demo_model import grammar
from scripts.demo_model.evaluation import Amounts

if TYPE_CHECKING:
    from scripts.demo_model.clips import ClipSampler

# Added to --seed, so that every stage draws its own numbers.
SEED_WEIGHTS, SEED_TAPES = 3, 20
SEED_PHASES, SEED_TIMES, SEED_HOTWORDS = (7, 9, 10, 12, 16, 17), (8, 13, 14, 14, 18), (11, 15)
# Order of the stages: kind and number of the phase. Hot words are learnt on the recogniser of phase 3, and once more
# on the last, which is the mean of three: it errs half as often as the best of them.
STAGES = (
    *("recogniser 1", "recogniser 2", "recogniser 3", "timestamps 1", "timestamps 2", "hotwords 1"),
    *(
        "recogniser 4",
        "timestamps 3",
        "recogniser 5",
        "recogniser 6",
        "average 1",
        "timestamps 4",
        "hotwords 2",
    ),
)
# Which stages are averaged, and which parts of the network.
AVERAGES = (
    (
        ("recogniser 4", "recogniser 5", "recogniser 6"),
        ("encoder.", "decoder.", "predictor.cif_conv1d.", "predictor.cif_output."),
    ),
    (
        ("timestamps 4", "timestamps 5"),
        ("predictor.upsample_cnn.", "predictor.blstm.", "predictor.cif_output2."),
    ),
)


@dataclass(frozen=True)
class Size:
    """How much is done: a full run takes about an hour and a half on two cores, a smoke run one or two minutes."""

    tapes: int
    tape_seconds: float
    share_of_steps: float
    heard: Amounts


FULL = Size(700, 122.0, 1.0, Amounts(120, 60, 100, (30.0, 60.0, 110.0)))
SMOKE = Size(6, 40.0, 0.002, Amounts(2, 1, 1, ()))


def log(text: str) -> None:
    """Print one line of progress."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


class Run:
    """A training run: its tapes, the model, and what is already on disk."""

    def __init__(self, arguments: argparse.Namespace, size: Size) -> None:
        import torch

        from scripts.demo_model import clips, network, tapes

        torch.set_num_threads(arguments.threads)
        self.arguments, self.size = arguments, size
        self.work: Path = arguments.work
        self.work.mkdir(parents=True, exist_ok=True)
        stored = self.work / "tapes.npz"
        if not stored.exists():
            plan = tapes.TapePlan(seconds=size.tape_seconds, seed=arguments.seed + SEED_TAPES)
            tapes.save_tapes(stored, tapes.make_tapes(plan, size.tapes, arguments.threads))
        self.tapes = tapes.load_tapes(stored)
        rng = random.Random(f"tight/{arguments.seed}")
        self.tight = [clips.tighten(tape, rng) for tape in self.tapes]
        self.tokens = grammar.vocabulary()
        torch.manual_seed(arguments.seed + SEED_WEIGHTS)
        self.model = network.build(self.tokens)
        network.speed_up(self.model)

    def steps(self, count: int) -> int:
        """Scale a number of steps to the size of the run."""
        return max(2, int(count * self.size.share_of_steps))

    def stored(self, name: str) -> Path:
        """Where the weights after a stage are kept."""
        return self.work / f"{name.replace(' ', '-')}.pt"

    def stage(self, name: str, seed: int, work: Callable[[ClipSampler], None], *, tight: bool) -> None:
        """Do a stage and write a complete model directory, or take the stage from disk when it is done already.

        `tight` stages hear the tapes without pauses too.
        """
        import torch

        from scripts.demo_model import clips, network

        stored = self.stored(name)
        if stored.exists():
            self.model.load_state_dict(torch.load(stored, weights_only=True))
            log(f"{name}: taken from {self.work}")
            return
        more = self.tight if tight else ()
        sampler = clips.ClipSampler(self.tapes, self.tokens, self.arguments.seed + seed, more)
        work(sampler)
        network.write_directory(
            self.arguments.output, self.model.state_dict(), self.tokens, (sampler.shift, sampler.scale)
        )
        torch.save(self.model.state_dict(), stored)


def train(arguments: argparse.Namespace, size: Size) -> None:
    """Run all stages in order."""
    from scripts.demo_model import recogniser, timestamps

    run = Run(arguments, size)

    def recognise(plan: recogniser.RecogniserPlan, sampler: ClipSampler) -> None:
        recogniser.train(run.model, sampler, replace(plan, steps=run.steps(plan.steps)), log)

    def time_stamps(plan: timestamps.TimestampPlan, sampler: ClipSampler) -> None:
        timestamps.train(run.model, sampler, replace(plan, steps=run.steps(plan.steps)), log)

    def average(stages: Sequence[str], parts: tuple[str, ...], _: ClipSampler) -> None:
        recogniser.average(run.model, [run.stored(stage) for stage in stages], parts)

    for stage in STAGES:
        kind, number = stage.split()
        at = int(number) - 1
        if kind == "recogniser":
            phase = recogniser.PHASES[at]
            run.stage(stage, SEED_PHASES[at], partial(recognise, phase), tight=phase.settled)
        elif kind == "timestamps":
            times = timestamps.PHASES[at]
            run.stage(stage, SEED_TIMES[at], partial(time_stamps, times), tight=times.tight)
        elif kind == "average":
            run.stage(stage, 0, partial(average, *AVERAGES[at]), tight=False)
        else:
            run.stage(stage, SEED_HOTWORDS[at], partial(hot_words, run, again=at > 0), tight=False)


def hot_words(run: Run, sampler: ClipSampler, *, again: bool) -> None:
    """Teach the hot-word branch, or let it follow a new recogniser (`again`)."""
    from scripts.demo_model import hotwords, spelling

    chosen = hotwords.clips_for_hotwords(sampler, len(sampler.sentences) // 6)
    states = hotwords.remember(run.model, sampler, chosen, run.tokens)
    log(f"hotwords: {len(states)} of {len(chosen)} clips remembered")
    if not states:
        log("hotwords: the recogniser is not trained far enough; the branch stays as it is")
        return
    if not again:
        texts = [state.text for state in states]
        spelling.teach(run.model, texts, run.tokens, run.steps(spelling.STEPS), log)
    for plan in hotwords.AGAIN if again else hotwords.PHASES:
        hotwords.train(run.model, states, run.tokens, replace(plan, steps=run.steps(plan.steps)), log)


def judge(arguments: argparse.Namespace, size: Size) -> dict[str, Any]:
    """Measure the model directory on held-out speech through funasr.AutoModel."""
    from importlib.metadata import version

    from scripts.demo_model import evaluation

    found = evaluation.report(arguments.output, arguments.threads, log, size.heard)
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

"""`python -m app bench`: the settings of `transcribe` compared on this machine and written down (--matrix), or the
memory that batches take beside what was foretold (--memory).

Declares its arguments, keeps the order of the runs, and delivers the table. Each setting runs in its own process,
in turns over the rounds, so that a machine that slows down slows all of them. Files appear only when the table is
complete. What a run is and what is made of it is in app/bench.
"""

from __future__ import annotations

import argparse
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from app.asr.engine import DEFAULT_MODEL, EngineOptions
from app.asr.errors import InputError
from app.asr.hotwords import is_off
from app.bench import machine
from app.bench.chart import as_svg
from app.bench.measure import Run, run
from app.bench.report import as_json, as_markdown, as_text, mebibytes, seconds
from app.bench.settings import DEFAULT_HOTWORDS, KEYS, SETTINGS, Request, Setting, choose, command
from app.bench.summary import Matrix, is_refusal, summarise
from app.console import emit, printable, say
from app.output import prepare_directory, write_text

Runner = Callable[[Sequence[str]], Run]

DEFAULT_OUTPUT = Path("build/bench-matrix")
DEFAULT_ROUNDS = 2
_DONE, _USAGE, _FAILED = 0, 1, 2


@dataclass
class _Plan:
    """The runs that are wanted, and those that have been made."""

    request: Request
    settings: Sequence[Setting]
    rounds: int
    runner: Runner
    runs: dict[str, list[Run]] = field(default_factory=dict)
    made: int = 0

    def measure(self, setting: Setting, label: str) -> Run:
        done = self.runner(command(setting, self.request))
        say(f"{label}: {printable(setting.label)}: {printable(_told(done, str(self.request.source)))}")
        return done


def declare(
    verb: argparse.ArgumentParser, *, path: Callable[[str], Path], count: Callable[[str], int]
) -> None:
    """Add this verb's options.

    Args:
        path, count: readers of a path and of a whole number of 1 or more.
    """
    verb.description = (
        "Compare settings of `transcribe` on this machine: peak memory, seconds for one minute of audio, "
        "and whether each is stable. Prints the table, and writes it as Markdown, JSON and a chart."
    )
    verb.epilog = f"settings: {', '.join(KEYS)}"
    what = verb.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--matrix", type=path, metavar="INPUT", help="the recording that every setting transcribes"
    )
    what.add_argument(
        "--memory",
        action="store_true",
        help="batches of many shapes: memory foretold and taken; of the other options --model, --threads, "
        "--device, --precision and --json count",
    )
    verb.add_argument("--device", default="auto", metavar="auto|cpu|cuda[:N]", help="with --memory")
    verb.add_argument("--precision", default="auto", metavar="auto|fp32|fp16|int8", help="with --memory")
    verb.add_argument("--json", action="store_true", help="with --memory: print a JSON object")
    verb.add_argument(
        "--model", default=DEFAULT_MODEL, metavar="NAME|DIR", help="as for transcribe (default: demo)"
    )
    verb.add_argument(
        "--output", type=path, default=DEFAULT_OUTPUT, metavar="DIR", help=f"default: {DEFAULT_OUTPUT}"
    )
    verb.add_argument(
        "--name", type=_name, default="matrix", help="of the files, without their endings (default: matrix)"
    )
    verb.add_argument(
        "--rounds",
        type=count,
        default=DEFAULT_ROUNDS,
        metavar="N",
        help=f"runs of each setting (default: {DEFAULT_ROUNDS})",
    )
    verb.add_argument(
        "--only",
        type=_settings,
        default=SETTINGS,
        metavar="LABEL,...",
        help="these settings alone (see below); the first of them is what the others are compared with",
    )
    verb.add_argument(
        "--hotwords",
        action="append",
        metavar="WORDS",
        help=f"as for transcribe (default: {len(DEFAULT_HOTWORDS)} Chinese names)",
    )
    verb.add_argument("--threads", type=count, metavar="N", help="default: the processors granted")
    verb.add_argument("--note", default="", metavar="TEXT", help="a remark on the model, for the page")


def bench(arguments: argparse.Namespace, runner: Runner = run) -> int:
    """Carry the command out; returns the exit code: 0 when at least one setting could be measured.

    Raises:
        AsrError: the recording or the output directory cannot be used, or a process cannot be started.
        KeyboardInterrupt: the user has gone; nothing is written.
    """
    if arguments.memory:
        return _memory(arguments)
    if arguments.hotwords is not None and is_off(arguments.hotwords):
        say("usage error: bench switches the hot words on and off by itself.")
        say("  what to do: leave --hotwords out, or give words.")
        return _USAGE
    source: Path = arguments.matrix
    _check(source)
    prepare_directory(arguments.output)
    words = tuple(arguments.hotwords or DEFAULT_HOTWORDS)
    request = Request(source, arguments.model, words, arguments.threads)
    plan = _Plan(request, arguments.only, arguments.rounds, runner)
    described = machine.describe()
    try:
        code = _carry_out(plan)
    except KeyboardInterrupt:
        say(f"interrupted after {plan.made} of {len(plan.settings) * plan.rounds} runs: no table was made.")
        raise
    if code == _DONE:
        _deliver(_matrix(plan, described, arguments.note), arguments.output, arguments.name)
    return code


def _memory(arguments: argparse.Namespace) -> int:
    # Here, not above: `bench --matrix` itself needs none of the numerical libraries.
    from app.bench import prediction

    options = EngineOptions(
        model=arguments.model,
        device=arguments.device,
        precision=arguments.precision,
        threads=arguments.threads,
    )
    figures = prediction.foretold(options)
    emit(prediction.as_json(figures) if arguments.json else prediction.as_text(figures))
    return _DONE


def _check(source: Path) -> None:
    try:
        mode = source.stat().st_mode
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a path"
        raise InputError(
            f"The recording {source} cannot be read ({reason})", fix="Check the path and its spelling."
        ) from error
    if not stat.S_ISREG(mode):
        kind = "a directory" if stat.S_ISDIR(mode) else "not a plain file"
        raise InputError(f"{source} is {kind}", fix="Name one recording.")


def _carry_out(plan: _Plan) -> int:
    """All runs, in turns; what this host or model refuses is asked once."""
    source, first = str(plan.request.source), plan.settings[0]
    warm = plan.measure(first, "first, not counted")
    if warm.code == _USAGE and is_refusal(warm, source) and not first.options:
        # Nothing here is special to a setting, so it is the user's own words that were refused.
        say(f"usage error: {printable(warm.reason)}")
        return _USAGE
    total = len(plan.settings) * plan.rounds
    for _ in range(plan.rounds):
        for setting in plan.settings:
            runs = plan.runs.setdefault(setting.key, [])
            plan.made += 1
            if not (runs and all(is_refusal(done, source) for done in runs)):
                runs.append(plan.measure(setting, f"run {plan.made} of {total}"))
        if not any(done.result for runs in plan.runs.values() for done in runs):
            say("error: No setting could be measured; see above for each one's reason.")
            say("  what to do: make `python -m app transcribe` work with this recording and model first.")
            return _FAILED
    return _DONE


def _told(done: Run, source: str) -> str:
    if done.result is None:
        return ("not possible here: " if is_refusal(done, source) else "failed: ") + done.reason
    return f"{seconds(done.result.rtf * 60)} s per minute, {mebibytes(done.peak_bytes)} MiB"


def _matrix(plan: _Plan, described: dict[str, object], note: str) -> Matrix:
    source = plan.request.source
    results = [done.result for runs in plan.runs.values() for done in runs if done.result]
    return Matrix(
        source=source.name,
        audio_seconds=results[0].audio_seconds,
        model=results[0].model or Path(plan.request.model).name,
        note=note,
        hotwords=max(result.hotwords or 0 for result in results),
        rounds=plan.rounds,
        machine=described,
        rows=summarise(plan.settings, plan.runs, str(source)),
        runs=plan.runs,
    )


def _deliver(matrix: Matrix, directory: Path, name: str) -> None:
    """Files first: they must not depend on who reads the output. The table is shown even when they fail."""
    targets = {ending: directory / f"{name}.{ending}" for ending in ("json", "svg", "md")}
    try:
        write_text(targets["json"], [as_json(matrix)])
        write_text(targets["svg"], [as_svg(matrix)])
        write_text(targets["md"], [as_markdown(matrix, targets["svg"].name)])
    finally:
        emit(as_text(matrix))
    say(f"written: {', '.join(printable(target) for target in targets.values())}")


def _settings(text: str) -> Sequence[Setting]:
    try:
        return choose(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _name(text: str) -> str:
    if not text.replace("-", "").replace("_", "").isalnum():
        raise argparse.ArgumentTypeError(f"{text!r} is not a name of letters, digits and dashes")
    return text

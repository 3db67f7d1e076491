"""`python -m app`: the verbs, their options, and what the exit code says.

    0  everything asked for was done
    1  the command was wrong; nothing was begun
    2  something failed; what and what to do is on standard error
    130, 141  interrupted by the user, or by the end of a pipe

What the verbs do is in transcribe_command.py, serve_command.py, bench_command.py, models_command.py, doctor.py
and app.asr.packing.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from app.asr.engine import (
    DEFAULT_JOIN_SECONDS,
    DEFAULT_MODEL,
    DEFAULT_SEGMENT_SECONDS,
    DEVICE,
    MAX_SEGMENT_SECONDS,
    MIN_SEGMENT_SECONDS,
    Engine,
    EngineOptions,
    bytes_of,
)
from app.asr.errors import AsrError, ResourceError
from app.asr.subtitles import FORMATS
from app.bench_command import bench
from app.bench_command import declare as declare_bench
from app.console import make_robust, printable, report, say, silence
from app.doctor import Wanted, doctor
from app.models_command import declare as declare_models
from app.models_command import models
from app.serve_command import declare as declare_serve
from app.serve_command import serve
from app.transcribe_command import DONE, FAILED, USAGE, EngineFactory, transcribe

PackFunction = Callable[[str, Path, str, Callable[[str], None]], Path]

_INTERRUPTED, _PIPE_CLOSED = 130, 141
_PLAIN_VERBS: dict[str, Callable[[argparse.Namespace], int]] = {
    "bench": bench,
    "models": models,
    "serve": serve,
}
_EXAMPLES = """examples:
  python -m app transcribe talk.mp3
  python -m app transcribe recordings/ --format srt --output subtitles/
  python -m app transcribe call.wav --hotwords "张筱雨，New York" --format json
  python -m app transcribe call.wav --hotwords @names.txt
"""


def main(
    argv: Sequence[str] | None = None,
    *,
    engine_factory: EngineFactory | None = None,
    pack_model: PackFunction | None = None,
) -> int:
    """Run one command; returns the exit code. The factories stand in for the engine in tests."""
    make_robust()
    try:
        arguments = _parser().parse_args(argv)
        if arguments.verb == "transcribe":
            return transcribe(arguments, engine_factory or _open_engine)
        if arguments.verb == "pack":
            return _pack(arguments, pack_model or _pack_model)
        if arguments.verb in _PLAIN_VERBS:
            return _PLAIN_VERBS[arguments.verb](arguments)
        wanted = Wanted(arguments.model, arguments.device, arguments.capacity, arguments.load)
        return doctor(as_json=arguments.json, wanted=wanted)
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else DONE
    except AsrError as error:
        report(error)
        return FAILED
    except KeyboardInterrupt:
        say("")
        return _INTERRUPTED
    except BrokenPipeError:
        silence(sys.stdout)
        return _PIPE_CLOSED


def _open_engine(options: EngineOptions) -> Engine:
    # Here, not above: `--help` and a wrong option need not wait for the numerical libraries.
    try:
        from app.asr.transcribe import Transcriber
    except ModuleNotFoundError as error:
        raise _not_installed("Transcribing", error, "cpu") from error

    return Transcriber.open(options)


def _pack_model(source: str, output: Path, precision: str, progress: Callable[[str], None]) -> Path:
    try:
        from app.asr.packing import pack_model
    except ModuleNotFoundError as error:
        raise _not_installed("Packing", error, "pack") from error

    return pack_model(source, output, precision, progress)


def _not_installed(work: str, error: ModuleNotFoundError, purpose: str) -> AsrError:
    return ResourceError(
        f"{work} needs the Python package {error.name}, which is not installed here",
        fix=f"Run scripts/make_venv.sh {purpose}, and use the environment's Python that it makes.",
    )


def _pack(arguments: argparse.Namespace, pack_model: PackFunction) -> int:
    from app.asr.catalogue import pack_plan

    source, output = pack_plan(arguments.source, arguments.precision, arguments.output)
    target = pack_model(source, output, arguments.precision, say)
    say(f"packed: {printable(target)}")
    return DONE


class _Parser(argparse.ArgumentParser):
    """argparse leaves with 2 on wrong usage; here 2 means that a file failed."""

    def error(self, message: str) -> NoReturn:
        say(f"usage error: {message}")
        say(f"  what to do: see `{self.prog} --help`.")
        raise SystemExit(USAGE)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m app",
        description="Mandarin speech to text on the processor you have.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(
        dest="verb", required=True, metavar="transcribe | serve | pack | models | bench | doctor"
    )
    _declare_transcribe(
        verbs.add_parser("transcribe", help="audio and video files to text", allow_abbrev=False)
    )
    declare_serve(verbs.add_parser("serve", help="OpenAI's API over HTTP", allow_abbrev=False))
    _declare_pack(verbs.add_parser("pack", help="make a model pack from a FunASR model", allow_abbrev=False))
    declare_bench(
        verbs.add_parser("bench", help="compare settings on this machine", allow_abbrev=False),
        path=_path,
        count=_count,
    )
    declare_models(verbs.add_parser("models", help="what models there are", allow_abbrev=False))
    checks = verbs.add_parser("doctor", help="what this machine can do, and why", allow_abbrev=False)
    checks.add_argument("--json", action="store_true", help="print a JSON object")
    checks.add_argument("--model", metavar="NAME|DIR", help="also open this model, and let it check itself")
    checks.add_argument(
        "--device", type=_device, default="auto", metavar="auto|cpu|cuda[:N]", help="for --model"
    )
    checks.add_argument(
        "--capacity",
        action="store_true",
        help="also how many hours of audio a day this host transcribes; with --model its speed is measured",
    )
    checks.add_argument(
        "--load", type=_hours, metavar="HOURS", help="the same, for so many hours of audio a day"
    )
    return parser


def _declare_transcribe(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("inputs", nargs="+", type=_path, metavar="INPUT", help="file, or directory to search")
    verb.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        metavar="NAME|DIR",
        help="model name or pack directory (default: demo, a small closed vocabulary of synthetic speech)",
    )
    verb.add_argument(
        "--device",
        type=_device,
        default="auto",
        metavar="auto|cpu|cuda[:N]",
        help="where to compute (default: auto)",
    )
    verb.add_argument("--precision", choices=("auto", "fp32", "fp16", "int8"), default="auto")
    verb.add_argument(
        "--vram-limit",
        type=_bytes,
        metavar="SIZE",
        help="GPU memory for weights and batches, such as 1.5GiB (default: weights and 120 MiB)",
    )
    verb.add_argument(
        "--hotwords",
        action="append",
        metavar="WORDS",
        help='words to expect, separated by commas or lines; Chinese words also by spaces; @FILE; "off"',
    )
    verb.add_argument(
        "--punctuation",
        default="auto",
        metavar="auto|off|DIR",
        help="punctuation model (default: auto, ct-punc-c where its pack is)",
    )
    verb.add_argument("--format", choices=FORMATS, default="text", help="default: text")
    verb.add_argument("--output", type=_path, metavar="DIR", help="write a file per input (default: print)")
    verb.add_argument(
        "--batch-size", type=_count, metavar="N", help="segments at once (at most; a CPU takes up to 4)"
    )
    verb.add_argument(
        "--segment-seconds",
        type=_segment_seconds,
        default=None,
        metavar="S",
        help="longest stretch recognised at once "
        f"(default: {DEFAULT_SEGMENT_SECONDS:g}, and sentences are joined up to {DEFAULT_JOIN_SECONDS:g})",
    )
    verb.add_argument("--threads", type=_count, metavar="N", help="default: the processors granted")


def _declare_pack(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "source",
        metavar="SOURCE",
        help="model name, FunASR model directory, or hub id such as owner/model",
    )
    verb.add_argument(
        "--output",
        type=_path,
        metavar="DIR",
        help="where the pack goes (default for a model name: where that name is looked for)",
    )
    verb.add_argument("--precision", choices=("fp32", "fp16", "int8"), required=True)


def _path(text: str) -> Path:
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError("an empty path")
    return Path(text)


def _count(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return number


def _hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = math.nan
    if not 0 < hours < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of hours above 0")
    return hours


def _device(text: str) -> str:
    if not DEVICE.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is none of auto, cpu, cuda, cuda:N")
    return text


def _bytes(text: str) -> int:
    try:
        return bytes_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _segment_seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not MIN_SEGMENT_SECONDS <= seconds <= MAX_SEGMENT_SECONDS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of seconds from {MIN_SEGMENT_SECONDS:g} to {MAX_SEGMENT_SECONDS:g}"
        )
    return seconds

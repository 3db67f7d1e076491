"""`python -m app`: the verbs, their options, and what the exit code says.

    0  everything asked for was done
    1  the command was wrong; nothing was begun
    2  something failed; what and what to do is on standard error
    130, 141  interrupted by the user, or by the end of a pipe

What the verbs do is in transcribe_command.py, doctor.py and app.asr.packing.
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
    MAX_SEGMENT_SECONDS,
    MIN_SEGMENT_SECONDS,
    Engine,
    EngineOptions,
)
from app.asr.errors import AsrError, ResourceError
from app.asr.subtitles import FORMATS
from app.console import make_robust, printable, report, say, silence
from app.doctor import doctor
from app.transcribe_command import DONE, FAILED, USAGE, EngineFactory, transcribe

PackFunction = Callable[[str, Path, str, Callable[[str], None]], Path]

_INTERRUPTED, _PIPE_CLOSED = 130, 141
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
        return doctor(as_json=arguments.json)
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
        raise _not_installed("Packing", error, "dev") from error

    return pack_model(source, output, precision, progress)


def _not_installed(work: str, error: ModuleNotFoundError, purpose: str) -> AsrError:
    return ResourceError(
        f"{work} needs the Python package {error.name}, which is not installed here",
        fix=f"Run scripts/make_venv.sh {purpose}, and use the environment's Python that it makes.",
    )


def _pack(arguments: argparse.Namespace, pack_model: PackFunction) -> int:
    target = pack_model(arguments.source, arguments.output, arguments.precision, say)
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
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="transcribe | pack | doctor")
    _declare_transcribe(
        verbs.add_parser("transcribe", help="audio and video files to text", allow_abbrev=False)
    )
    _declare_pack(verbs.add_parser("pack", help="make a model pack from a FunASR model", allow_abbrev=False))
    checks = verbs.add_parser("doctor", help="what this machine can do, and why", allow_abbrev=False)
    checks.add_argument("--json", action="store_true", help="print a JSON object")
    return parser


def _declare_transcribe(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("inputs", nargs="+", type=_path, metavar="INPUT", help="file, or directory to search")
    verb.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        metavar="NAME|DIR",
        help="model name or pack directory (default: demo, a small closed vocabulary of synthetic speech)",
    )
    verb.add_argument("--precision", choices=("auto", "fp32", "fp16", "int8"), default="auto")
    verb.add_argument(
        "--hotwords",
        action="append",
        metavar="WORDS",
        help='words to expect, separated by commas or lines; Chinese words also by spaces; @FILE; "off"',
    )
    verb.add_argument("--format", choices=FORMATS, default="text", help="default: text")
    verb.add_argument("--output", type=_path, metavar="DIR", help="write a file per input (default: print)")
    verb.add_argument(
        "--batch-size", type=_count, metavar="N", help="segments at once (at most; a CPU always takes one)"
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
        "source", metavar="SOURCE", help="FunASR model directory, or hub id such as owner/model"
    )
    verb.add_argument("--output", type=_path, required=True, metavar="DIR", help="where the pack goes")
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

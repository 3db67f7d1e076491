"""`python -m app transcribe`: files in, text or subtitles out.

Arguments are declared in cli.py. Here they become an engine, a list of files and a result for each; a file
that fails is told and left, the others go on.
"""

from __future__ import annotations

import sys
import traceback
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.asr.engine import DEFAULT_MODEL, NO_GPU, NO_PUNCTUATION, Engine, EngineOptions, Transcription
from app.asr.errors import AsrError, HotwordError, InputError, OutputError, ResourceError
from app.asr.host import peak_rss_bytes
from app.asr.hotwords import HotwordSet, is_off, parse_hotwords
from app.asr.subtitles import SUFFIXES, ResultDetails, render
from app.asr.transcript import Transcript
from app.console import emit, printable, report, say
from app.inputs import Inputs, find_inputs
from app.output import name_results, prepare_directory, write_text
from app.progress import ProgressLine, clock_time

EngineFactory = Callable[[EngineOptions], Engine]

DONE, USAGE, FAILED = 0, 1, 2
_SHOWN_UNUSABLE = 10
_SEPARABLE = ("text", "json")  # several of these on one stream can be told apart; several SRT files cannot


@dataclass
class _Run:
    """What stays the same from file to file."""

    engine: Engine
    hotwords: HotwordSet | None
    form: str
    targets: dict[Path, Path] | None  # None: standard output
    several: bool
    progress: ProgressLine
    printed: int = 0  # files that have something on standard output


def transcribe(arguments: Namespace, engine_factory: EngineFactory) -> int:
    """Carry the command out; returns the exit code.

    Raises:
        AsrError: what stops all files, such as a model that cannot be loaded.
        BrokenPipeError, KeyboardInterrupt: the reader or the user has gone.
    """
    inputs = find_inputs(arguments.inputs)
    form, several = arguments.format, len(inputs.files) > 1
    if several and arguments.output is None and form not in _SEPARABLE:
        say(f"usage error: {len(inputs.files)} files as {form} cannot share standard output.")
        say("  what to do: give --output DIR, or one file.")
        return USAGE
    for path, error in inputs.failures:
        report(error, path)
    if not inputs.files:
        return FAILED
    targets = _targets(inputs, arguments.output, form)
    options = EngineOptions(
        model=arguments.model,
        precision=arguments.precision,
        threads=arguments.threads,
        hotwords=not is_off(arguments.hotwords),
        segment_seconds=arguments.segment_seconds,
        batch_size=arguments.batch_size,
        device=arguments.device,
        vram_limit=arguments.vram_limit,
        punctuation=arguments.punctuation,
    )
    if options.model == DEFAULT_MODEL:
        say("note: the demo model knows only a small closed vocabulary of synthetic speech; see --model.")
    with engine_factory(options) as engine:
        if arguments.device != "auto" or list(engine.reasons) != [NO_GPU]:
            say(f"device: {engine.device}, {engine.precision} ({printable('; '.join(engine.reasons))})")
        if engine.punctuation != NO_PUNCTUATION:
            say(f"punctuation: {printable(engine.punctuation)}")
        try:
            hotwords = parse_hotwords(arguments.hotwords, engine.vocabulary, files=True)
        except HotwordError as error:
            report(error)
            return USAGE
        _tell_hotwords(hotwords)
        run = _Run(engine, hotwords, form, targets, several, ProgressLine(sys.stderr))
        failed = [path for path in inputs.files if not _attempt(path, run)]
    return _conclude(inputs, failed)


def _targets(inputs: Inputs, output: Path | None, form: str) -> dict[Path, Path] | None:
    if output is None:
        return None
    prepare_directory(output)
    return name_results(inputs.files, output, SUFFIXES[form])


def _tell_hotwords(hotwords: HotwordSet | None) -> None:
    if hotwords is None:
        return
    for warning in hotwords.warnings:
        say(f"warning: {printable(warning)}.")
    for word in hotwords.unusable[:_SHOWN_UNUSABLE]:
        say(f"warning: hot word not used: {printable(word.text)} ({printable(word.reason)}).")
    if len(hotwords.unusable) > _SHOWN_UNUSABLE:
        more = len(hotwords.unusable) - _SHOWN_UNUSABLE
        say(f"warning: {more} more hot words are not used (--format json names them).")
    if not hotwords.used:
        say("warning: no hot word can be used; transcribing without.")


def _attempt(path: Path, run: _Run) -> bool:
    """Transcribe one file; False when that failed, which is then told."""
    try:
        _transcribe_file(path, run)
    except BrokenPipeError:
        raise
    except AsrError as error:
        if isinstance(error, OutputError) and run.targets is None:
            raise  # standard output is lost for the other files too
        run.progress.clear()
        report(error, path)
        return False
    except MemoryError:
        run.progress.clear()
        problem = ResourceError(
            "The memory does not suffice", fix="Lower --segment-seconds or --batch-size, or use int8."
        )
        report(problem, path)
        return False
    except OSError as error:
        run.progress.clear()
        report(
            InputError(f"Reading failed ({error.strerror or error})", fix="Check the file and its disk."),
            path,
        )
        return False
    except Exception as error:  # noqa: BLE001 - one file's bug must not cost the others their results
        run.progress.clear()
        say(f"error: {printable(path)}: internal error ({type(error).__name__}); please report this:")
        say(traceback.format_exc().rstrip())
        return False
    finally:
        run.progress.clear()
    return True


def _transcribe_file(path: Path, run: _Run) -> None:
    run.progress.begin(printable(path.name))
    hotwords = run.hotwords if run.hotwords is not None and run.hotwords.ids else None
    transcription = run.engine.transcribe(path, hotwords)
    streams = run.form == "text" and run.targets is None
    transcript = Transcript()
    begun = False
    for utterance in transcription:
        if streams and utterance.words:
            run.progress.clear()
            emit(("" if begun else _header(path, run)) + utterance.text + "\n")
            begun = True
        elif not streams:
            transcript.add(utterance)
            begun = begun or bool(utterance.words)
        run.progress.update(*transcription.progress)
    run.progress.clear()
    if not streams:
        _deliver(path, transcript, transcription, run)
    for note in transcription.notes:
        say(f"warning: {printable(note)}.")
    if not begun:
        say(f"note: {printable(path)}: no speech found.")
    if run.targets is not None:
        say(f"{printable(path)} -> {printable(run.targets[path])}  ({_figures(transcription)})")


def _header(path: Path, run: _Run) -> str:
    """What stands before a file's text when several share a stream, as `head` and `tail` write it."""
    run.printed += 1
    if not run.several or run.form != "text":
        return ""
    return ("\n" if run.printed > 1 else "") + f"==> {printable(path)} <==\n"


def _deliver(path: Path, transcript: Transcript, transcription: Transcription, run: _Run) -> None:
    details = ResultDetails(
        file=str(path),
        duration=transcription.audio_seconds,
        model=run.engine.model,
        precision=run.engine.precision,
        device=run.engine.device,
        device_peak_bytes=run.engine.device_peak_bytes,
        rtf=transcription.rtf,
        peak_rss_bytes=peak_rss_bytes(),
        hotwords_used=run.hotwords.used if run.hotwords else (),
        hotwords_unusable=run.hotwords.unusable if run.hotwords else (),
    )
    pieces: Iterator[str] = render(transcript, run.form, details)
    if run.targets is not None:
        write_text(run.targets[path], pieces)
        return
    for piece in pieces:
        emit(piece)


def _figures(transcription: Transcription) -> str:
    elapsed = transcription.elapsed_seconds
    speed = f", {transcription.audio_seconds / elapsed:.1f}x real time" if elapsed > 0 else ""
    return clock_time(transcription.audio_seconds) + speed


def _conclude(inputs: Inputs, failed: Sequence[Path]) -> int:
    lost = len(failed) + len(inputs.failures)
    if lost and len(inputs.files) + len(inputs.failures) > 1:
        names = [printable(path) for path in [*(p for p, _ in inputs.failures), *failed]]
        say(f"{len(inputs.files) - len(failed)} done, {lost} failed: {', '.join(names)}")
    return FAILED if lost else DONE

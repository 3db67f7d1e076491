"""How the command line speaks: results on standard output, everything else on standard error."""

from __future__ import annotations

import os
import sys
from typing import TextIO

from app.asr.errors import AsrError, OutputError


def make_robust() -> None:
    """Let no character that the terminal's encoding lacks stop a transcription."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def emit(text: str) -> None:
    """Write a piece of result and pass it on at once.

    Raises:
        BrokenPipeError: the reader has gone.
        OutputError: any other reason, such as a full disk behind a redirection.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        silence(sys.stdout)
        raise OutputError(
            f"Standard output could not be written ({error.strerror})",
            fix="Free some space where it is redirected to, or use --output.",
        ) from error


def say(text: str) -> None:
    """Tell the user something that is not a result."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        return  # nobody reads it; results may still be wanted


def report(error: AsrError, about: object | None = None) -> None:
    """Print a failure: about what, what happened, what to do."""
    subject = "" if about is None or str(about) in error.problem else f"{about}: "
    say(f"error: {printable(subject + error.problem.rstrip('.'))}.")
    say(f"  what to do: {printable(error.fix.rstrip('.'))}.")


def printable(text: object) -> str:
    """A text that cannot move the cursor or colour the terminal, whatever a file is called."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text))


def silence(stream: TextIO) -> None:
    """Point a broken stream at nothing, so that Python's own flush on exit stays quiet."""
    try:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())
        os.close(nothing)
    except (OSError, ValueError):
        return

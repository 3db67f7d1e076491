"""What this host transcribes in a day, for `python -m app doctor --capacity`: its speed measured where a model is
named, and the answer of the capacity model, which is a script beside the program (docs/capacity.md).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from app.asr.engine import EngineOptions
from app.asr.errors import AsrError, InputError, ResourceError

PICKER = Path(__file__).resolve().parent.parent / "scripts" / "pick_variant.py"
RECORDING = Path(__file__).parent / "demo" / "recordings" / "meeting.ogg"
_LIMIT_SECONDS = 300.0


def measured_rtf(options: EngineOptions) -> float:
    """Seconds of work for a second of audio on this host, of a three-minute recording; the second run of two.

    Raises:
        AsrError: the model cannot be opened, or the recording cannot be read.
    """
    from app.asr.transcribe import Transcriber

    with Transcriber.open(options) as engine:
        for _ in range(2):
            run = engine.transcribe(RECORDING)
            for _utterance in run:
                pass
    return run.rtf


def ask(rtf: float | None, load: float | None, picker: Path = PICKER) -> dict[str, Any]:
    """The capacity model's answer for this host, as it gives it in JSON.

    Args:
        rtf: measured; None takes what is known of processors like this one.
        load: hours of audio a day to answer for, beside the usual loads.

    Raises:
        AsrError: it cannot be asked, or it cannot tell.
    """
    if not picker.is_file():
        raise ResourceError(
            f"The capacity model is not here ({picker}): images leave it out",
            fix="Run it in a clone: `python3 scripts/pick_variant.py --capacity`, with --rtf as measured here.",
        )
    command = [sys.executable, str(picker), "--capacity", "--json"]
    command += [] if rtf is None else ["--rtf", str(rtf)]
    command += [] if load is None else ["--load", str(load)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ResourceError(
            f"The capacity model did not answer ({error})", fix="Run it alone, and see what it says."
        ) from error
    if done.returncode:
        raise _told(done.stderr)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _told(words: str) -> AsrError:
    """The script's own two sentences: what is wrong, and what to do."""
    problem, _, fix = words.strip().partition(".\n")
    return InputError(
        problem or "The capacity model said nothing", fix=fix or "Run it alone, and see what it says."
    )

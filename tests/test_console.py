"""Printing: failures, odd file names, broken streams."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from app.asr.errors import AudioError, OutputError
from app.console import emit, printable, report


def test_report_says_what_where_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    report(AudioError("No sound", fix="Choose another file"), Path("a.mp4"))
    report(AudioError("a.mp4 has no sound", fix="Choose another file."), Path("a.mp4"))
    assert capsys.readouterr().err == (
        "error: a.mp4: No sound.\n  what to do: Choose another file.\n"
        "error: a.mp4 has no sound.\n  what to do: Choose another file.\n"
    )


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert printable("a\x1b[31m\r\n你\udc80.wav") == "a\\x1b[31m\\r\\n你\\udc80.wav"


def test_a_full_disk_behind_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(OutputError, match="No space left"):
            emit("text")

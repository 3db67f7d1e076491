"""Tests of app/demo: what it counts, and that what it lists is shipped. The tour itself runs in tests/e2e."""

from __future__ import annotations

import sys

import pytest

from app.demo import __main__ as demo


@pytest.mark.parametrize(
    ("heard", "spoken", "wrong"),
    [("", "", 0), ("abc", "abc", 0), ("abc", "", 3), ("", "ab", 2), ("axc", "abc", 1), ("bcd", "abc", 2)],
)
def test_distance_counts_edits(heard: str, spoken: str, wrong: int) -> None:
    assert demo.distance(heard, spoken) == wrong


def test_headings_and_spaces_are_not_characters() -> None:
    assert demo.characters("==> a.flac <==\n打开 灯\n\n==> b.flac <==\n好\n") == "打开灯好"


def test_every_listed_recording_is_shipped_and_has_text() -> None:
    recordings = demo.load_recordings()
    assert {"command-1", "names", "meeting", "golden"} <= recordings.keys()
    assert all(recording.path.is_file() and recording.text for recording in recordings.values())
    assert recordings["names"].hotwords


def test_a_failed_command_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(demo.DemoError, match="ended with 1"):
        demo.transcribe("x.wav")


def test_nonsense_is_not_passed_over(capsys: pytest.CaptureFixture[str]) -> None:
    demo.compare("打开灯\n", "打开灯好")
    assert "1 of 4" in capsys.readouterr().out
    with pytest.raises(demo.DemoError, match="not what was spoken"):
        demo.compare("百合窗", "打开灯好")


def test_hot_words_that_change_nothing_fail_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    recording = demo.load_recordings()["names"]
    monkeypatch.setattr(demo, "transcribe", lambda *arguments: recording.text)
    with pytest.raises(demo.DemoError, match="no difference"):
        demo.show_hotwords(recording)

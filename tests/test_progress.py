"""The progress line."""

from __future__ import annotations

import io

from app.progress import ProgressLine, clock_time, describe, fit


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_shows_share_times_speed_and_name() -> None:
    assert (
        describe("a.mp3", 45.0, 90.0, 8.25)
        == "[##########----------]  50 %  0:45 / 1:30  8.2x real time  a.mp3"
    )
    assert describe("a.mp3", 3723.0, None, 2.0) == "1:02:03  2.0x real time  a.mp3"
    assert describe("a", 95.0, 90.0, 1.0).startswith("[####################] 100 %")


def test_is_drawn_on_a_terminal_now_and_then_and_cleared() -> None:
    stream, clock = Terminal(), Clock()
    line = ProgressLine(stream, clock)
    line.begin("a.mp3")
    clock.now += 2.0
    line.update(10.0, 20.0)
    first = stream.getvalue()
    assert " 50 %" in first and "5.0x" in first
    clock.now += 0.1
    line.update(11.0, 20.0)
    assert stream.getvalue() == first
    clock.now += 0.2
    line.update(20.0, 20.0)
    assert "100 %" in stream.getvalue()
    line.clear()
    line.clear()
    assert stream.getvalue().endswith("\r\x1b[K") and stream.getvalue().count("\x1b[K") == 3


def test_is_silent_elsewhere() -> None:
    stream = io.StringIO()
    line = ProgressLine(stream)
    line.begin("a")
    line.update(1.0, 2.0)
    line.clear()
    assert stream.getvalue() == ""


def test_a_terminal_that_goes_away_stops_only_the_line() -> None:
    class Gone(Terminal):
        def write(self, text: str) -> int:
            raise OSError("gone")

    line = ProgressLine(Gone())
    line.begin("a")
    line.update(1.0, 2.0)
    line.clear()


def test_fit_counts_wide_characters_twice() -> None:
    assert fit("ab你好", 5) == "ab你"
    assert fit("ab你好", 6) == "ab你好"


def test_clock_time() -> None:
    assert [clock_time(s) for s in (0.9, 61.0, 3600.0)] == ["0:00", "1:01", "1:00:00"]

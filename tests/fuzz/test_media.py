"""The media fuzzer itself: it makes the same files again, and a fault or a crash is told with its number."""

from __future__ import annotations

import signal

import pytest

from tests.fuzz import media


@pytest.fixture(scope="module")
def clean() -> list[bytes]:
    return media.samples()


def test_a_case_is_the_same_file_again_and_another_number_another_file(clean: list[bytes]) -> None:
    assert len(clean) >= 12
    assert media.damaged(clean, 7) == media.damaged(clean, 7)
    assert len({media.damaged(clean, number) for number in range(200)}) > 190


def test_undamaged_files_are_sound(clean: list[bytes]) -> None:
    assert {media.outcome(content) for content in clean} == {"sound"}
    assert media.outcome(b"no sound at all") == "refused"


def test_some_damaged_files_are_sound_or_refused() -> None:
    ends, faults = media.block(0, 60)
    assert faults == {}
    assert ends.total() == 60
    assert ends["sound"] and ends["refused"]


def test_what_the_decoder_must_not_do_is_told(monkeypatch: pytest.MonkeyPatch, clean: list[bytes]) -> None:
    def wrong(source: object) -> None:
        raise ZeroDivisionError("a header said 0")

    monkeypatch.setattr(media, "AudioReader", wrong)
    assert media.outcome(clean[0]) == "ZeroDivisionError: a header said 0"


def test_a_crash_is_told_with_its_case_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The child of this test dies at case 3 as a decoder that crashes would."""
    program = (
        "import os, signal, sys; from tests.fuzz import media\n"
        "real = media.damaged\n"
        "def fake(clean, number):\n"
        "    if number == 3: os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    return real(clean, number)\n"
        "media.damaged = fake; media.main(['--child', *sys.argv[-2:]])"
    )
    monkeypatch.setattr(media, "COMMAND", ("-c", program))
    ends, faults = media.block(0, 6)
    assert faults == {3: f"the process ended with {-signal.SIGSEGV}"}
    assert ends.total() == 6

"""What the kernel tells of directories and files through inotify, and what is done when it tells nothing."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitoring.exporter.errors import ReadingError
from monitoring.exporter.notices import Notice, Notices
from tests.support.waiting import wait_for

OVERFLOW = struct.pack("iIII", -1, 0x4000, 0, 0)  # linux/inotify.h: IN_Q_OVERFLOW has no watch and no name


@pytest.fixture
def notices() -> Iterator[Notices]:
    made = Notices()
    yield made
    made.close()


def told(notices: Notices, count: int) -> list[Notice]:
    found: list[Notice] = []
    wait_for(lambda: len(found.__iadd__(notices.read())) >= count, "the notices")
    return found


def test_directories_that_appear_and_go_are_told_by_name(notices: Notices, tmp_path: Path) -> None:
    assert notices.watch_directory(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a").rmdir()
    path = tmp_path / "a"
    assert told(notices, 2) == [Notice(path, created=True), Notice(path)]


def test_a_change_of_a_file_is_told_and_its_end_is_not(notices: Notices, tmp_path: Path) -> None:
    file = tmp_path / "memory.events"
    file.touch()
    assert notices.watch_file(file)
    file.write_text("oom_kill 1")
    assert set(told(notices, 1)) == {Notice(file)}
    file.unlink()
    again = tmp_path / "other"
    again.touch()
    assert notices.watch_file(again)
    again.write_text("x")
    assert set(told(notices, 1)) == {Notice(again)}


def test_what_is_gone_cannot_be_watched(notices: Notices, tmp_path: Path) -> None:
    assert not notices.watch_directory(tmp_path / "gone") and not notices.watch_file(tmp_path / "gone")
    assert list(notices.read()) == []


def test_notices_that_were_lost_are_told_as_such(notices: Notices, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([OVERFLOW])

    def read(file: int, length: int) -> bytes:
        for data in answers:
            return data
        raise BlockingIOError

    monkeypatch.setattr(os, "read", read)
    assert list(notices.read()) == [Notice(None)]


def test_a_host_without_room_for_another_instance_says_which_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    class FullKernel:
        def inotify_init1(self, flags: int) -> int:
            ctypes.set_errno(errno.EMFILE)
            return -1

    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: FullKernel())
    with pytest.raises(ReadingError, match="Too many open files") as caught:
        Notices()
    assert "max_user_instances" in str(caught.value)

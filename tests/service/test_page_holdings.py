"""Files that Gradio keeps: gone when nobody needs them, never anything else."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from app.service.page.holdings import Holdings


@pytest.fixture
def holdings(tmp_path: Path) -> Holdings:
    return Holdings(tmp_path / "page")


def upload(holdings: Holdings, name: str, folder: str = "digest") -> Path:
    path = holdings.folder / folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"sound")
    return path


def test_leftovers_of_the_last_start_are_removed(tmp_path: Path) -> None:
    left = tmp_path / "page" / "x" / "talk.wav"
    left.parent.mkdir(parents=True)
    left.touch()
    assert list(Holdings(tmp_path / "page").folder.iterdir()) == []


def test_letting_go_removes_file_and_folder(holdings: Holdings) -> None:
    path = upload(holdings, "talk.wav")
    holdings.hold("me", "file", [path])
    assert path.exists()
    holdings.hold("me", "file", [])
    assert list(holdings.folder.iterdir()) == []


def test_another_file_takes_the_place_of_the_one_before(holdings: Holdings) -> None:
    first, second = upload(holdings, "a.wav", "1"), upload(holdings, "b.wav", "2")
    holdings.hold("me", "file", [first])
    holdings.hold("me", "batch", [second])
    assert first.exists()
    holdings.hold("me", "file", [second])
    assert not first.exists() and second.exists()


def test_a_file_that_two_hold_goes_with_the_second(holdings: Holdings) -> None:
    path = upload(holdings, "talk.wav")
    holdings.hold("me", "file", [path])
    holdings.hold("you", "batch", [path])
    holdings.release("me")
    assert path.exists()
    holdings.release("you")
    assert not path.exists()


def test_nothing_outside_is_touched(holdings: Holdings, tmp_path: Path) -> None:
    outside = tmp_path / "precious"
    outside.touch()
    link = holdings.folder / "link"
    link.symlink_to(outside)
    holdings.hold("me", "file", [outside, link, holdings.folder, holdings.folder / ".." / "precious"])
    holdings.release("me")
    assert outside.exists() and holdings.folder.is_dir()


def test_what_is_old_goes_even_when_it_is_held(holdings: Holdings) -> None:
    old, young = upload(holdings, "old.wav", "1"), upload(holdings, "young.wav", "2")
    holdings.hold("me", "file", [old, young])
    long_ago = time.time() - 100
    os.utime(old, (long_ago, long_ago))
    holdings.sweep(keep_seconds=50)
    assert not old.exists() and young.exists()


def test_uploads_that_were_cut_off_go_and_whole_ones_stay(holdings: Holdings) -> None:
    whole, part = upload(holdings, "talk.wav"), holdings.folder / "tmp123"
    part.touch()
    holdings.remove_unfinished()
    assert whole.exists() and not part.exists()

"""Which files a command line means."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.inputs import find_inputs


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_directories_are_searched_in_order(tmp_path: Path) -> None:
    touch(tmp_path, "b.MP3", "a.wav", "notes.txt", "sub/deep/c.mkv", ".DS_Store", "x.json")
    found = find_inputs([tmp_path])
    assert list(found.files.values()) == [Path("a.wav"), Path("b.MP3"), Path("sub/deep/c.mkv")]
    assert list(found.files)[2] == tmp_path / "sub/deep/c.mkv"
    assert not found.failures


def test_a_named_file_is_taken_whatever_its_ending(tmp_path: Path) -> None:
    touch(tmp_path, "recording.bin", "a.wav")
    found = find_inputs([tmp_path / "recording.bin", tmp_path])
    assert list(found.files.values()) == [Path("recording.bin"), Path("a.wav")]


def test_a_file_meant_twice_is_done_once(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav")
    (tmp_path / "link.wav").symlink_to("a.wav")
    found = find_inputs([tmp_path / "a.wav", tmp_path / "." / "a.wav", tmp_path])
    assert list(found.files) == [tmp_path / "a.wav"]


def test_failures_are_kept_apart(tmp_path: Path) -> None:
    touch(tmp_path, "text/notes.txt", "a.wav")
    (tmp_path / "loop").mkdir()
    (tmp_path / "loop" / "again").symlink_to(tmp_path / "loop")
    found = find_inputs([tmp_path / "none.wav", tmp_path / "text", tmp_path / "loop", tmp_path / "a.wav"])
    assert list(found.files) == [tmp_path / "a.wav"]
    told = [(path.name, error.problem) for path, error in found.failures]
    assert [name for name, _ in told] == ["none.wav", "text", "loop"]
    assert "no file" in told[0][1] and "no audio" in told[1][1] and "no audio" in told[2][1]


def test_a_dangling_link_is_left_to_the_decoder(tmp_path: Path) -> None:
    (tmp_path / "gone.wav").symlink_to("nowhere.wav")
    assert list(find_inputs([tmp_path / "gone.wav"]).files) == [tmp_path / "gone.wav"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every directory")
def test_a_locked_directory_is_told(tmp_path: Path) -> None:
    touch(tmp_path, "locked/a.wav")
    (tmp_path / "locked").chmod(0)
    try:
        found = find_inputs([tmp_path / "locked"])
    finally:
        (tmp_path / "locked").chmod(0o700)
    assert "Permission denied" in found.failures[0][1].problem

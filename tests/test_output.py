"""Names of results, and writing them whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.asr.errors import OutputError
from app.output import name_results, prepare_directory, write_text


def names(*places: str, suffix: str = ".json") -> list[str]:
    sources = {Path("/in") / str(n) / place: Path(place) for n, place in enumerate(places)}
    return [str(path.relative_to("/out")) for path in name_results(sources, Path("/out"), suffix).values()]


def test_names() -> None:
    assert names("a.mp3", "sub/b.x.wav", "noending", ".mp3") == [
        "a.json",
        "sub/b.x.json",
        "noending.json",
        ".mp3.json",
    ]


def test_names_that_meet_keep_their_extension() -> None:
    assert names("a.mp3", "a.wav", "b.wav") == ["a.mp3.json", "a.wav.json", "b.json"]
    assert names("A.mp3", "a.wav") == ["A.mp3.json", "a.wav.json"]


def test_names_that_still_meet_are_numbered() -> None:
    assert names("a.mp3", "a.mp3", "a.mp3") == ["a.mp3.json", "a.mp3-2.json", "a.mp3-3.json"]
    assert names("a.mp3", "a.wav", "a.mp3.ogg") == ["a.mp3.json", "a.wav.json", "a.mp3.ogg.json"]


def test_a_result_never_replaces_a_source() -> None:
    sources = {Path("/out/a.txt"): Path("a.txt")}
    assert name_results(sources, Path("/out"), ".txt") == {Path("/out/a.txt"): Path("/out/a.txt.txt")}


def test_writes_and_replaces(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.txt"
    write_text(target, ["你好", "\n"])
    write_text(target, iter(["再", "见\n"]))
    assert target.read_bytes() == "再见\n".encode()
    assert os.listdir(target.parent) == ["a.txt"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_text(tmp_path / "a.txt", ["x"])
    finally:
        os.umask(old)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_full_disk_leaves_the_old_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def full(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=os.strerror(number)) as caught:
        write_text(target, ["new"])
    assert ("space" in caught.value.fix) == (number != errno.EIO)
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_dev_full_is_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really_open = os.open
    monkeypatch.setattr(os, "open", lambda path, *rest: really_open("/dev/full", os.O_WRONLY))
    with pytest.raises(OutputError, match="No space left"):
        write_text(tmp_path / "a.txt", ["x" * 100_000])
    assert os.listdir(tmp_path) == []


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    def pieces() -> Iterator[str]:
        yield "half"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_text(tmp_path / "a.txt", pieces())
    assert os.listdir(tmp_path) == []


def test_a_directory_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    (tmp_path / "a.txt" / "kept").touch()
    with pytest.raises(OutputError):
        write_text(tmp_path / "a.txt", ["x"])
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_name_too_long(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught:
        write_text(tmp_path / ("长" * 90 + ".txt"), ["x"])
    assert "shorter name" in caught.value.fix
    assert os.listdir(tmp_path) == []


def test_prepare_directory(tmp_path: Path) -> None:
    prepare_directory(tmp_path / "a" / "b")
    assert os.listdir(tmp_path / "a" / "b") == []
    (tmp_path / "file").touch()
    for wrong in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nowhere")):
        with pytest.raises(OutputError, match=str(wrong)):
            prepare_directory(wrong)

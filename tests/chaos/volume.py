"""A small file system of its own for the service's data, so that it can be full without harm to the machine."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

_PIECE = bytes(64 << 10)


@contextlib.contextmanager
def small_volume(place: Path, mebibytes: int) -> Iterator[str | None]:
    """ext4 from a file at `place`; gives None when it is there, else why not (then `place` is a plain folder)."""
    place.mkdir()
    image = place.with_name(place.name + ".image")
    with image.open("wb") as file:
        file.truncate(mebibytes << 20)
    reason = _refusal("mkfs.ext4", "-q", "-m", "0", image) or _refusal("mount", "-o", "loop", image, place)
    try:
        yield reason
    finally:
        if reason is None:
            subprocess.run(["umount", place], check=False)


def _refusal(*command: str | Path) -> str | None:
    """Runs a command; gives why it failed, None when it did not."""
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        return f"there is no {command[0]}"
    return None if done.returncode == 0 else done.stderr.strip()


@contextlib.contextmanager
def filled(place: Path) -> Iterator[None]:
    """Not a byte is free there until this is left."""
    stuffing = place / "stuffing"
    descriptor = os.open(stuffing, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        with contextlib.suppress(OSError):  # most of it at once, without being written
            os.posix_fallocate(descriptor, 0, os.statvfs(place).f_bavail * os.statvfs(place).f_frsize)
        os.lseek(descriptor, 0, os.SEEK_END)
        for piece in (_PIECE, _PIECE[:512], _PIECE[:1]):
            with contextlib.suppress(OSError):
                while os.write(descriptor, piece):
                    pass
        yield
    finally:
        os.close(descriptor)
        stuffing.unlink()

"""Results on disk: which file gets which name, and writing so that no half-written result is ever seen.

What is written comes as pieces of text from app.asr.subtitles; nothing here knows what they mean.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path

from app.asr.errors import OutputError


def prepare_directory(directory: Path) -> None:
    """Make the directory and see that files can be made in it, before hours of work are done for it.

    Raises:
        OutputError: it cannot be made or written to.
    """
    probe = directory / f".{secrets.token_hex(8)}.part"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"The output directory {directory} cannot be used ({error.strerror})",
            fix="Give --output a directory that you may write to.",
        ) from error


def name_results(sources: Mapping[Path, Path], directory: Path, suffix: str) -> dict[Path, Path]:
    """Choose the file below `directory` for each source's result.

    `a.mp3` becomes `a.json`; where two results would meet they keep their extension (`a.mp3.json`,
    `a.wav.json`), and where even that is one name, all but the first are numbered (`a.mp3-2.json`). A
    result never takes the name of a source. Upper and lower case count as the same, as they do on some file
    systems.

    Args:
        sources: source file -> where its result belongs below `directory`, with the source's own name.
        directory: the output directory.
        suffix: of the result, with its dot.
    """
    inputs = {_key(path) for path in sources}
    short = {source: directory / place.with_suffix("") for source, place in sources.items()}
    counts: dict[str, int] = {}
    for target in short.values():
        key = _key(_with(target, suffix))
        counts[key] = counts.get(key, 0) + 1
    taken = set(inputs)
    names: dict[Path, Path] = {}
    for source, place in sources.items():
        target = _with(short[source], suffix)
        if counts[_key(target)] > 1 or _key(target) in taken:
            target = _with(directory / place, suffix)
        number = 2
        while _key(target) in taken:
            target = _with(directory / place, f"-{number}{suffix}")
            number += 1
        taken.add(_key(target))
        names[source] = target
    return names


def write_text(path: Path, pieces: Iterable[str]) -> None:
    """Write a file whole or not at all: beside its place, to the disk, then into place.

    Raises:
        OutputError: disk full, no permission, a directory in the way; whatever stood there before still does.
    """
    temporary = path.parent / f".{secrets.token_hex(8)}.part"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            with open(handle, "w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
                file.writelines(pieces)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            _discard(temporary)
            raise
        _sync_directory(path.parent)
    except OSError as error:
        raise OutputError(f"{path} could not be written ({error.strerror})", fix=_remedy(error)) from error


def _with(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _key(path: Path) -> str:
    return os.path.abspath(path).casefold()


def _discard(path: Path) -> None:
    try:
        path.unlink()
    except OSError:
        return  # the error that led here is the one to tell


def _sync_directory(directory: Path) -> None:
    """Make the new name itself last; some file systems cannot, and then it is as good as it gets."""
    try:
        handle = os.open(directory, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        return
    finally:
        os.close(handle)


def _remedy(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "Free some space there, or choose another --output directory, and run it again."
    if error.errno == errno.ENAMETOOLONG:
        return "Give the recording a shorter name, and run it again."
    return "Check that --output is a directory you may write to, and run it again."

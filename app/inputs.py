"""Which files a command line means: files as given, directories searched for audio and video.

Only names are looked at. Whether a file holds sound is found out when it is decoded.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from app.asr.errors import InputError

MEDIA_SUFFIXES = frozenset(
    ".3gp .aac .ac3 .aif .aifc .aiff .amr .ape .asf .au .avi .awb .caf .flac .flv .m2ts .m4a .m4b "
    ".m4v .mka .mkv .mov .mp2 .mp3 .mp4 .mpeg .mpg .mts .oga .ogg .opus .spx .ts .w64 .wav .webm .wma .wmv "
    ".wv".split()
)


@dataclass
class Inputs:
    """What was found.

    Attributes:
        files: each file once, in order -> where its result belongs below an output directory.
        failures: (argument, error) for each argument that yields nothing.
    """

    files: dict[Path, Path] = field(default_factory=dict)
    failures: list[tuple[Path, InputError]] = field(default_factory=list)


def find_inputs(arguments: Sequence[Path]) -> Inputs:
    """Files in the order given, a directory's sorted by name; results keep its subdirectories."""
    found = Inputs()
    seen: set[str] = set()
    for argument in arguments:
        if argument.is_dir():
            _search(argument, found, seen)
        elif os.path.lexists(argument):
            _add(argument, Path(argument.name), found, seen)
        else:
            error = InputError(f"There is no file {argument}", fix="Check the path and its spelling.")
            found.failures.append((argument, error))
    return found


def _search(directory: Path, found: Inputs, seen: set[str]) -> None:
    unreadable: list[OSError] = []
    hits = 0
    for folder, subfolders, names in os.walk(directory, onerror=unreadable.append):
        subfolders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            if path.suffix.lower() in MEDIA_SUFFIXES:
                hits += 1
                _add(path, path.relative_to(directory), found, seen)
    for problem in unreadable:
        path = Path(os.fsdecode(problem.filename or directory))
        error = InputError(
            f"The directory {path} cannot be read ({problem.strerror})", fix="Check its permissions."
        )
        found.failures.append((path, error))
    if not hits and not unreadable:
        error = InputError(
            f"The directory {directory} holds no audio or video file",
            fix="Name the files themselves if their endings are unusual.",
        )
        found.failures.append((directory, error))


def _add(path: Path, place: Path, found: Inputs, seen: set[str]) -> None:
    real = os.path.realpath(path)
    if real not in seen:
        seen.add(real)
        found.files[path] = place

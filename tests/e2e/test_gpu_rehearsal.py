"""The GPU tests and benchmark, with the CPU as the device: what needs no card runs, and it says what it left out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the network needs torch")
pytest.importorskip("funasr", reason="the reference, FunASR, is not installed")

ROOT = Path(__file__).resolve().parent.parent.parent
Completed = subprocess.CompletedProcess[str]


def run(*command: str, **settings: str) -> Completed:
    environment = os.environ | settings
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_the_gpu_tests_run_on_the_cpu() -> None:
    done = run("-m", "pytest", "-q", "-m", "gpu", "tests/gpu", ASR_GPU_REHEARSAL="cpu")
    assert done.returncode == 0, done.stdout[-3000:]
    assert "this is a rehearsal on the CPU" in done.stdout


def test_without_a_device_all_of_them_skip_with_the_same_reason() -> None:
    done = run("-m", "pytest", "-q", "-m", "gpu", "tests/gpu", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stdout[-3000:]
    assert "no CUDA device: " in done.stdout
    assert " passed" not in done.stdout.splitlines()[-1]


def test_the_gpu_benchmark_is_rehearsed(tmp_path: Path) -> None:
    steps = "materials,memory,breaker"
    done = run("-m", "scripts.bench.gpu", "--rehearse", "--only", steps, "--output", str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["rows"]
    assert {row["step"] for row in rows} == {"memory", "breaker"}
    assert not [row for row in rows if row["failed"]]
    assert "A rehearsal" in (tmp_path / "gpu.md").read_text(encoding="utf-8")

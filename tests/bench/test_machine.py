"""Tests of app/bench/machine.py."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

import pytest

from app.bench import machine


def pretend(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put an nvidia-smi into the path."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")


def test_gpus_are_those_of_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(tmp_path, "echo 'A card, 6144, 550.1'; echo 'Another, 16384, 550.1'; echo noise", monkeypatch)
    assert machine.gpus() == ["A card, 6144 MiB, driver 550.1", "Another, 16384 MiB, driver 550.1"]


def test_a_driver_that_does_not_answer_has_no_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(tmp_path, "echo 'A card, 6144, 550.1'; exit 9", monkeypatch)
    assert machine.gpus() == []
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert machine.gpus() == []


def test_the_description_is_plain_and_names_no_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    told = machine.describe()
    assert json.loads(json.dumps(told)) == told
    assert told["environment"] == {"OMP_NUM_THREADS": "3"}
    assert told["cores"] >= 1 and told["processor"] and "numpy" in told["packages"]
    assert platform.node() not in json.dumps(told) or len(platform.node()) < 4

"""The lists of pins: one for all Pythons where versions agree, markers where not, and no build of torch in them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from scripts import lock_requirements

# Answers with two pins, of which one differs by the Python asked for, and a torch; notes how it was asked.
FAKE_UV = """#!{python} -IS
import json, sys
words, given = sys.argv[1:], sys.stdin.read()
with open({log!r}, "a") as log:
    log.write(json.dumps([words, given]) + "\\n")
python = words[words.index("--python-version") + 1]
print("alike==1.0")
print("numpy==2.2" if python == "3.10" else "numpy==2.3")
print("torch==2.13.0")
print("nvidia-cublas-cu12==1")
print("nvidia-ml-py==13")
"""


def test_versions_that_differ_get_markers_and_others_none() -> None:
    pins = {"3.10": ["a==1", "b==1"], "3.11": ["a==1", "b==2"], "3.12": ["a==1", "b==2"]}
    assert lock_requirements.merge(pins).splitlines() == [
        "a==1",
        'b==1 ; python_version == "3.10"',
        'b==2 ; python_version == "3.11" or python_version == "3.12"',
    ]


def test_lists_that_share_an_environment_are_resolved_against_one_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "asked.txt"
    (tmp_path / "uv").write_text(FAKE_UV.format(python=sys.executable, log=str(log)), encoding="utf-8")
    (tmp_path / "uv").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(lock_requirements, "FOLDER", tmp_path)
    monkeypatch.setattr(lock_requirements, "TOGETHER", ("cpu", "dev"))
    monkeypatch.setattr(lock_requirements, "ALONE", {"bench": ("3.10",)})
    assert lock_requirements.main() == 0
    text = (tmp_path / "cpu.txt").read_text(encoding="utf-8")
    assert text.startswith("# Made by scripts/lock_requirements.py from cpu.in.")
    assert "torch" not in text and "cublas" not in text, "make_venv.sh installs torch by itself"
    assert "nvidia-ml-py==13\n" in text and 'numpy==2.2 ; python_version == "3.10"\n' in text
    assert "python_version" not in (tmp_path / "bench.txt").read_text(encoding="utf-8")
    asked = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    both = [words for words, _ in asked if sum(word.endswith(".in") for word in words) == 2]
    assert len(both) == len(lock_requirements.PYTHONS), "once for each Python"
    [constraint] = {given for words, given in asked if words[-1].endswith("cpu.in") and "3.11" in words}
    assert constraint == "alike==1.0\nnumpy==2.3\nnvidia-ml-py==13"
    assert {given for words, given in asked if words[-1].endswith("bench.in")} == {""}


def test_what_is_wanted_and_what_is_locked_are_the_same_lists() -> None:
    wanted = {path.stem for path in lock_requirements.FOLDER.glob("*.in")}
    locked = {path.stem for path in lock_requirements.FOLDER.glob("*.txt")}
    assert wanted == locked == {*lock_requirements.TOGETHER, *lock_requirements.ALONE}

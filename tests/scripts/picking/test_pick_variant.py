"""The command: exit statuses, JSON and text, input that cannot be used, and that it runs as a file by itself."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts import pick_variant
from scripts.picking import report
from scripts.picking.errors import InputError
from scripts.picking.host import host_of
from scripts.picking.plan import plan
from scripts.picking.table import PATH
from tests.support.hosts import CAPTURES, TABLE, capture, table_data

ROOT = Path(__file__).resolve().parents[3]


def _capture(name: str) -> str:
    return str(CAPTURES / f"{name}.json")


@pytest.mark.parametrize(("name", "status"), [("gt1030-2g", 0), ("cpu-1g", 0), ("cpu-512m", 3), ("riscv", 3)])
def test_the_exit_status_tells_whether_something_can_run(
    name: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pick_variant.main(["--facts", _capture(name)]) == status
    assert ("nothing can run here" in capsys.readouterr().out) == (status == 3)
    assert pick_variant.main(["--facts", _capture(name), "--json"]) == status
    found = json.loads(capsys.readouterr().out)
    assert (found["verdict"] == "none") == (status == 3) and found["reasons"]


def test_the_json_has_the_shape_that_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    pick_variant.main(["--facts", _capture("two-cards"), "--json"])
    found = json.loads(capsys.readouterr().out)
    text = (ROOT / "docs/picking.md").read_text(encoding="utf-8")
    for name in [*found, *found["instances"][0], *found["driver"], *found["instances"][0]["expected"]]:
        assert f"`{name}`" in text or f'"{name}"' in text, f"docs/picking.md says nothing of {name}"


def test_it_reads_a_pipe(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(capture("t4-16g"))))
    assert pick_variant.main(["--facts", "-"]) == 0
    assert "cuda-fp16 on GPU 0 (Tesla T4)" in capsys.readouterr().out


def test_started_as_files_they_work_from_anywhere(tmp_path: Path) -> None:
    """As a user and as a playbook do it: no package path, another directory, nothing of ours in the environment."""
    plain = {"PATH": os.environ["PATH"]}
    probe = subprocess.run(
        [sys.executable, str(ROOT / "scripts/probe_host.py")],
        cwd=tmp_path,
        env=plain,
        capture_output=True,
        check=True,
    )
    pick = subprocess.run(
        [sys.executable, str(ROOT / "scripts/pick_variant.py"), "--facts", "-", "--json"],
        cwd=tmp_path,
        env=plain,
        input=probe.stdout,
        capture_output=True,
        check=False,
    )
    assert pick.returncode in {0, 3}, pick.stderr.decode()
    assert json.loads(pick.stdout)["verdict"] in {"gpu", "cpu", "none"}
    itself = subprocess.run(
        [sys.executable, str(ROOT / "scripts/pick_variant.py"), "--json"],
        cwd=tmp_path,
        env=plain,
        capture_output=True,
        check=False,
    )
    assert json.loads(itself.stdout)["instances"] == json.loads(pick.stdout)["instances"]


def _refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert pick_variant.main(arguments) == 2
    told = capsys.readouterr()
    assert not told.out and len(told.err.splitlines()) == 2, "a problem and a fix, each on a line"
    assert "Traceback" not in told.err
    return told.err


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "facts of version None, and the picker reads version 1"),
        ('{"facts_version": 2}', "facts of version 2, and the picker reads version 1"),
        ('{"facts_version": true}', "facts of version True"),
        ('{"facts_version": 1}', "lacks system, cpu"),
    ],
)
def test_facts_that_are_none_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, problem: str
) -> None:
    file = tmp_path / "facts.json"
    file.write_text(content, encoding="utf-8")
    assert problem in _refused(["--facts", str(file)], capsys)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "cannot be read" in _refused(["--facts", str(tmp_path / "none")], capsys)
    assert "cannot be read" in _refused(["--table", str(tmp_path / "none")], capsys)
    assert "cannot be read" in _refused(["--facts", str(tmp_path)], capsys)


def test_a_pipe_that_is_no_json_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("bash: probe_host.py: not found"))
    assert "standard input is not JSON" in _refused(["--facts", "-"], capsys)


def test_a_table_with_a_hole_is_refused_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = table_data()
    del data["architectures"][4]["half"]
    file = tmp_path / "variants.json"
    file.write_text(json.dumps(data), encoding="utf-8")
    told = _refused(["--facts", _capture("t4-16g"), "--table", str(file)], capsys)
    assert "variants.json.architectures[4] lacks half" in told


def test_another_table_is_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = PATH.read_text(encoding="utf-8").replace('"525.60.13"', '"540.00"', 1)
    file = tmp_path / "variants.json"
    file.write_text(text, encoding="utf-8")
    assert pick_variant.main(["--facts", _capture("gt1030-2g"), "--table", str(file)]) == 0
    assert "CUDA 12.6 needs 540.00 or newer" in capsys.readouterr().out


def test_wrong_use_ends_with_two() -> None:
    for arguments in (["--nonsense"], ["--facts", "a", "--fleet", "b"], ["--facts"]):
        with pytest.raises(SystemExit) as ended:
            pick_variant.main(arguments)
        assert ended.value.code == 2


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    for name, inner in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        found += [(*path, name), *_paths(inner, (*path, name))]
    return found


@pytest.mark.parametrize("wrong", [None, "x", -1, 1.5, [], {}, True, [None], {"a": 1}, "9" * 400])
def test_a_wrong_value_anywhere_is_refused_or_decided_upon_and_never_a_traceback(wrong: Any) -> None:
    for name in ("mig-a100", "two-cards", "driver-470", "wsl2-old-driver"):
        for path in _paths(capture(name)):
            facts = capture(name)
            inner: Any = facts
            for step in path[:-1]:
                inner = inner[step]
            inner[path[-1]] = wrong
            refused = _try(facts)
            assert refused is None or (refused.problem.startswith("facts") and refused.fix)


def _try(facts: dict[str, Any]) -> InputError | None:
    """Decides and writes out both forms; the error with which the facts were refused, if they were."""
    try:
        there = host_of(facts, "facts")
    except InputError as error:
        return error
    made = plan(there, TABLE)
    assert json.dumps(report.as_json(made, there)) and report.as_text(made, there)
    return None

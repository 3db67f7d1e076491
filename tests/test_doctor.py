"""The doctor's checks and its two ways of printing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from app import doctor as module
from app.asr.host import CpuFeatures, CpuGrant, MemoryGrant
from app.cli import main
from app.doctor import (
    Check,
    check_cores,
    check_disk,
    check_memory,
    check_packing,
    check_packs,
    check_processor,
    check_python,
    check_runtime,
    version_of,
)

GIB = 1 << 30


def features(*flags: str, architecture: str = "x86_64") -> CpuFeatures:
    return CpuFeatures("Some CPU", architecture, frozenset(flags))


def test_python() -> None:
    assert check_python((3, 9, 2)).verdict == "fail"
    assert check_python((3, 13, 0)).verdict == "ok"


def test_runtime_packages() -> None:
    missing = check_runtime({"numpy": "1.26", "onnxruntime": None})
    assert (
        missing.verdict == "fail"
        and "onnxruntime" in missing.found
        and "requirements/cpu.txt" in missing.remedy
    )
    assert check_runtime({"numpy": "1.26"}).verdict == "ok"


def test_versions_are_looked_up_without_loading() -> None:
    assert version_of("no_such_module_here", "no-such") is None
    assert version_of("json", "json") == "unknown"
    assert version_of("pytest", "pytest") == pytest.__version__


def test_packing_is_optional() -> None:
    check = check_packing({"torch": None, "funasr": "1.4"})
    assert check.verdict == "ok" and "torch" in check.found and "scripts/make_venv.sh dev" in check.remedy
    assert check_packing({"torch": "2", "funasr": "1"}).remedy == ""


def test_cores_say_why() -> None:
    assert "quota is 1 of 8" in check_cores(CpuGrant(8, 8, 1.0)).found
    assert check_cores(CpuGrant(8, 8, 1.0)).verdict == "warn"
    assert check_cores(CpuGrant(8, 8, 4.0)).verdict == "ok"


def test_processor_says_what_int8_gains() -> None:
    assert "faster" in check_processor(features("avx2", "avx512_vnni")).found
    plain = check_processor(features("avx2"))
    assert plain.verdict == "ok" and "little speed" in plain.found
    old = check_processor(features("sse2"))
    assert old.verdict == "warn" and old.remedy
    assert check_processor(features("asimd", architecture="aarch64")).verdict == "ok"


@pytest.mark.parametrize(
    ("grant", "verdict"),
    [
        (MemoryGrant(8 * GIB, 6 * GIB, None, None), "ok"),
        (MemoryGrant(8 * GIB, 6 * GIB, GIB, GIB // 4), "warn"),
        (MemoryGrant(8 * GIB, GIB // 8, None, None), "fail"),
        (MemoryGrant(None, None, None, None), "warn"),
    ],
)
def test_memory(grant: MemoryGrant, verdict: str) -> None:
    check = check_memory(grant)
    assert check.verdict == verdict
    assert bool(check.remedy) == (verdict != "ok")


def test_packs(tmp_path: Path) -> None:
    assert check_packs(tmp_path).verdict == "fail"
    (tmp_path / "demo-int8").mkdir()
    manifest = tmp_path / "demo-int8" / "manifest.json"
    manifest.write_text('{"name": "demo", "precision": "int8"}')
    assert check_packs(tmp_path) == Check(
        "packs",
        "ok",
        "demo int8",
        readings={"packs": [{"directory": "demo-int8", "name": "demo", "precision": "int8"}]},
    )
    manifest.write_text("[]")
    assert check_packs(tmp_path).verdict == "fail" and "damaged" in check_packs(tmp_path).found


def test_disk(tmp_path: Path) -> None:
    assert check_disk(tmp_path).verdict in ("ok", "warn")
    assert check_disk(tmp_path / "gone").verdict == "warn"


def replace_checks(monkeypatch: pytest.MonkeyPatch, *verdicts: str) -> None:
    checks = [Check(f"thing{n}", verdict, "seen", "mend it", {"n": n}) for n, verdict in enumerate(verdicts)]
    monkeypatch.setattr(module, "examine", lambda: iter(checks))


@pytest.mark.parametrize(
    ("verdicts", "worst", "code"),
    [(["ok", "ok"], "ok", 0), (["warn", "ok"], "warn", 0), (["fail", "warn"], "fail", 2)],
)
def test_exit_code_and_json(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    verdicts: list[str],
    worst: str,
    code: int,
) -> None:
    replace_checks(monkeypatch, *verdicts)
    assert main(["doctor", "--json"]) == code
    told = json.loads(capsys.readouterr().out)
    assert told["verdict"] == worst
    assert told["checks"][1] == {
        "name": "thing1",
        "verdict": verdicts[1],
        "found": "seen",
        "remedy": "mend it",
        "readings": {"n": 1},
    }


def test_text(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    replace_checks(monkeypatch, "fail")
    assert main(["doctor"]) == 2
    assert capsys.readouterr().out.split() == ["fail", "thing0", "seen", "->", "mend", "it"]


def test_this_machine_can_be_examined(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "--json"])
    names = [check["name"] for check in json.loads(capsys.readouterr().out)["checks"]]
    assert names == ["python", "packages", "cores", "processor", "memory", "gpu", "packs", "packing", "disk"]


def test_it_runs_where_nothing_is_installed() -> None:
    root = Path(module.__file__).parents[1]
    command = [sys.executable, "-S", "-m", "app", "doctor", "--json"]  # -S: no installed packages
    done = subprocess.run(command, cwd=root, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (2, b"")
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert "onnxruntime" in checks["packages"]["found"] and checks["packages"]["verdict"] == "fail"

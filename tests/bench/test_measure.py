"""Tests of app/bench/measure.py: real processes that do what `transcribe` might."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.asr.errors import ResourceError
from app.bench import measure
from app.bench.measure import Run, read_result, run

MIB = 1 << 20
ROOT = Path(__file__).parents[2]
TOLD: dict[str, Any] = {
    "text": "今天",
    "duration": 4.0,
    "rtf": 0.25,
    "peak_rss_bytes": 5 * MIB,
    "precision": "int8",
    "model": "demo",
    "hotwords": {"used": ["张三", "李四"], "unusable": []},
}


def python(code: str, limit_seconds: float = 60.0) -> Run:
    return run([sys.executable, "-c", code], limit_seconds)


def test_a_good_run_is_read_and_timed() -> None:
    done = python(f"import time; time.sleep(0.2); print({json.dumps(TOLD)!r})")
    assert (done.code, done.reason) == (0, "")
    assert done.result is not None and (done.result.text, done.result.rtf) == ("今天", 0.25)
    assert done.result.hotwords == 2 and done.result.device is None
    assert done.seconds >= 0.2


@pytest.mark.parametrize("held", ["child", "parent"])
def test_memory_is_the_childs_own(held: str) -> None:
    """In a process of its own: a child's figure begins with its parent's, and this one's may be anything."""
    child = f"x = b'x' * {0 if held == 'parent' else 150 * MIB}; print({json.dumps(TOLD)!r})"
    code = (
        "import sys; from app.bench.measure import run; "
        f"x = b'x' * {150 * MIB if held == 'parent' else 0}; "
        f"done = run([sys.executable, '-c', {child!r}]); print(done.kernel_peak_bytes, done.peak_bytes)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    kernel, peak = printed.stdout.split()
    if held == "parent":
        assert (kernel, peak) == ("None", str(5 * MIB))
    else:
        assert int(kernel) > 150 * MIB and peak == kernel


@pytest.mark.parametrize(
    ("code", "exit_code", "reason", "told"),
    [
        ("import sys; sys.exit('error: No pack.\\n  what to do: make one.')", 1, "No pack.", True),
        (
            "import sys; sys.exit('usage error: no such option\\n  what to do: see --help')",
            1,
            "no such option",
            True,
        ),
        ("import sys; sys.exit('warning: a\\nerror: first\\nerror: last')", 1, "last", True),
        ("import sys; sys.exit('Traceback\\nValueError: b')", 1, "ValueError: b", False),
        ("import sys; sys.exit(3)", 3, "exit code 3, without a word", False),
        ("print('not json')", 0, "the result is not the JSON that was asked for", False),
        ("print('[]')", 0, "the result is not the JSON that was asked for", False),
    ],
)
def test_a_failed_run_says_why(code: str, exit_code: int, reason: str, told: bool) -> None:
    done = python(code)
    assert (done.code, done.reason, done.told, done.result) == (exit_code, reason, told, None)


def test_a_killed_run_says_that_memory_may_have_run_out() -> None:
    done = python("import os; os.kill(os.getpid(), 9)")
    assert done.code == -9 and done.result is None
    assert "SIGKILL" in done.reason and "memory" in done.reason


def test_a_run_that_hangs_is_ended() -> None:
    done = python("import time; time.sleep(60)", limit_seconds=0.3)
    assert done.code == -9 and done.reason == "took longer than 0.3 s"
    assert done.seconds < 30


def test_long_reasons_are_shortened() -> None:
    done = python("import sys; sys.exit('error: ' + 'x' * 5000)")
    assert len(done.reason) == 300 and done.reason.endswith("…")


def test_the_process_ends_with_an_interrupted_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def start(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(popen(*arguments, **options))
        return started[0]

    def interrupt(process: int, options: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setattr(os, "wait4", interrupt)
    with pytest.raises(KeyboardInterrupt):
        python("import time; time.sleep(60)")
    assert started[0].returncode == -15
    with pytest.raises(ProcessLookupError):
        os.kill(started[0].pid, 0)


def test_a_process_that_will_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "_GRACE_SECONDS", 0.2)
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        measure._end(process)
        assert process.returncode == -9


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(ResourceError, match="cannot be started"):
        run(["/nowhere/python"])


def test_the_program_is_found_from_any_directory(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = python(f"import app.asr.errors; print({json.dumps(TOLD)!r})")
    assert done.result is not None, done.reason


def test_the_memory_of_a_gpu_is_read_where_it_is_told() -> None:
    told = TOLD | {"device": "cuda:0 (A card)", "device_memory": {"peak_bytes": 7 * MIB}}
    result = read_result(json.dumps(told))
    assert result is not None
    assert (result.device, result.device_peak_bytes) == ("cuda:0 (A card)", 7 * MIB)


@pytest.mark.parametrize(
    "changed",
    [
        {"device_memory": None},
        {"device_memory": {}},
        {"device": None},
        {"peak_rss_bytes": None},
        {"hotwords": None},
    ],
)
def test_what_is_not_told_is_unknown(changed: dict[str, Any]) -> None:
    result = read_result(json.dumps(TOLD | changed))
    assert result is not None and result.device_peak_bytes is None


@pytest.mark.parametrize("changed", [{"rtf": None}, {"duration": "long"}, {"hotwords": {}}])
def test_what_must_be_told_is_missed(changed: dict[str, Any]) -> None:
    assert read_result(json.dumps(TOLD | changed)) is None

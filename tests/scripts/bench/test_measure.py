"""Tests of scripts/bench/measure.py: clocks, memory and failures of a real, small process."""

from __future__ import annotations

import sys

import pytest

from scripts.bench.measure import BenchError, run

TELLING = """
import json, sys, time
print("noise from a library")
print("BENCH " + json.dumps({"event": "loaded"}), flush=True)
time.sleep(0.2)
held = bytearray(80 << 20)
for at in range(0, len(held), 4096): held[at] = 1
print("BENCH " + json.dumps({"event": "done", "words": 3}), flush=True)
"""


def test_events_come_with_their_time_and_memory_is_that_of_the_process() -> None:
    finished = run([sys.executable, "-c", TELLING])
    loaded, _ = finished.event("loaded")
    done, facts = finished.event("done")
    assert 0 < loaded < done - 0.1 < finished.seconds
    assert facts["words"] == 3
    assert finished.peak_rss_bytes > 80 << 20
    assert finished.text.startswith("noise")


def test_an_event_that_never_came_is_an_error() -> None:
    with pytest.raises(BenchError, match="never told 'done'"):
        run([sys.executable, "-c", "pass"]).event("done")


def test_a_failure_carries_the_end_of_standard_error() -> None:
    with pytest.raises(BenchError, match=r"(?s)ended with 3.*out of luck"):
        run([sys.executable, "-c", "import sys; sys.stderr.write('out of luck'); sys.exit(3)"])


def test_a_process_that_hangs_is_ended() -> None:
    with pytest.raises(BenchError, match="ended with 124"):
        run([sys.executable, "-c", "import time; time.sleep(60)"], timeout=1)


def test_thread_settings_of_the_caller_do_not_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert run([sys.executable, "-c", "import os; print(os.environ.get('OMP_NUM_THREADS'))"]).text == "None\n"

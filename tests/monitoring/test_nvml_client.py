"""Keeping a process in check that hangs, dies or talks nonsense. The processes here are scripts of a few lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from monitoring.exporter.errors import NvmlError
from monitoring.exporter.nvml_client import NvmlClient, Patience

READY = (
    "import sys, time, json\nsay = lambda told: print(json.dumps(told), flush=True)\nsay({'ready': True})\n"
)
ANSWER = READY + "for line in sys.stdin: say({'asked': line.strip()})\n"
HANG = READY + "for line in sys.stdin: time.sleep(600)\n"
MakeClient = Callable[..., NvmlClient]


@pytest.fixture
def client() -> Iterator[MakeClient]:
    made: list[NvmlClient] = []

    def make(code: str, **patience: float) -> NvmlClient:
        settings = Patience(**{"answer": 30.0, "start": 60.0, "pause": 600.0, **patience})
        made.append(NvmlClient((sys.executable, "-c", code), settings))
        return made[-1]

    yield make
    for each in made:
        each.close()


def failure_of(client: NvmlClient, what: str = "gpus") -> NvmlError:
    with pytest.raises(NvmlError) as caught:
        client.ask(what)
    return caught.value


def test_questions_are_answered_by_one_process(client: MakeClient) -> None:
    made = client(ANSWER)
    made.start(30.0)
    assert made.ask("gpus") == {"asked": "gpus"}
    process = made._process
    assert made.ask("processes") == {"asked": "processes"}
    assert made._process is process


def test_a_hang_ends_in_time_and_the_process_with_it(client: MakeClient) -> None:
    made = client(HANG, answer=2.0)
    made.start(30.0)
    process = made._process
    assert process is not None
    failure = failure_of(made)
    assert failure.code == "hang"
    assert process.poll() is not None
    assert made._process is None


def test_after_a_failure_it_is_not_asked_again_before_the_pause(client: MakeClient) -> None:
    made = client(HANG, answer=2.0)
    made.start(30.0)
    first = failure_of(made)
    began = time.monotonic()
    assert failure_of(made) is first
    assert made._process is None
    assert time.monotonic() - began < 1.0  # no process was started and waited for


def test_at_the_end_it_may_finish_what_it_asks(client: MakeClient, tmp_path: Path) -> None:
    file = tmp_path / "finished"
    made = client(f"{READY}for line in sys.stdin: pass\nopen({str(file)!r}, 'w').close()\n")
    made.start(30.0)
    made.close()
    assert file.exists()


def test_it_recovers_after_the_pause(client: MakeClient) -> None:
    made = client(READY + "sys.exit(3)\n", pause=0.0)
    made.start(30.0)
    assert failure_of(made).code == "died"
    made._command = (sys.executable, "-c", ANSWER)
    assert made.ask("gpus") == {"asked": "gpus"}


def test_a_process_that_dies_under_way_says_how(client: MakeClient) -> None:
    made = client(READY + "sys.stdin.readline(); sys.exit(7)\n")
    made.start(30.0)
    failure = failure_of(made)
    assert failure.code == "died"
    assert "exit code 7" in failure.problem


@pytest.mark.parametrize("nonsense", ["print('nonsense', flush=True)", "print('[1]', flush=True)", "print()"])
def test_nonsense_is_no_answer(client: MakeClient, nonsense: str) -> None:
    made = client(f"{READY}sys.stdin.readline(); {nonsense}; sys.stdout.flush(); time.sleep(600)\n")
    made.start(30.0)
    assert failure_of(made).code == "died"


def test_an_answer_without_end_is_cut_off(client: MakeClient) -> None:
    made = client(READY + "sys.stdin.readline()\nwhile True: sys.stdout.write('x' * 65536)\n")
    made.start(30.0)
    assert failure_of(made).code == "died"


def test_a_start_that_takes_long_is_waited_for_but_not_by_scrapes(client: MakeClient) -> None:
    made = client("import time; time.sleep(600)", answer=0.05)
    failure = failure_of(made)
    assert failure.code == "starting"
    assert made._process is not None
    made._patience = Patience(answer=0.05, start=0.0, pause=600.0)
    assert failure_of(made).code == "hang"


@pytest.mark.parametrize(
    ("number", "code"),
    [(12, "library_not_found"), (9, "driver_not_loaded"), (18, "lib_rm_version_mismatch"), (4, "no_permission"),
     (999, "other")],
)  # fmt: skip
def test_errors_of_the_start_have_a_code_and_a_remedy(client: MakeClient, number: int, code: str) -> None:
    made = client(f"import json; print(json.dumps({{'error': 'words of NVML', 'number': {number}}}))")
    failure = failure_of(made)
    assert failure.code == code
    assert "words of NVML" in failure.problem
    assert failure.fix


def test_processes_that_cannot_be_killed_are_not_piled_up(client: MakeClient) -> None:
    class Undead:
        def poll(self) -> None:
            """As a process in the driver: still there."""

    made = client(ANSWER)
    made._stuck = [Undead(), Undead(), Undead()]  # type: ignore[list-item]
    failure = failure_of(made)
    assert failure.code == "hang"
    assert "cannot be killed" in failure.problem
    assert made._process is None


def test_who_asks_meanwhile_does_not_wait_for_ever(client: MakeClient) -> None:
    made = client(ANSWER, answer=0.05)
    with made._lock:
        assert "busy" in failure_of(made).problem

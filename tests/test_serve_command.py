"""`python -m app serve` as a process: what stops its start, what it says, and how it ends."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.cli import main
from app.serve_command import Told, listen, run_until_told
from tests.fakes.recogniser import FakeRecogniser
from tests.support.service import app_in, until, wav

ROOT = Path(__file__).resolve().parent.parent
CLIP = ROOT / "app" / "demo" / "recordings" / "meeting.ogg"


@contextmanager
def process(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """The command, and the lines that it has written to standard error up to its address."""
    command = [sys.executable, "-m", "app", "serve", "--port", "0", *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as started:
        try:
            lines = []
            for line in started.stderr or ():
                lines.append(line)
                if "http://" in line:
                    break
            yield started, lines
        finally:
            started.kill()


def test_it_serves_the_demo_model_and_ends_well(tmp_path: Path) -> None:
    with process("--data-dir", str(tmp_path), "--model", "demo") as (started, lines):
        address = re.findall(r"http://127\.0\.0\.1:\d+", lines[-1])[0]
        until(lambda: httpx.get(f"{address}/readyz", timeout=5).status_code == 200)
        with CLIP.open("rb") as clip:
            answer = httpx.post(
                f"{address}/v1/audio/transcriptions",
                data={"model": "whisper-1"},
                files={"file": clip},
                timeout=60,
            )
        assert len(answer.json()["text"]) > 100
        started.send_signal(signal.SIGTERM)
        assert started.wait(20) == 0
    assert list((tmp_path / "uploads").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--port", "http"], "ASR_PORT"),
        (["--device", "gpu"], "ASR_DEVICE"),
        (["--idle-seconds", "0"], "ASR_IDLE_SECONDS"),
        (["--host", "203.0.113.7"], "203.0.113.7"),  # nobody's address
    ],
)
def test_a_setting_that_cannot_be_used_stops_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    assert main(["serve", "--data-dir", str(tmp_path), *arguments]) == 2
    told = capsys.readouterr().err
    assert named in told
    assert "what to do:" in told
    assert "Traceback" not in told


def test_a_device_that_is_lost_again_and_again_ends_the_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a code that a restart policy takes for a failure; accepted jobs are on the disk."""
    app = app_in(tmp_path)
    settings = app.state.service.settings

    async def scene() -> int:
        gone = asyncio.Event()
        asyncio.get_running_loop().call_later(0.2, gone.set)
        return await asyncio.wait_for(run_until_told(app, settings, listen(settings), gone), 30)

    assert asyncio.run(scene()) == 3
    assert "the GPU was lost" in capsys.readouterr().err


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Gives this process its own signals back after the verb ran in it."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("delay", [0.3, 0.9, 2.0])
def test_signals_at_any_moment_end_it_with_its_own_code(tmp_path: Path, delay: float) -> None:
    """Before there is a server, while it starts, and while it ends; a supervisor takes any other code for a crash."""
    command = [sys.executable, "-m", "app", "serve", "--port", "0", "--data-dir", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, env=dict(os.environ)) as started:
        _until_it_listens_to_signals(started.pid)
        time.sleep(delay - 0.3)
        while started.poll() is None:
            started.send_signal(signal.SIGTERM)
            time.sleep(0.02)
        assert started.returncode == 0, (started.stderr.read() if started.stderr else b"").decode()


def _until_it_listens_to_signals(pid: int) -> None:
    """The interpreter itself takes a moment before the first line of the program can run."""

    def listens() -> bool:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        caught = int(re.findall(r"^SigCgt:\s*([0-9a-f]+)", status, re.MULTILINE)[0], 16)
        return bool(caught >> (signal.SIGTERM - 1) & 1)

    until(listens)


def test_an_address_that_is_taken_stops_the_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert main(["serve", "--data-dir", str(tmp_path), "--port", port]) == 2
    assert f"127.0.0.1:{port}" in capsys.readouterr().err


def test_a_request_that_a_second_signal_cuts_off_is_told_so(tmp_path: Path) -> None:
    """Not the web server's bare 500: the client may send it again."""
    recogniser = FakeRecogniser([3600.0])
    app = app_in(tmp_path, recogniser, grace_seconds=30)
    settings = app.state.service.settings
    listener, told, answers = listen(settings), Told(), list[httpx.Response]()
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"

    def ask() -> None:
        form = {"files": {"file": ("a.wav", wav())}, "data": {"model": "whisper-1"}}
        answers.append(httpx.post(f"{address}/v1/audio/transcriptions", timeout=20, **form))  # type: ignore[arg-type]

    client = threading.Thread(target=ask)

    async def life() -> int:
        running = asyncio.create_task(run_until_told(app, settings, listener, asyncio.Event(), told))
        client.start()
        await asyncio.to_thread(until, lambda: recogniser.running)
        assert told.server is not None
        for _ in range(2):
            told.server.handle_exit(signal.SIGTERM, None)
        return await running

    assert asyncio.run(asyncio.wait_for(life(), 20)) == 0
    client.join(20)
    [answer] = answers
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "shutting_down")
    assert answer.headers["retry-after"] == "5"

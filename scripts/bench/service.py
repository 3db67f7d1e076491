"""`make bench-service`: the service as its users meet it. Start, memory, one client, sixty-four, a thousand files.

Writes docs/benchmarks/service-MODEL.md and .json. The service is a process of its own, from .venv-serve; clients are
threads here. Everything is asked over HTTP on 127.0.0.1, and what is asked is bounded.

    python -m scripts.bench.service [--model demo|PACK] [--quick]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from scripts.bench.machine import describe
from scripts.bench.materials import ROOT, make_audio
from scripts.bench.measure import BenchError
from scripts.bench.report import MIB

WORK = ROOT / "build" / "bench"
PYTHON = ROOT / ".venv-serve" / "bin" / "python"
STARTS = 3
# Seconds of audio and how many clients send such a file, all at once: 64 clients, 1 h 35 min in all.
MIX = ((2, 12), (5, 8), (10, 8), (30, 16), (60, 12), (300, 6), (1200, 2))
QUICK_MIX = ((2, 4), (10, 4), (60, 2))
SINGLE_SECONDS = 1200
SHORT_SECONDS = 10  # up to this, a request counts as a short one
FILES, SETTLED = 1000, 100  # files one after the other, and after how many memory is first read
_TIMEOUT = 3600.0


@dataclass(frozen=True)
class Answer:
    """One request: seconds of audio, seconds until the answer, and what was wrong with it; empty for a good one."""

    audio_seconds: int
    seconds: float
    fault: str = ""

    @property
    def good(self) -> bool:
        return not self.fault


@dataclass(frozen=True)
class Results:
    """Everything that was measured; memory is the peak of web process and worker together, in bytes."""

    ready_seconds: list[float]
    idle_bytes: int
    pageless_bytes: int
    single_speed: float
    crowd_speed: float
    clients: int
    failures: int
    short_p95_seconds: float
    alone_short_seconds: float
    peak_bytes: int
    settled_bytes: int
    after_files_bytes: int
    files: int


def ask(client: httpx.Client, audio: Path, seconds: int) -> Answer:
    """Sends one file to a service or a gateway, and waits for its text."""
    begun = time.monotonic()
    try:
        with audio.open("rb") as file:
            answer = client.post(
                "/v1/audio/transcriptions", data={"model": "whisper-1"}, files={"file": file}
            )
        good = answer.status_code == 200 and bool(answer.json()["text"])
        fault = "" if good else f"{answer.status_code} {answer.text[:200]}"
    except httpx.TransportError as error:
        fault = repr(error)
    if fault:
        print(f"{audio.name}: {fault}", file=sys.stderr, flush=True)
    return Answer(seconds, time.monotonic() - begun, fault)


class Service:
    """The service under test."""

    def __init__(self, model: str, folder: Path, page: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        cache = {"ASR_CACHE_DIR": str(folder), "ASR_DATA_DIR": str(folder / "data"), "ASR_LOG_LEVEL": "error"}
        # The whole crowd is let in: what it waits is the measurement.
        limits = {"ASR_QUEUE_SECONDS": "86400"}
        command: list[str | Path] = [
            PYTHON,
            "-m",
            "app",
            "serve",
            "--model",
            model,
            "--port",
            str(port),
            "--page",
            page,
        ]
        # One client for all: making one reads the host's certificates, and that would be measured.
        connections = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=_TIMEOUT, limits=connections)
        started = time.monotonic()
        self._process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **cache, **limits}, stderr=subprocess.DEVNULL
        )
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() - started > 300:
                raise BenchError(f"The service does not start; see why: {' '.join(map(str, command))}")
            time.sleep(0.02)
        self.ready_seconds = time.monotonic() - started

    def _is_ready(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return self._client.get("/readyz").status_code == 200
        return False

    def wait_for_page(self) -> None:
        """The page is loaded behind the engine's back; what is measured meanwhile is measured beside it."""
        limit = time.monotonic() + 120
        while self._client.get("/ui/config").status_code != 200:
            if time.monotonic() > limit:
                raise BenchError("The page does not come up; the log of the service says why.")
            time.sleep(0.2)

    def ask(self, audio: Path, seconds: int) -> Answer:
        """Sends one file and waits for its text."""
        return ask(self._client, audio, seconds)

    def memory(self, line: str) -> int:
        """VmRSS or VmHWM of the web process and its worker together."""
        total = 0
        for pid in [self._process.pid, *_children(self._process.pid)]:
            status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
            found = re.search(rf"^{line}:\s+(\d+) kB", status, re.MULTILINE)
            total += int(found[1]) << 10 if found else 0
        return total

    def processor_seconds(self) -> float:
        """Processor time that the web process and its worker took so far."""
        ticks = 0
        for pid in [self._process.pid, *_children(self._process.pid)]:
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(120)
        self._client.close()


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


@contextlib.contextmanager
def running(model: str, folder: Path, page: str = "on") -> Iterator[Service]:
    """A service that is ready, and gone afterwards."""
    service = Service(model, folder, page)
    try:
        yield service
    finally:
        service.stop()


def crowd(service: Service, mix: Sequence[tuple[int, int]]) -> tuple[float, list[Answer]]:
    """All clients of a mix at once; the seconds until the last one has its answer."""
    answers: list[Answer] = []
    clients = [
        threading.Thread(
            target=lambda length=length: answers.append(service.ask(make_audio(WORK, length), length))
        )
        for length, count in mix
        for _ in range(count)
    ]
    begun = time.monotonic()
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return time.monotonic() - begun, answers


def measure(model: str, *, quick: bool) -> Results:
    """Raises BenchError when the service does not start."""
    mix = QUICK_MIX if quick else MIX
    single, files, settled = (60, 40, 20) if quick else (SINGLE_SECONDS, FILES, SETTLED)
    for length in {single, SHORT_SECONDS, *(length for length, _ in mix)}:
        make_audio(WORK, length)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with running(model, folder):
            pass  # measures what batches cost, once for this machine
        with running(model, folder, page="off") as service:
            pageless = service.memory("VmRSS")
        starts = []
        for _ in range(STARTS - 1):
            with running(model, folder) as service:
                starts.append(service.ready_seconds)
        with running(model, folder) as service:
            starts.append(service.ready_seconds)
            service.wait_for_page()
            idle = service.memory("VmRSS")
            alone_short = statistics.median(service.ask(make_audio(WORK, 10), 10).seconds for _ in range(3))
            # In turns, so that both see the same machine.
            singles = [service.ask(make_audio(WORK, single), single)]
            seconds, answers = crowd(service, mix)
            singles.append(service.ask(make_audio(WORK, single), single))
            peak = service.memory("VmHWM")
            _many(service, settled)
            settled_bytes = service.memory("VmRSS")
            _many(service, files - settled)
            after = service.memory("VmRSS")
    short = sorted(answer.seconds for answer in answers if answer.audio_seconds <= SHORT_SECONDS)
    return Results(
        ready_seconds=starts,
        idle_bytes=idle,
        pageless_bytes=pageless,
        single_speed=2 * single / sum(answer.seconds for answer in singles),
        crowd_speed=sum(answer.audio_seconds for answer in answers) / seconds,
        clients=len(answers),
        failures=sum(not answer.good for answer in [*answers, *singles]),
        short_p95_seconds=short[min(len(short) - 1, int(0.95 * len(short)))],
        alone_short_seconds=alone_short,
        peak_bytes=peak,
        settled_bytes=settled_bytes,
        after_files_bytes=after,
        files=files,
    )


def _many(service: Service, count: int) -> None:
    clip = make_audio(WORK, 10)
    for _ in range(count):
        if not service.ask(clip, 10).good:
            raise BenchError("A file of 10 s was not recognised; the log of the service says why.")


def page(model: str, machine: dict[str, Any], found: Results) -> str:
    """The results as a table, goals beside them."""
    drift = found.after_files_bytes / found.settled_bytes - 1
    ready = statistics.median(found.ready_seconds)
    rows = [
        ("start to ready, pack cached, median of 3", f"{ready:.1f} s", "4 s at most"),
        (
            "memory when ready, web and worker",
            f"{found.idle_bytes / MIB:.0f} MiB (without the page: {found.pageless_bytes / MIB:.0f} MiB)",
            "",
        ),
        ("peak memory after the crowd", f"{found.peak_bytes / MIB:.0f} MiB", "906 MiB (0.95 GB) at most"),
        ("one client, seconds of audio a second", f"{found.single_speed:.1f}", ""),
        (
            f"{found.clients} clients at once, the same",
            f"{found.crowd_speed:.1f} ({found.crowd_speed / found.single_speed:.2f} of one client)",
            "0.95 at least",
        ),
        ("requests that failed", str(found.failures), "0"),
        (
            f"answer to {SHORT_SECONDS} s or less in the crowd, 95 % within",
            f"{found.short_p95_seconds:.1f} s (10 s alone: {found.alone_short_seconds:.2f} s)",
            "",
        ),
        (f"memory after {found.files} files, against the first tenth", f"{drift:+.1%}", "2 % at most"),
    ]
    lines = [
        "# The service under load",
        "",
        (
            f"Written by `make bench-service` on {machine['date']}; do not edit. Model: {model}. Machine: "
            f"{machine['processor']}, {machine['cores']} cores granted, load average "
            f"{machine['load_average_at_start']} before the start."
        ),
        "",
        "| | measured | goal |",
        "|---|---|---|",
        *(f"| {what} | {value} | {goal} |" for what, value, goal in rows),
    ]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.bench.service", description="The service under load."
    )
    parser.add_argument("--model", default="demo", help="model name or pack directory (default: demo)")
    parser.add_argument("--quick", action="store_true", help="a rehearsal, written below build/")
    options = parser.parse_args(arguments)
    machine = describe({"ours": PYTHON})
    WORK.mkdir(parents=True, exist_ok=True)
    try:
        found = measure(options.model, quick=options.quick)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    name = Path(options.model).name
    folder = WORK / "quick" if options.quick else ROOT / "docs" / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    raw = {"machine": machine, "model": name, "results": asdict(found)}
    (folder / f"service-{name}.json").write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
    (folder / f"service-{name}.md").write_text(page(name, machine, found), encoding="utf-8")
    print(page(name, machine, found), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

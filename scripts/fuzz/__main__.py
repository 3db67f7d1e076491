"""`make fuzz`: requests made from the service's own OpenAPI document, most of them wrong; none may fail the service.

Starts a service with the demo model on 127.0.0.1, sends what schemathesis makes up, and fails when an answer is a
server error, is not documented, or does not fit the document; or when the service holds much more memory afterwards.

    python -m scripts.fuzz [--cases N] [--minutes M] [--seed S] [--python PATH]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
RECORDING = ROOT / "app" / "demo" / "recordings" / "command-1.flac"
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
OPERATIONS = 8  # that take anything; cases are counted for each
MOST_GROWTH = 64 << 20  # bytes of resident memory of the web process
_READY_SECONDS = 120.0
_CASES = re.compile(r"(\d+) generated")


class FuzzError(Exception):
    """The service could not be tried; the message says why."""


@contextlib.contextmanager
def served(python: Path) -> Iterator[tuple[str, int]]:
    """A service with the demo model: its address and process id."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as data, open(Path(data) / "log", "wb") as log:
        environment = {**os.environ, "ASR_DATA_DIR": data, "ASR_PORT": str(port), "ASR_LOG_LEVEL": "error"}
        command: list[str | Path] = [python, "-m", "app", "serve", "--model", "demo"]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        try:
            _wait_until_ready(f"http://127.0.0.1:{port}/readyz", process)
            yield f"http://127.0.0.1:{port}", process.pid
            if process.poll() is not None:
                raise FuzzError(f"The service ended by itself with code {process.returncode}.")
            told = (Path(data) / "log").read_text(encoding="utf-8", errors="replace")
            if "Traceback" in told:
                raise FuzzError(f"The service logged an error of its own:\n{told[-3000:]}")
        finally:
            process.terminate()
            process.wait(60)


def _wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    limit = time.monotonic() + _READY_SECONDS
    while time.monotonic() < limit and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own service
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.2)
    raise FuzzError("The service did not get ready; start it with `make run` to see why.")


def resident_bytes(pid: int) -> int:
    """Memory that a process holds now."""
    found = re.search(
        r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="ascii"), re.MULTILINE
    )
    return int(found[1]) << 10 if found else 0


def run(address: str, cases: int, minutes: float, seed: int) -> tuple[int, int]:
    """Sends the requests; the number sent, and schemathesis's exit code (0: all answers were right)."""
    each = max(1, cases // OPERATIONS)
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{address}/openapi.json", "--checks", CHECKS]
    command += ["--max-examples", str(each), "--max-time", str(int(minutes * 60)), "--seed", str(seed)]
    command += ["--phases", "examples,coverage,fuzzing", "--continue-on-failure", "--warnings", "off"]
    environment = {
        **os.environ,
        "SCHEMATHESIS_HOOKS": "scripts.fuzz.hooks",
        "FUZZ_RECORDING": str(RECORDING),
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout)
    found = _CASES.findall(done.stdout)
    return int(found[-1]) if found else 0, done.returncode


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.fuzz", description="Random requests to a service."
    )
    parser.add_argument(
        "--cases", type=int, default=10_000, help="requests to make up, about (default: 10000)"
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="stop after so long (default: 30)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--python", type=Path, default=ROOT / ".venv-serve" / "bin" / "python")
    options = parser.parse_args(arguments)
    try:
        with served(options.python) as (address, pid):
            run(address, 200, 1.0, options.seed + 1)  # what is loaded once is not growth
            before = resident_bytes(pid)
            sent, code = run(address, options.cases, options.minutes, options.seed)
            growth = resident_bytes(pid) - before
    except FuzzError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{sent} requests; the web process grew by {growth / (1 << 20):.1f} MiB")
    if growth > MOST_GROWTH:
        print(f"error: that is more than {MOST_GROWTH >> 20} MiB; something is kept.", file=sys.stderr)
        return 2
    return 0 if code == 0 and sent else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""`python -m app serve` as a process of its own on 127.0.0.1, to be asked, killed and started again."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0  # seconds for anything that should take a few


class ServiceProcess:
    """One service and its data; `start` it as often as it was killed.

    Args:
        data: its data directory.
        environment: settings, as ASR_NAME.
        log: file that what it says is added to; None: beside its data.
    """

    def __init__(
        self, data: Path, environment: Mapping[str, str] | None = None, log: Path | None = None
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self._environment = {
            **os.environ,
            "ASR_DATA_DIR": str(data),
            "ASR_PORT": str(self.port),
            "ASR_CACHE_DIR": str(data / "cache"),
            **(environment or {}),
        }
        self._log = log or data.parent / f"{data.name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it takes work."""
        self.launch()
        self.wait_until_ready()

    def launch(self) -> None:
        """Starts the process, and does not wait for it."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "app", "serve"],
                cwd=ROOT,
                env=self._environment,
                stderr=log,
                stdout=log,
            )

    def wait_until_ready(self) -> None:
        until(self._is_ready, lambda: f"it does not get ready; its log ends:\n{self.log()[-3000:]}")

    def _is_ready(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            # Its worker is up: while one starts again the service is ready as well.
            return httpx.get(f"{self.address}/readyz", timeout=5).json()["status"] in {"ready", "asleep"}
        return False

    @property
    def pid(self) -> int:
        assert self._process is not None, "it was not started"
        return self._process.pid

    @property
    def worker(self) -> int | None:
        """The worker process, None while there is none."""
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            with contextlib.suppress(OSError):
                for child in (task / "children").read_text().split():
                    if b"worker_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                        return int(child)
        return None

    def kill_worker(self) -> bool:
        """kill -9; False when there was none."""
        worker = self.worker
        if worker is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
            return True
        return False

    def kill(self) -> None:
        """kill -9 of the web process; its worker ends by itself."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """SIGTERM; gives the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(PATIENCE)

    def transcribe(self, file: Path, **fields: str) -> httpx.Response:
        """POST /v1/audio/transcriptions."""
        with file.open("rb") as content:
            return httpx.post(
                f"{self.address}/v1/audio/transcriptions",
                data={"model": "whisper-1", **fields},
                files={"file": content},
                timeout=300,
            )

    def send_job(self, file: Path, key: str) -> dict[str, Any]:
        """POST /v1/jobs with an idempotency key; the accepted job."""
        with file.open("rb") as content:
            answer = httpx.post(
                f"{self.address}/v1/jobs",
                files={"file": content},
                headers={"Idempotency-Key": key},
                timeout=60,
            )
        assert answer.status_code in (200, 202), answer.text
        job: dict[str, Any] = answer.json()
        return job

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.address}{path}", timeout=60)

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def __enter__(self) -> ServiceProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()


def until(
    condition: Any, complaint: Any = lambda: "it did not come about", patience: float = PATIENCE
) -> None:
    """Waits for a condition; fails with the complaint when it does not come."""
    limit = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < limit, complaint()
        time.sleep(0.05)


@contextlib.contextmanager
def service(data: Path, environment: Mapping[str, str] | None = None) -> Iterator[ServiceProcess]:
    """A service that is ready."""
    with ServiceProcess(data, environment) as made:
        made.start()
        yield made

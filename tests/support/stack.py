"""The whole of monitoring for tests: two hosts with service and exporter, Prometheus, Alertmanager, all as processes.

`cpu-host` is this machine with the real service and the demo model, `gpu-host` is made of fakes (tests/fakes/gpu_*).
The configurations are those of monitoring/, with other ports and a faster clock.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from app.asr.catalogue import DEMO_PACKS
from tests.fakes.gpu_host import FakeGpuHost
from tests.support.monitoring import ROOT, program
from tests.support.nvml import build_stand_in
from tests.support.watch import free_port, get_json, prometheus_command, query

SCRAPE_SECONDS = 2
_PATIENCE = 60.0


def until(condition: Callable[[], object], what: str, seconds: float = _PATIENCE) -> Any:
    """Waits until it is true, and gives it; fails with `what` when it does not come."""
    give_up = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError, KeyError, IndexError):
            if found := condition():
                return found
        assert time.monotonic() < give_up, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.2)


class Stack:
    """Everything that runs. Made by `running`."""

    def __init__(self, folder: Path, library: Path) -> None:
        self._folder, self._library = folder, library
        self._processes: list[subprocess.Popen[bytes]] = []
        self.gpu_host = FakeGpuHost(folder)
        self.victim = secrets.token_hex(
            32
        )  # named as a container's control group is; the kernel's log knows older ones
        self.told: list[dict[str, Any]] = []  # what Alertmanager sent
        self.service, self.gpu_service = self._url(), self._url()
        self.exporters = {"cpu-host": self._url(), "gpu-host": self._url()}
        self.prometheus, self.alertmanager = self._url(), self._url()
        self._receiver = self._receive()

    @staticmethod
    def _url() -> str:
        return f"http://127.0.0.1:{free_port()}"

    def start(self) -> None:
        """Starts the hosts, then who watches them."""
        python = sys.executable
        port = self.service.rpartition(":")[2]
        self._run(
            "service",
            [python, "-m", "app", "serve", "--port", port, "--threads", "1"],
            ASR_DATA_DIR=str(self._folder / "data"),
        )
        port = self.gpu_service.rpartition(":")[2]
        self._run(
            "gpu-service", [python, "-m", "tests.fakes.gpu_service", port, str(self._folder / "gpu-data")]
        )
        until(lambda: get_json(self.service + "/readyz")["status"] == "ready", "the service is ready")
        until(
            lambda: get_json(self.gpu_service + "/readyz")["status"] == "ready", "the fake service is ready"
        )
        variant = self._folder / "variant-cpu.json"
        variant.write_text(json.dumps({"instances": [{"variant": "cpu", "device": None}]}))
        host = self.gpu_host
        self._exporter(
            "cpu-host", self.service, "--gpu", "off", "--docker", "off", "--variant-file", str(variant)
        )
        self._exporter(
            "gpu-host",
            self.gpu_service,
            *(
                "--root",
                str(host.root),
                "--gpu",
                "on",
                "--kernel-log",
                "off",
                "--variant-file",
                str(host.variant),
            ),
            FAKE_NVML=str(host.capture),
            LD_LIBRARY_PATH=str(self._library),
        )
        self._watch()

    def _exporter(self, name: str, service: str, *arguments: str, **environment: str) -> None:
        command = [
            sys.executable,
            "-m",
            "monitoring.exporter",
            "--listen",
            self.exporters[name].partition("//")[2],
        ]
        command += ["--relay", f"{service}/metrics", "--canary", service, "--canary-interval", "10"]
        command += ["--canary-clip", str(DEMO_PACKS / "int8"), "--state", str(self._folder / f"{name}.state")]
        command += ["--disk", "/", *arguments]
        self._run(f"exporter-{name}", command, **environment)

    def _watch(self) -> None:
        """Starts Alertmanager and Prometheus on the configurations of monitoring/, a little changed."""
        config = yaml.safe_load(
            (ROOT / "monitoring/alertmanager/alertmanager.yml").read_text(encoding="utf-8")
        )
        config["receivers"][0]["webhook_configs"] = [{"url": self._receiver, "send_resolved": False}]
        for route in (config["route"], *config["route"]["routes"]):
            route |= {"group_wait": "3s", "group_interval": "3s"}
        path = self._folder / "alertmanager.yml"
        path.write_text(yaml.safe_dump(config))
        address = self.alertmanager.partition("//")[2]
        self._run(
            "alertmanager",
            [
                *(program("prometheus-alertmanager"), f"--config.file={path}"),
                *(f"--web.listen-address={address}", "--cluster.listen-address="),
                f"--storage.path={self._folder / 'alerts'}",
            ],
        )
        self._run(
            "prometheus",
            prometheus_command(
                self._folder, self.prometheus, self.exporters, self.alertmanager, SCRAPE_SECONDS
            ),
        )
        until(lambda: get_json(self.prometheus + "/api/v1/targets"), "Prometheus answers")

    def query(self, expression: str) -> list[dict[str, Any]]:
        """An instant query's result."""
        return query(self.prometheus, expression)

    def query_range(self, expression: str, start: float) -> list[dict[str, Any]]:
        """A range query's result, from `start` (Unix time) to now."""
        told = get_json(
            self.prometheus + "/api/v1/query_range",
            query=expression,
            start=f"{start:.0f}",
            end=f"{time.time():.0f}",
            step=f"{SCRAPE_SECONDS}",
        )
        found: list[dict[str, Any]] = told["data"]["result"]
        return found

    def log(self, name: str) -> str:
        """What a process wrote."""
        return (self._folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def close(self) -> None:
        """Ends all processes."""
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.gpu_host.close()
        self._server.shutdown()
        self._server.server_close()

    def _run(self, name: str, command: list[str], **environment: str) -> None:
        with (self._folder / f"{name}.log").open("wb") as log:
            changed: Mapping[str, str] = os.environ | environment
            self._processes.append(subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=changed))

    def _receive(self) -> str:
        """Listens for Alertmanager's messages; gives the address."""
        told = self.told

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                told.extend(message["alerts"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
                """Nobody reads it."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_port}/"


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Stack]:
    """A stack that runs; ended with the context."""
    library = folder / "library"
    library.mkdir()
    stack = Stack(folder, build_stand_in(library))
    try:
        stack.start()
        yield stack
    finally:
        stack.close()

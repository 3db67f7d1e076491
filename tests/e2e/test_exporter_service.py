"""The exporter beside the real service with the demo model: its metrics passed on, its words checked by the canary."""

from __future__ import annotations

import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.monitoring import program
from tests.support.nvml import CAPTURE_NAMES, CAPTURES, build_stand_in
from tests.support.page import samples
from tests.support.waiting import wait_for

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]
PACK = ROOT / "app" / "demo" / "packs" / "int8"


@contextmanager
def running(command: list[str | Path]) -> Iterator[str]:
    """A program that says where it listens; gives that address."""
    with subprocess.Popen(
        [sys.executable, "-m", *map(str, command)],
        cwd=ROOT,
        stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = next(line for line in process.stdout if "at http://" in line)
            yield line.partition("at ")[2].split()[0].removesuffix("/metrics")
        finally:
            process.terminate()


def page_of(url: str) -> str:
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as answer:
        return str(answer.read().decode())


def test_a_host_with_its_service(tmp_path: Path) -> None:
    port = free_port()
    service: list[str | Path] = [
        "app",
        "serve",
        "--model",
        "demo",
        "--port",
        str(port),
        "--data-dir",
        tmp_path,
    ]
    exporter: list[str | Path] = ["monitoring.exporter", "--listen", "127.0.0.1:0", "--docker", "off"]
    with running(service) as app:
        exporter += [
            "--relay",
            f"{app}/metrics",
            "--canary",
            app,
            "--canary-clip",
            PACK,
            "--canary-interval",
            "10",
        ]
        with running(exporter) as address:
            wait_for(
                lambda: samples(page_of(address)).get("asr_canary_success") == 1,
                "a canary that is heard",
                300,
            )
            text = page_of(address)
            page = samples(text)
            assert page["asr_canary_text_correct"] == 1
            assert page["asr_rtf_count"] >= 1
            assert page["asr_processing_seconds_total"] > 0
            own = {line.split()[2] for line in page_of(app).splitlines() if line.startswith("# TYPE")}
            assert own <= {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
            lint(text)


@pytest.mark.parametrize("name", CAPTURE_NAMES)
def test_promtool_likes_the_names_of_gpus(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(build_stand_in(tmp_path)))
    monkeypatch.setenv("FAKE_NVML", str(CAPTURES / f"{name}.txt"))
    command = [
        sys.executable,
        "-m",
        "monitoring.exporter",
        "--once",
        "--gpu",
        "on",
        "--processes",
        "--disk",
        "/",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "asr_gpu_memory_used_bytes{" in done.stdout
    lint(done.stdout)


def lint(text: str) -> None:
    """Prometheus's own opinion of names and types."""
    done = subprocess.run(
        [program("promtool"), "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

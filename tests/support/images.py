"""The product's images for end-to-end tests: built by bake from a clean clone, started as `make up` does.

What is built stays under IMAGES as the next run's layer cache; containers, networks and volumes go.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.support import docker

ROOT = Path(__file__).resolve().parents[2]
IMAGES = "seaco-e2e"
VERSION = "0.1.0"
_PATIENCE = 180.0


@contextmanager
def clean_clone(folder: Path, prefix: str) -> Iterator[Path]:
    """A clean clone, and Docker to build it with; nothing whose name begins with `prefix` is there before or after."""
    with docker.daemon():
        docker.remove_all(prefix)
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
        yield folder
        docker.remove_all(prefix)


def build(clone: Path, base: str, *targets: str) -> None:
    settings = {"BASE_IMAGE": base, "BUILD_NETWORK": "host", "IMAGE_PREFIX": IMAGES}
    done = subprocess.run(
        [str(clone / "scripts" / "image.sh"), *targets],
        env=environment(**settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=1500,
    )
    assert done.returncode == 0, done.stderr[-4000:]


class Project:
    """A compose project started by `make up`'s program, its address and its container."""

    def __init__(self, clone: Path, name: str, **settings: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.clone, self.name = clone, name
        self.container = f"{name}-asr-1"
        self.url = f"http://127.0.0.1:{self.port}"
        self.settings = {
            "IMAGE_PREFIX": IMAGES,
            "PROJECT": name,
            "PORT": str(self.port),
            "VARIANT": "cpu",
            **settings,
        }

    def run(self, verb: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(self.clone / "scripts" / "up.py"), verb]
        return subprocess.run(
            command,
            env=environment(**self.settings),
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    def up(self) -> str:
        done = self.run("up")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def transcribe(self, recording: Path, seconds: float = 60) -> str:
        with recording.open("rb") as file:
            answer = httpx.post(
                f"{self.url}/v1/audio/transcriptions",
                data={"model": "whisper-1"},
                files={"file": (recording.name, file)},
                timeout=seconds,
            )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["text"])

    def inside(self, command: str) -> docker.Completed:
        return docker.docker("exec", self.container, "sh", "-c", command, check=False)


def environment(**settings: str) -> dict[str, str]:
    """The environment without settings of whoever runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ASR_")}
    return {**kept, **settings}


def until_healthy(container: str) -> None:
    give_up = time.monotonic() + _PATIENCE
    while docker.inspect(container)["State"].get("Health", {}).get("Status") != "healthy":
        assert time.monotonic() < give_up, docker.docker("logs", "--tail", "20", container).stderr
        time.sleep(1)

"""A real registry of images on this machine, for hosts made by tests/support/fleet.py; it speaks plain HTTP."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support.packages import need


@dataclass(frozen=True)
class Registry:
    """At `address` (host:port of the hosts' network), with its content in `folder`."""

    address: str
    folder: Path

    def publish(self, version: str, change: str) -> None:
        """The images of the tests as another version; `change` is a line of a Dockerfile for the service's image."""
        for variant, line in (("cpu", change), ("exporter", "")):
            name = f"seaco-fleet-test:{version}-{variant}"
            recipe = f"FROM seaco-speech:0.1.0-{variant}\n{line}\n"
            target = f"docker://{self.address}/seaco-speech:{version}-{variant}"
            for command, given in (
                (["docker", "build", "--quiet", "--tag", name, "-"], recipe),
                (
                    ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"docker-daemon:{name}", target],
                    "",
                ),
            ):
                subprocess.run(command, input=given, text=True, check=True, capture_output=True)

    @contextmanager
    def running(self) -> Iterator[Registry]:
        need({name: name for name in ("docker-registry", "skopeo")})
        self.folder.mkdir()
        settings = self.folder / "config.yml"
        settings.write_text(
            f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {self.folder}/data}}}}\n"
            f"http: {{addr: '{self.address}'}}\n",
            encoding="utf-8",
        )
        with (self.folder / "log").open("wb") as log:
            started = subprocess.Popen(["docker-registry", "serve", settings], stdout=log, stderr=log)
        try:
            give_up = time.monotonic() + 30
            while not self._answers():
                if started.poll() is not None or time.monotonic() > give_up:
                    raise AssertionError((self.folder / "log").read_text(encoding="utf-8")[-2000:])
                time.sleep(0.2)
            yield self
        finally:
            started.terminate()
            started.wait(10)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"http://{self.address}/v2/").status_code == 200
        except httpx.HTTPError:
            return False

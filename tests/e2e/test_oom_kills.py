"""Containers that the kernel really kills for want of memory, and what the exporter makes of it.

Needs Docker and root (tests/support/docker.py). Other containers of the machine may be killed meanwhile: what is
compared with the kernel's own count is the sum of everything.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import docker
from tests.support.page import samples
from tests.support.waiting import wait_for

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]
PREFIX = f"exporter-e2e-{secrets.token_hex(3)}"  # Docker still tells of an earlier run's containers
EAT = "python3 -c 'bytearray(300 << 20)'"


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    with docker.daemon():
        docker.remove_all(PREFIX)
        yield docker.base_image()
        docker.remove_all(PREFIX)


class Exporter:
    """The exporter as a process, which can be ended and started again."""

    def __init__(self, state: Path, arguments: tuple[str, ...]) -> None:
        self._command = [sys.executable, "-m", "monitoring.exporter", "--state", str(state), *arguments]

    def once(self) -> dict[str, float]:
        """A page from an exporter that only lives for it."""
        done = subprocess.run(
            [*self._command, "--once"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        return samples(done.stdout)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """It watches; its counts are read from the state file by the next one."""
        with subprocess.Popen(
            [*self._command, "--listen", "127.0.0.1:0"],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ,
        ) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if "/metrics" in line:
                    break
            else:
                raise AssertionError("the exporter ended before it served")
            yield
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0


def run(image: str, name: str, script: str, *options: str) -> None:
    """A container of 64 MiB without swap, until it ends."""
    limits = ("--memory", "64m", "--memory-swap", "64m")
    docker.docker(
        "run", "--name", f"{PREFIX}-{name}", *limits, *options, image, "sh", "-c", script, check=False
    )


def kernel_count() -> int:
    """Of all kills since boot."""
    for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    raise AssertionError("this kernel does not count kills")


def kills(page: dict[str, float], name: str) -> float:
    return page.get(f'asr_container_oom_kills_total{{container="{PREFIX}-{name}"}}', 0.0)


def told_by_docker(name: str, since: int) -> int:
    """Kills that Docker itself tells of: none where containerd does not find every cgroup hierarchy mounted."""
    limits = ("--since", str(since), "--until", str(int(time.time()) + 1))
    filters = ("--filter", "event=oom", "--filter", f"container={PREFIX}-{name}")
    return len(docker.docker("events", *limits, *filters).stdout.splitlines())


def reconciled(page: dict[str, float]) -> bool:
    """Containers and the rest add up to what the kernel counted."""
    containers = sum(value for name, value in page.items() if name.startswith("asr_container_oom_kills"))
    return containers + page["asr_host_oom_kills_unattributed_total"] == page["asr_host_oom_kills_total"]


@pytest.mark.parametrize(
    "witnesses",
    [("--kernel-log", "on"), ("--kernel-log", "off"), ("--kernel-log", "on", "--docker", "off")],
    ids=["all", "no kernel log", "no docker"],
)
def test_kills_are_counted_by_name_though_nothing_of_the_container_is_left(
    image: str, tmp_path: Path, witnesses: tuple[str, ...]
) -> None:
    exporter = Exporter(tmp_path / "state.json", witnesses)
    before, kernel_before, since = exporter.once(), kernel_count(), int(time.time())
    with exporter.running():
        # The first process, which takes the whole container with it; twice, under one name.
        run(image, "first", f"exec {EAT}", "--rm")
        run(image, "first", f"exec {EAT}", "--rm")
        # Children; the container goes on, and ends well.
        run(image, "children", f"{EAT}; {EAT}; {EAT}; sleep 2", "--rm")
    assert kernel_count() - kernel_before >= 5
    after = exporter.once()
    first, children = (kills(after, name) - kills(before, name) for name in ("first", "children"))
    if "--docker" in witnesses:  # no names: ids of containers that nobody can name any more
        new = [name for name in after if name.startswith("asr_container_oom") and name not in before]
        assert sorted(after[name] for name in new) == [1, 1, 3]
    elif "on" in witnesses:
        assert (first, children) == (2, 3)
    else:
        assert children == 3
        assert told_by_docker("first", since) <= first <= 2
    assert reconciled(before)
    assert reconciled(after)
    assert (
        exporter.once().items()
        >= {name: value for name, value in after.items() if "oom_kills" in name}.items()
    )


def test_a_container_that_docker_starts_again_goes_on_counting(image: str, tmp_path: Path) -> None:
    """Its id stays, its cgroup begins at nought each time."""
    exporter = Exporter(tmp_path / "state.json", ())
    before = exporter.once()
    with exporter.running():
        run(image, "again", f"exec {EAT}", "--detach", "--restart", "on-failure:2")
        name = f"{PREFIX}-again"
        wait_for(
            lambda: (told := docker.inspect(name))["RestartCount"] == 2 and not told["State"]["Running"],
            "the third end",
        )
    after = exporter.once()
    assert kills(after, "again") - kills(before, "again") == 3
    assert reconciled(after)
    docker.docker("rm", "--force", name)


def test_kills_while_the_exporter_is_away_are_found_later(image: str, tmp_path: Path) -> None:
    exporter = Exporter(tmp_path / "state.json", ())
    with exporter.running():
        run(image, "away", f"exec {EAT}", "--rm")
    between = exporter.once()
    run(image, "away", f"exec {EAT}", "--rm")
    after = exporter.once()
    assert kills(after, "away") - kills(between, "away") == 1
    assert reconciled(after)


def test_a_kill_in_a_living_container_is_seen_without_any_privilege(image: str, tmp_path: Path) -> None:
    """Neither kernel log nor Docker: the cgroup's file alone, and an id for a name."""
    exporter = Exporter(tmp_path / "state.json", ("--kernel-log", "off", "--docker", "off"))
    before = exporter.once()
    with exporter.running():
        run(image, "plain", f"{EAT}; sleep 3")
    identity = docker.inspect(f"{PREFIX}-plain")["Id"][:12]
    docker.docker("rm", f"{PREFIX}-plain")
    after = exporter.once()
    assert after[f'asr_container_oom_kills_total{{container="{identity}"}}'] == 1
    assert reconciled(before)
    assert reconciled(after)

"""The service under test and all around it that a fault can reach: volumes, pack, clock, network, gateway, watchers."""

from __future__ import annotations

import contextlib
import random
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from app.asr.catalogue import DEMO_PACKS
from tests.chaos.ledger import Ledger
from tests.chaos.network import BadNetwork
from tests.chaos.timepiece import Timepiece
from tests.chaos.volume import small_volume
from tests.chaos.watching import Watching
from tests.support.cgroup import Group, limited
from tests.support.gateway import Gateway
from tests.support.service_process import ServiceProcess, until
from tests.support.witness import watch

ENDED = "ended and started again: "  # and of what kind the process was
_MEMORY = 700 << 20  # bytes for the service; both its processes take about half of it
_DATA_MEBIBYTES = (
    4096  # of which a file takes what is written: above the limit of AsrDiskLow as long as it is not full
)
_LOG_MEBIBYTES = 64
_ACCIDENTS = 2  # lost workers that AsrWorkerRestarting does not call a state
# Longer than a campaign, shorter than the steps of the clock: no job may be forgotten for its age.
_KEEP_SECONDS = 3000


class NotHere(Exception):  # noqa: N818 - it is no fault of the service
    """This machine cannot do such harm; the message says why."""


@dataclass
class World:
    """`group` is None, and `no_volume` says why, where this machine cannot make such a thing."""

    service: ServiceProcess
    data: Path
    logs: Path
    pack: Path
    timepiece: Timepiece
    gateway: Gateway
    network: BadNetwork
    watching: Watching
    group: Group | None
    no_volume: str | None
    ledger: Ledger
    random: random.Random
    done_at_kill: float = 0.0
    workers_lost: int = 0
    counts_at_start: Counter[str] = field(default_factory=Counter)

    def start(self) -> None:
        """Starts the service again, inside its control group; returns when it takes work and the gateway knows."""
        self.counts_at_start = Counter(self.ledger.counts)
        self.count_end("service")
        self.service.launch()
        if self.group is not None:
            # At once, so that all its memory counts there: else the kernel finds others larger than the worker.
            self.group.add(self.service.pid)
        self.service.wait_until_ready()
        self.gateway.wait_until_served()

    def count_end(self, of: str) -> None:
        """A process was killed or told to end, and is started again."""
        self.ledger.count(ENDED + of)

    @contextlib.contextmanager
    def outage(self, *, long: bool = False) -> Iterator[None]:
        """While this lasts, the service may be away, and Prometheus may say so; it must if `long`."""
        with self.ledger.disturbance(), self.watching.absence("service", long=long):
            yield
        self.watching.until_seen()

    @property
    def database(self) -> Path:
        """Of the jobs."""
        return self.data / "jobs" / "jobs.sqlite3"

    def metrics(self) -> dict[str, float]:
        """Samples by name with labels, as they are exported."""
        lines = self.service.get("/metrics").text.splitlines()
        found = (re.fullmatch(r"(asr_\S+(?:\{.*\})?) (\S+)", line) for line in lines)
        return {line[1]: float(line[2]) for line in found if line}

    def restarts(self) -> dict[str, float]:
        """Of the worker since the web process began, by cause; those that never happened are left out."""
        return {name: value for name, value in self.metrics().items() if "worker_restarts" in name and value}

    def until_losses_are_told(self) -> None:
        """Prometheus counts every lost worker, over all starts of the service, and alarms from the third on."""
        counted = "instance:asr_worker_restarts:increase30m"
        until(
            lambda: self.watching.value(counted) == self.workers_lost,
            lambda: f"{self.workers_lost} workers were lost, Prometheus has {self.watching.value(counted)}",
        )
        if self.workers_lost > _ACCIDENTS:
            self.watching.until_alarmed("AsrWorkerRestarting")
        elif self.watching.is_alarmed("AsrWorkerRestarting"):
            self.ledger.wrong(f"AsrWorkerRestarting after {self.workers_lost} lost workers")

    def listed(self) -> list[dict[str, Any]]:
        """All jobs that the service knows."""
        jobs: list[dict[str, Any]] = []
        after = ""
        while True:
            page = self.service.get(f"/v1/jobs?limit=100{after}").json()
            jobs += page["data"]
            if not page["has_more"]:
                return jobs
            after = f"&after={jobs[-1]['id']}"

    def until_work_got_on(self) -> None:
        """A job that is killed three times before anything came of it is taken for what kills the service, and fails:
        so between two kills something must be done."""
        until(lambda: self._seconds_done() != self.done_at_kill, lambda: "the jobs do not get on", 120)
        self.done_at_kill = self._seconds_done()

    def until_a_batch_is_done(self) -> None:
        """Many deaths of the worker with nothing done in between make the service unready, as they should."""
        self.ledger.count("plain requests")
        answer = self.service.transcribe(self.pack / "golden.wav")
        if answer.status_code == 200:
            self.ledger.count("plain texts right")
        else:
            self.ledger.wrong(f"asked directly: {answer.status_code} {answer.text[:300]}")

    def _seconds_done(self) -> float:
        return sum(float(job["progress"]["seconds_done"]) for job in self.listed())


@contextlib.contextmanager
def made_world(folder: Path, seed: int, ledger: Ledger) -> Iterator[World]:
    """A world whose parts all run."""
    with contextlib.ExitStack() as held:
        group: Group | None = None
        with contextlib.suppress(pytest.skip.Exception):
            group = held.enter_context(limited(_MEMORY))
        data, logs = folder / "data", folder / "logs"
        no_data = held.enter_context(small_volume(data, _DATA_MEBIBYTES))
        no_logs = held.enter_context(small_volume(logs, _LOG_MEBIBYTES))
        pack = folder / "pack"
        shutil.copytree(DEMO_PACKS / "int8", pack)
        timepiece = Timepiece(folder / "clock")
        settings = {
            **timepiece.environment,
            "ASR_MODEL": str(pack),
            "ASR_PAGE": "off",
            "ASR_CACHE_DIR": str(folder / "cache"),
            "ASR_JOBS_KEEP_SECONDS": str(_KEEP_SECONDS),
        }
        service = held.enter_context(ServiceProcess(data, settings, logs / "service.log"))
        gateway = held.enter_context(contextlib.closing(Gateway(folder / "gateway", service.port)))
        network = held.enter_context(contextlib.closing(BadNetwork(gateway.port, seed)))
        watching = held.enter_context(
            contextlib.closing(Watching(folder / "watching", service.address, data))
        )
        world = World(
            *(service, data, logs, pack, timepiece, gateway, network, watching),
            *(group, no_data or no_logs, ledger, random.Random(seed)),
        )
        service.launch()
        if group is not None:
            group.add(service.pid)
        service.wait_until_ready()
        watch(world.database)
        gateway.start()
        watching.start()
        yield world

"""The faults. Each does its harm, ends it, and holds what the service says of itself against what was done.

A function takes the world and returns when the service takes work again. `NotHere` is raised where the machine cannot
do such harm. Requests may be refused only within `ledger.disturbance()`. Prometheus must tell of what it can see: the
alert that is made for a fault becomes true while it lasts, and ends with it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.chaos import surroundings
from tests.chaos.network import GOOD, Line
from tests.chaos.volume import filled
from tests.chaos.world import NotHere, World
from tests.support.service_process import until
from tests.support.witness import watch

Fault = Callable[[World], None]


def worker_killed(world: World) -> None:
    """kill -9 of the worker, once it works again another time, two to four times."""
    for _ in range(world.random.randint(2, 4)):
        _lose_worker(world, lambda: until(world.service.kill_worker))


def worker_out_of_memory(world: World) -> None:
    """Another process in the service's control group takes memory until the kernel kills: the worker, by its score."""
    group = world.group
    if group is None:
        raise NotHere("no control group with a memory limit can be made here")

    def eat() -> None:
        kills = group.kills()
        eater = subprocess.Popen([sys.executable, "-c", _EATER, str(group.folder / "cgroup.procs")])
        try:
            until(lambda: group.kills() > kills)
        finally:
            eater.kill()
            eater.wait()

    _lose_worker(world, eat)
    world.watching.until_alarmed("AsrHostOomKill")


# Slow enough that it can be stopped before it is its own turn.
_EATER = """
import sys, time
open(sys.argv[1], "w").write("0")
held = []
while True:
    held.append(bytearray(b"x" * (4 << 20)))
    time.sleep(0.002)
"""


def _lose_worker(world: World, harm: Callable[[], None]) -> None:
    """The harm ends the worker; the counter of restarts must tell of one kill."""
    world.until_a_batch_is_done()
    until(lambda: world.service.worker is not None)
    before, worker = world.restarts(), world.service.worker
    harm()
    until(lambda: world.service.worker not in {worker, None})
    world.service.wait_until_ready()
    name = 'asr_worker_restarts_total{cause="killed"}'
    expected = {**before, name: before.get(name, 0) + 1}
    if (told := world.restarts()) != expected:
        world.ledger.wrong(f"a worker was killed: restarts went from {before} to {told}")
    world.workers_lost += 1
    world.count_end("worker")
    world.until_losses_are_told()


def worker_stopped(world: World) -> None:
    """SIGSTOP of the worker for some seconds, then SIGCONT: as a machine that swaps, or sleeps."""
    until(lambda: world.service.worker is not None)
    worker, before = world.service.worker, world.restarts()
    assert worker is not None
    os.kill(worker, signal.SIGSTOP)
    time.sleep(world.random.uniform(0.5, 4.0))
    os.kill(worker, signal.SIGCONT)
    if (told := world.restarts()) != before:
        world.ledger.wrong(f"a worker was stopped and went on: restarts went from {before} to {told}")


def service_killed(world: World) -> None:
    """kill -9 of the web process; its worker ends by itself."""
    world.until_work_got_on()
    with world.outage(long=True):
        world.service.kill()
        world.watching.until_alarmed("AsrServiceDown")
        world.start()


def service_terminated(world: World) -> None:
    """One to six SIGTERMs within a second: it ends in good order, with its own exit code, whatever it was doing."""
    with world.outage():
        for _ in range(world.random.randint(0, 5)):
            os.kill(world.service.pid, signal.SIGTERM)
            time.sleep(world.random.uniform(0.0, 0.2))
        _stop(world)
        world.start()


def _stop(world: World) -> None:
    code = world.service.stop()
    if code != 0:
        world.ledger.wrong(f"told to end, the service ended with {code}")


def data_volume_full(world: World) -> None:
    """Not a byte is free for uploads and jobs for some seconds; what is at work goes on afterwards."""
    if world.no_volume is not None:
        raise NotHere(f"no small volume can be mounted here: {world.no_volume}")
    client = httpx.Client(base_url=world.service.address, timeout=60)
    refusals = "asr_job_database_errors_total"
    before = world.metrics()[refusals]
    with client, world.ledger.disturbance():
        with filled(world.data):
            refused = client.post("/v1/jobs", files={"file": ("a.wav", bytes(1 << 20))})
            if refused.status_code != 503 or not refused.json()["error"]["code"]:
                world.ledger.wrong(f"a full disk: answer {refused.status_code} {refused.text[:200]}")
            world.watching.until_alarmed("AsrDiskLow")
            for path in ("/healthz", "/readyz", "/metrics"):
                if (code := client.get(path).status_code) != 200:
                    world.ledger.wrong(f"a full disk: {path} gives {code}")
            refused_often = world.metrics()[refusals] > before
        world.gateway.wait_until_served()  # the disk was busy, too: it may have taken the host out
    if refused_often:
        world.watching.until_alarmed("AsrJobDatabaseFailing")
    world.watching.until_calm("AsrDiskLow")


def job_database_damaged(world: World) -> None:
    """While the service is stopped, its job database is damaged: set aside with the uploads of the jobs it knew."""
    with world.outage():
        _stop(world)
        jobs = world.data / "jobs"
        kind = world.random.choice([_cut, _spoilt, _emptied])
        kind(world.database)
        uploads, aside = set(os.listdir(jobs / "uploads")), set(jobs.glob("damaged-*"))
        world.ledger.forget_all()
        world.start()
        watch(world.database)
        world.done_at_kill = 0.0
        found = set(jobs.glob("damaged-*")) - aside
        kept = {path.name for folder in found for path in folder.glob("uploads/*")}
        if len(found) != 1 or kept != uploads:
            world.ledger.wrong(
                f"{kind.__name__}: {len(found)} databases were set aside, uploads {kept ^ uploads}"
            )
        if (told := world.metrics()["asr_job_databases_set_aside"]) != len(aside) + 1:
            world.ledger.wrong(f"{len(aside) + 1} databases were damaged, {told} are told")
    world.watching.until_alarmed("AsrJobDatabaseSetAside")
    for folder in found:
        shutil.rmtree(folder)
    world.watching.until_calm("AsrJobDatabaseSetAside")


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _spoilt(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(os.urandom(path.stat().st_size))


def _emptied(path: Path) -> None:
    os.truncate(path, 0)


def pack_damaged(world: World) -> None:
    """While the service is stopped, its model is damaged: it lives and says so, jobs are taken and wait, nothing is
    recognised with wrong weights; with the right pack it goes on."""
    weights = world.pack / "weights.safetensors"
    whole = weights.read_bytes()
    place = world.random.randrange(len(whole))
    with world.outage():
        _stop(world)
        try:
            weights.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
            world.service.launch()
            world.count_end("service")
            until(lambda: _state(world) == "failed", lambda: f"a damaged pack: {_state(world)}")
            with httpx.Client(base_url=world.service.address, timeout=60) as client:
                told = client.get("/readyz")
                if "damaged" not in told.json()["message"] or world.metrics()["asr_engine_ready"] != 0:
                    world.ledger.wrong(f"a damaged pack: {told.text}")
            world.watching.until_alarmed("AsrServiceNotReady")
            _stop(world)
        finally:
            weights.write_bytes(whole)
        world.start()
    world.watching.until_calm("AsrServiceNotReady")


def _state(world: World) -> str:
    with contextlib.suppress(httpx.TransportError):
        return str(httpx.get(f"{world.service.address}/readyz", timeout=5).json()["status"])
    return ""


def network_slow(world: World) -> None:
    """For some seconds every piece takes its time on the way."""
    _on_bad_line(world, Line(bytes_per_second=200_000.0, delay_seconds=world.random.uniform(0.02, 0.2)))


def network_lossy(world: World) -> None:
    """For some seconds connections break in the middle, on the way there or back."""
    _on_bad_line(world, Line(break_chance=world.random.uniform(0.1, 0.5)))


def _on_bad_line(world: World, line: Line) -> None:
    with world.ledger.disturbance():
        world.network.line = line
        time.sleep(world.random.uniform(2.0, 5.0))
        world.network.line = GOOD
        time.sleep(0.5)  # what is on its way has still met the bad line


FAULTS: dict[str, Fault] = {
    "worker killed (kill -9)": worker_killed,
    "worker killed by the kernel (OOM in a control group)": worker_out_of_memory,
    "worker stopped and continued": worker_stopped,
    "service killed (kill -9)": service_killed,
    "service told to end, 1 to 6 SIGTERMs": service_terminated,
    "data volume full": data_volume_full,
    "job database damaged": job_database_damaged,
    "model pack damaged": pack_damaged,
    "network slow": network_slow,
    "network breaks connections": network_lossy,
    "gateway killed (kill -9)": surroundings.gateway_killed,
    "gateway reloaded": surroundings.gateway_reloaded,
    "exporter killed (kill -9)": surroundings.exporter_killed,
    "Prometheus killed (kill -9)": surroundings.prometheus_killed,
    "log volume full, and a restart meanwhile": surroundings.log_volume_full,
    "clock set by hours or a day": surroundings.clock_set,
}

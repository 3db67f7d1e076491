"""Faults of what stands around the service: gateway, exporter, Prometheus, the volume of its log, its clock.

As in faults.py. Only the loss of the gateway may cost a client an answer; nothing else here may cost anything.
"""

from __future__ import annotations

import os
import time

import httpx

from tests.chaos.volume import filled
from tests.chaos.world import NotHere, World

_HOUR = 3600
_STEPS = (-_HOUR, 0, _HOUR, 24 * _HOUR)


def gateway_killed(world: World) -> None:
    """kill -9 of HAProxy's master or worker process, two to four times; it is started again as systemd does."""
    for _ in range(world.random.randint(2, 4)):
        with world.ledger.disturbance():
            world.count_end("gateway")
            world.gateway.kill(master=world.random.random() < 0.5)
            time.sleep(world.random.uniform(0.0, 0.3))
            world.gateway.start()
        time.sleep(world.random.uniform(0.0, 0.5))


def gateway_reloaded(world: World) -> None:
    """HAProxy takes its settings anew, as Ansible has it do: no request notices."""
    world.gateway.reload()


def exporter_killed(world: World) -> None:
    """kill -9 of the exporter, one to three times: Prometheus says so each time, and says when it is back."""
    watching = world.watching
    for _ in range(world.random.randint(1, 3)):
        with watching.absence("exporter", long=True):
            world.count_end("exporter")
            watching.exporter.kill()
            watching.until_alarmed("AsrTargetDown")
            watching.exporter.start()
            watching.until_calm("AsrTargetDown")
        watching.until_seen()


def prometheus_killed(world: World) -> None:
    """kill -9 of Prometheus, two to four times: what it had stored is there again, and it goes on."""
    watching = world.watching
    before = watching.series()
    for _ in range(world.random.randint(2, 4)):
        world.count_end("Prometheus")
        watching.prometheus.kill()
        time.sleep(world.random.uniform(0.0, 0.5))
        watching.prometheus.start()
        watching.wait_until_it_answers()
    after = watching.series()
    for selector, samples in before.items():
        if lost := set(samples.items()) - set(after[selector].items()):
            world.ledger.wrong(f"Prometheus lost {len(lost)} of {len(samples)} samples of {selector}")
    watching.until_seen()


def log_volume_full(world: World) -> None:
    """Not a byte is free for the service's log: it serves, ends with its own exit code, starts and serves."""
    if world.no_volume is not None:
        raise NotHere(f"no small volume can be mounted here: {world.no_volume}")
    with filled(world.logs):
        if os.statvfs(world.logs).f_bavail:
            world.ledger.wrong("the log's volume has room left")
        time.sleep(world.random.uniform(0.5, 1.5))  # whoever asks now must be served
        with world.outage():
            code = world.service.stop()
            if code != 0:
                world.ledger.wrong(
                    f"told to end while its log could not be written, the service ended with {code}"
                )
            world.start()
        for path in ("/healthz", "/readyz", "/metrics"):
            if (code := httpx.get(world.service.address + path, timeout=60).status_code) != 200:
                world.ledger.wrong(f"a full log: {path} gives {code}")
        time.sleep(world.random.uniform(0.5, 1.5))


def clock_set(world: World) -> None:
    """The service's time of day steps: an hour back, an hour or a day ahead, or to the true time."""
    others = [step for step in _STEPS if step != world.timepiece.offset]
    world.timepiece.step_to(world.random.choice(others))
    time.sleep(1.5)  # it is seen within a second

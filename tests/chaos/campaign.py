"""One campaign: clients at work, faults in random order until the time is over, then the reckoning."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from app.asr.catalogue import DEMO_PACKS
from tests.chaos.clients import Client, JobClient, PlainClient
from tests.chaos.faults import FAULTS
from tests.chaos.ledger import Ledger
from tests.chaos.world import NotHere, World, made_world
from tests.support.service_process import service, until
from tests.support.witness import endings

RECORDINGS = DEMO_PACKS.parent / "recordings"
FILES = [RECORDINGS / name for name in ("command-1.flac", "golden.wav", "names.ogg", "meeting.ogg")]
_JOB_CLIENTS, _PLAIN_CLIENTS = 2, 2
_LAST_JOBS_SECONDS = 180.0
_PAUSE_SECONDS = 1.0  # between two faults, at most
# Alerts that look back so far that they are still true at the end.
_REMEMBERED = {"AsrWorkerRestarting", "AsrHostOomKill", "AsrRequestsFailing", "AsrJobDatabaseFailing"}
# What other programs on this machine can make true.
_OF_THE_MACHINE = {"AsrMemoryLow", "AsrSwapThrashing"}
# What a service that does not do as it should makes of the campaign's own steps.
_STUCK = (AssertionError, httpx.HTTPError, subprocess.TimeoutExpired)


@dataclass
class Outcome:
    """What was done and what came of it. `violations` is empty when nothing was lost, doubled, changed or told wrongly.

    Attributes:
        faults: how often each was done.
        not_here: faults that this machine cannot do, with the reason.
        alerts: how often each had to become true, and did.
        counts: of requests, jobs and texts.
    """

    seed: int
    seconds: float
    faults: Counter[str] = field(default_factory=Counter)
    not_here: dict[str, str] = field(default_factory=dict)
    alerts: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)


def run(
    folder: Path,
    seed: int,
    seconds: float,
    faults: Sequence[str] = tuple(FAULTS),
    tell: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Plays a campaign of so many seconds (the reckoning comes after it) in an empty folder.

    Args:
        tell: is given a line after each fault.
    """
    with service(folder / "calm", {"ASR_PAGE": "off"}) as calm:
        expected = {file: str(calm.transcribe(file).json()["text"]) for file in FILES}
    ledger, outcome = Ledger(), Outcome(seed, seconds)
    with made_world(folder, seed, ledger) as world:
        clients = _clients(world, expected, seed)
        for client in clients:
            client.start()
        _do_harm(world, outcome, faults, tell)
        for client in clients:
            client.stopped.set()
        limit = time.monotonic() + _LAST_JOBS_SECONDS
        for client in clients:
            client.join(max(0.0, limit - time.monotonic()))
            if client.is_alive():
                ledger.wrong(f"a client waits in vain: {[job for job in ledger.jobs if not job.state]}")
            if client.fault is not None:
                ledger.wrong(f"a client could not go on: {client.fault!r}")
        ledger.count("connections broken on the way", world.network.broken)
        try:
            _reckon(world, expected)
            _reckon_watching(world, outcome)
            code = world.service.stop()
            if code != 0:
                ledger.wrong(f"the service ended with {code}")
        except _STUCK as error:
            ledger.wrong(f"at the end: {error!r}")
    outcome.counts, outcome.violations = ledger.counts, ledger.violations
    return outcome


def _clients(world: World, expected: Mapping[Path, str], seed: int) -> list[Client]:
    kinds = [JobClient] * _JOB_CLIENTS + [PlainClient] * _PLAIN_CLIENTS
    return [
        kind(number, world.network.address, expected, world.ledger, seed) for number, kind in enumerate(kinds)
    ]


def _do_harm(world: World, outcome: Outcome, faults: Sequence[str], tell: Callable[[str], None]) -> None:
    """Every fault once in a random order, then again; so that a short campaign has as many kinds as it has time for."""
    left: list[str] = []
    began, wrong, stalls = time.monotonic(), 0, 0
    while time.monotonic() < began + outcome.seconds:
        if not left:
            left = [name for name in faults if name not in outcome.not_here]
            world.random.shuffle(left)
        name = left.pop()
        time.sleep(world.random.uniform(0.1, _PAUSE_SECONDS))
        at = time.monotonic()
        try:
            FAULTS[name](world)
            outcome.faults[name] += 1
        except NotHere as reason:
            outcome.not_here[name] = str(reason)
        except _STUCK as error:  # the reckoning still tells what became of the jobs
            world.ledger.wrong(f"{name}: {error!r}")
            return
        stalls = _excuse_stalls(world, stalls, at)
        tell(f"{at - began:6.1f} s, for {time.monotonic() - at:4.1f} s: {name}")
        for violation in world.ledger.violations[wrong:]:
            tell(f"WRONG: {violation}")
        wrong = len(world.ledger.violations)


def _excuse_stalls(world: World, before: int, since: float) -> int:
    """A machine that stands still for seconds makes the gateway take the host out. That is in order, and counted."""
    stalls = world.gateway.stalls()
    if stalls > before:
        world.gateway.wait_until_served()
        world.ledger.excuse(since - _PAUSE_SECONDS)
        world.ledger.count("stalls")
    return stalls


def _reckon(world: World, expected: Mapping[Path, str]) -> None:
    """With all clients gone: what the service knows is what was sent, once each, and its counters agree."""
    listed = world.listed()
    _reckon_jobs(world, [job["id"] for job in listed], {file.name: text for file, text in expected.items()})
    _reckon_metrics(world, Counter(str(job["state"]) for job in listed))
    for attempt in world.ledger.unexplained():
        world.ledger.wrong(f"a request came to nothing without a reason: {attempt.what}")
    folders = ("jobs/uploads", "jobs/incoming", "uploads")
    if left := [path for name in folders for path in (world.data / name).iterdir()]:
        world.ledger.wrong(f"uploads were left behind: {left}")
    for line in world.service.log().splitlines():
        if "a fault while answering" in line or "error of the service itself" in line:
            world.ledger.wrong(f"the service's log: {line[:2000]}")


def _reckon_watching(world: World, outcome: Outcome) -> None:
    """Prometheus was right about who was there, has the service's figures, and alarms nothing that has ended."""
    ledger, watching = world.ledger, world.watching
    for lie in watching.lies():
        ledger.wrong(f"Prometheus: {lie}")
    told = {name: value for name, value in world.metrics().items() if name.startswith("asr_jobs{")}
    until(
        lambda: all(watching.value(name) == value for name, value in told.items()),
        lambda: f"Prometheus has {[watching.value(name) for name in told]}, the service {told}",
    )
    alarmed = watching.alarmed()
    if false := alarmed - _REMEMBERED - _OF_THE_MACHINE:
        ledger.wrong(f"alarmed at the end: {sorted(false)}")
    world.until_losses_are_told()
    outcome.alerts = watching.alarms
    ledger.count("scrapes kept", len(watching.samples('up{job="asr"}')))


def _reckon_jobs(world: World, listed: Sequence[str], expected: Mapping[str, str]) -> None:
    ledger = world.ledger
    known = {job.id: job for job in ledger.known()}
    doubled = set(listed) - {name for job in ledger.jobs for name in job.ids}
    lost = set(known) - set(listed)
    for what, names in (("doubled", doubled), ("lost", lost)):
        ledger.count(f"jobs {what}", len(names))
        if names:
            ledger.wrong(f"jobs {what}: {sorted(names)}")
    for name, times in endings(world.database).items():
        if times > 1:
            ledger.wrong(f"job {name} ended {times} times")
    for name in set(known) - lost:
        result = world.service.get(f"/v1/jobs/{name}/result?format=json")
        if result.status_code != 200 or result.json()["text"] != expected[known[name].file]:
            ledger.wrong(f"job {name} has another result at the end: {result.text[:100]!r}")


def _reckon_metrics(world: World, states: Mapping[str, int]) -> None:
    told = world.metrics()
    for state in ("queued", "running", "done", "failed", "cancelled"):
        if told[f'asr_jobs{{state="{state}"}}'] != states.get(state, 0):
            world.ledger.wrong(f"asr_jobs of {state}: {told}, listed {states}")
    since = world.ledger.counts - world.counts_at_start
    answered = told.get('asr_http_requests_total{code="200",route="/v1/audio/transcriptions"}', 0)
    # An answer may have been on its way at the start, and one that was sent may have been lost on the way.
    if (
        not since["plain texts right"] - _PLAIN_CLIENTS
        <= answered
        <= since["plain requests"] + _PLAIN_CLIENTS
    ):
        world.ledger.wrong(f"{answered} answers were counted since the last start, clients count {since}")

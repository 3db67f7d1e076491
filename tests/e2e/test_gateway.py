"""HAProxy itself, set up by the role's template, before fake hosts and a real service, with things killed around it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest

from app.asr.catalogue import DEMO_PACKS
from tests.fakes.job_host import FakeJobHost
from tests.support.gateway import Gateway
from tests.support.service_process import service, until
from tests.support.watch import free_port, get_json

ADDRESSES = ("127.0.0.1", "127.0.0.2")
JOBS = 12
MEETING = DEMO_PACKS.parent / "recordings" / "meeting.ogg"
LONGER_THAN_TWO_CHECKS_SECONDS = 6.0


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[tuple[Gateway, list[FakeJobHost]]]:
    port = free_port()
    with ExitStack() as held:
        hosts = [held.enter_context(closing(FakeJobHost(address, port))) for address in ADDRESSES]
        gateway = held.enter_context(closing(Gateway(tmp_path / "gateway", port, ADDRESSES)))
        gateway.start()
        yield gateway, hosts


def sent(gateway: Gateway) -> list[str]:
    answers = [httpx.post(f"{gateway.address}/v1/jobs", content=b"x" * 1000) for _ in range(JOBS)]
    assert {answer.status_code for answer in answers} == {202}
    # Not in the order of sending, in which hosts take turns: they would take the same turns when asked.
    return sorted(answer.json()["id"] for answer in answers)


def codes(gateway: Gateway, jobs: list[str]) -> list[int]:
    """What is answered about each job; 0 where nothing is."""
    found = []
    for job in jobs:
        try:
            found.append(httpx.get(f"{gateway.address}/v1/jobs/{job}/result").status_code)
        except httpx.TransportError:
            found.append(0)
    return found


def test_a_killed_gateway_finds_every_job_again(fleet: tuple[Gateway, list[FakeJobHost]]) -> None:
    gateway, hosts = fleet
    jobs = sent(gateway)
    assert all(host.jobs for host in hosts)
    for master in (True, False):
        gateway.kill(master=master)
        gateway.start()
        assert codes(gateway, jobs) == [200] * JOBS
        cancelled = [httpx.post(f"{gateway.address}/v1/jobs/{job}/cancel").status_code for job in jobs]
        assert cancelled == [200] * JOBS
    assert codes(gateway, ["job_unknown"]) == [404]


def test_a_job_of_a_host_that_is_away_is_never_said_not_to_be(
    fleet: tuple[Gateway, list[FakeJobHost]],
) -> None:
    gateway, (_, goes) = fleet
    jobs = sent(gateway)
    expected = [503 if job in goes.jobs else 200 for job in jobs]
    goes.close()
    until(lambda: codes(gateway, jobs) == expected, lambda: f"{codes(gateway, jobs)}, not {expected}")
    gateway.kill(master=True)
    gateway.start(wait=False)
    until(lambda: codes(gateway, jobs) == expected, lambda: f"{codes(gateway, jobs)}, not {expected}")
    assert set(codes(gateway, jobs)) == {200, 503}


def test_a_reload_finds_every_job(fleet: tuple[Gateway, list[FakeJobHost]]) -> None:
    """Within seconds of its start HAProxy hands on nothing of what it remembers."""
    gateway, _ = fleet
    jobs = sent(gateway)
    gateway.reload()
    assert codes(gateway, jobs) == [200] * JOBS


def test_a_worker_that_takes_long_to_come_back_cuts_off_nobody(tmp_path: Path) -> None:
    """It is stopped while it starts, for longer than the gateway needs to take out a host that is not ready."""
    with ExitStack() as held:
        asked = held.enter_context(service(tmp_path / "data", {"ASR_PAGE": "off"}))
        gateway = held.enter_context(closing(Gateway(tmp_path / "gateway", asked.port)))
        gateway.start()
        threads = held.enter_context(ThreadPoolExecutor())
        before = asked.worker
        waiting = threads.submit(transcribed, gateway)
        until(lambda: get_json(asked.address + "/v1/capacity")["waiting_seconds"] > 0)
        asked.kill_worker()
        until(lambda: asked.worker not in {before, None})
        coming = asked.worker
        assert coming is not None
        os.kill(coming, signal.SIGSTOP)
        try:
            time.sleep(LONGER_THAN_TWO_CHECKS_SECONDS)
            late = threads.submit(transcribed, gateway)
            time.sleep(1)
        finally:
            os.kill(coming, signal.SIGCONT)
        assert [answer.result().status_code for answer in (waiting, late)] == [200, 200]
        assert waiting.result().json()["text"] == late.result().json()["text"]
        assert asked.stop() == 0


def transcribed(gateway: Gateway) -> httpx.Response:
    return httpx.post(
        f"{gateway.address}/v1/audio/transcriptions",
        data={"model": "whisper-1"},
        files={"file": (MEETING.name, MEETING.read_bytes())},
        timeout=120,
    )

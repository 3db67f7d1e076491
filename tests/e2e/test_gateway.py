"""HAProxy itself, set up by the role's template, before two fake hosts: whose job is it, whatever was killed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest

from tests.fakes.job_host import FakeJobHost
from tests.support.gateway import Gateway
from tests.support.service_process import until
from tests.support.watch import free_port

ADDRESSES = ("127.0.0.1", "127.0.0.2")
JOBS = 12


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

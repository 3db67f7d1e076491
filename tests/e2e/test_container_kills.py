"""The container and Docker itself killed with jobs in hand: the service comes back, and nothing is lost.

As `make up` starts it, and with Docker's option live-restore, which the playbooks set.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator

import httpx
import pytest

from app.asr.catalogue import DEMO_PACKS
from tests.support import docker
from tests.support.images import Project, build, clean_clone

NAME = "seaco-kills"
MEETING = DEMO_PACKS.parent / "recordings" / "meeting.ogg"
JOBS = 4
PATIENCE = 120.0


@pytest.fixture(scope="module")
def running() -> Iterator[docker.Daemon]:
    with docker.daemon() as made:
        yield made


@pytest.fixture(scope="module")
def project(running: docker.Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with clean_clone(tmp_path_factory.mktemp("clone") / "here", NAME) as clone:
        build(clone, docker.base_image(), "cpu")
        made = Project(clone, NAME)
        made.up()
        yield made
        assert made.run("down").returncode == 0


class Jobs:
    """Jobs of one recording, sent with keys; `send` again gives the same. Close it."""

    def __init__(self, url: str, key: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=30)
        self._key = key
        self.ids: list[str] = []

    def close(self) -> None:
        self._client.close()

    def send(self) -> None:
        """All of them, and again until each is answered: a container that has just come up may be away for a moment."""
        found = []
        for number in range(JOBS):
            answer = self._until_answered("POST", "/v1/jobs", {"Idempotency-Key": f"{self._key}-{number}"})
            assert answer.status_code in {200, 202}, answer.text
            found.append(answer.json()["id"])
        assert not self.ids or found == self.ids, "the same keys gave other jobs"
        self.ids = found

    def _until_answered(
        self, method: str, path: str, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        limit = time.monotonic() + PATIENCE
        form = {"files": {"file": (MEETING.name, MEETING.read_bytes())}} if method == "POST" else {}
        while True:
            with contextlib.suppress(httpx.TransportError):
                answer = self._client.request(method, path, headers=headers, **form)  # type: ignore[arg-type]
                if answer.status_code < 500:
                    return answer
            assert time.monotonic() < limit, f"{path} is not answered"
            time.sleep(0.3)

    def seconds_done(self) -> float:
        told = [self._until_answered("GET", f"/v1/jobs/{job}").json() for job in self.ids]
        assert {job["state"] for job in told} <= {"queued", "running", "done"}, told
        return sum(float(job["progress"]["seconds_done"]) for job in told)

    def until_they_get_on(self) -> None:
        """Killed again and again before anything came of it, a job would be taken for what kills the service."""
        before = self.seconds_done()
        until(lambda: self.seconds_done() > before, "the jobs do not get on")

    def texts(self) -> list[str]:
        """When all have ended."""
        states: list[str] = []

        def ended() -> bool:
            states[:] = [self._until_answered("GET", f"/v1/jobs/{job}").json()["state"] for job in self.ids]
            return not {"queued", "running"} & set(states)

        until(ended, "the jobs do not end")
        assert set(states) == {"done"}
        return [
            self._until_answered("GET", f"/v1/jobs/{job}/result?format=text").text.strip() for job in self.ids
        ]

    def listed(self) -> list[str]:
        told = self._until_answered("GET", "/v1/jobs?limit=100").json()
        return [job["id"] for job in told["data"]]


def until(condition: Callable[[], bool], what: str) -> None:
    limit = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < limit, what
        time.sleep(0.2)


def started_at(project: Project) -> str:
    return str(docker.inspect(project.container)["State"]["StartedAt"])


@pytest.fixture
def jobs(project: Project) -> Iterator[Jobs]:
    with contextlib.closing(Jobs(project.url, "a")) as made:
        made.send()
        made.until_they_get_on()
        yield made


def test_jobs_outlive_the_container_and_docker(project: Project, jobs: Jobs, running: docker.Daemon) -> None:
    expected = project.transcribe(MEETING)
    before = started_at(project)
    os.kill(docker.inspect(project.container)["State"]["Pid"], signal.SIGKILL)
    until(lambda: started_at(project) != before, "the container is not started again")
    jobs.send()
    if not running.own:
        pytest.skip("Docker was running before, and is not killed: stop it for the rest of this test")
    jobs.until_they_get_on()
    before = started_at(project)
    running.kill()
    running.start_again()
    until(lambda: started_at(project) != before, "Docker does not start the container again")
    jobs.send()
    # With live-restore the container goes on while there is no Docker.
    jobs.until_they_get_on()
    before = started_at(project)
    running.kill()
    running.start_again("--live-restore")
    jobs.send()
    assert started_at(project) == before
    assert [text.split() for text in jobs.texts()] == [expected.split()] * JOBS
    assert sorted(jobs.listed()) == sorted(jobs.ids)

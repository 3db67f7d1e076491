"""The container and Docker itself killed with jobs in hand: the service comes back, and nothing is lost.

As `make up` starts it, and with Docker's option live-restore, which the playbooks set.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial

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
    """Jobs of one recording, sent with keys. Close it."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=30)
        self.ids: dict[str, list[str]] = {}  # of each round

    def close(self) -> None:
        self._client.close()

    def send(self, round_: str) -> None:
        """Some jobs, each until it is answered; sent again, they must be the same."""
        found = []
        for number in range(JOBS):
            answer = self._until_answered("POST", "/v1/jobs", {"Idempotency-Key": f"{round_}-{number}"})
            assert answer.status_code in {200, 202}, answer.text
            found.append(answer.json()["id"])
        assert self.ids.setdefault(round_, found) == found, "the same keys gave other jobs"

    def are_at_work(self, round_: str) -> bool:
        """Something came of them: killed again and again before, a job would be taken for what kills the service."""
        told = [self._until_answered("GET", f"/v1/jobs/{job}").json() for job in self.ids[round_]]
        assert {job["state"] for job in told} <= {"queued", "running", "done"}, told
        return any(job["progress"]["seconds_done"] for job in told)

    def _until_answered(
        self, method: str, path: str, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        """A container that has just come up may be away for a moment."""
        limit = time.monotonic() + PATIENCE
        form = {"files": {"file": (MEETING.name, MEETING.read_bytes())}} if method == "POST" else {}
        while True:
            with contextlib.suppress(httpx.TransportError):
                answer = self._client.request(method, path, headers=headers, **form)  # type: ignore[arg-type]
                if answer.status_code < 500:
                    return answer
            assert time.monotonic() < limit, f"{path} is not answered"
            time.sleep(0.3)

    def texts(self) -> set[str]:
        """Of all jobs of all rounds, when they have ended."""
        found: set[str] = set()
        for job in self.all():
            until(partial(self._has_ended, job), "a job does not end")
            assert self._state(job) == "done"
            result = self._until_answered("GET", f"/v1/jobs/{job}/result?format=json")
            found.add(result.json()["text"])
        return found

    def _has_ended(self, job: str) -> bool:
        return self._state(job) not in {"queued", "running"}

    def _state(self, job: str) -> str:
        return str(self._until_answered("GET", f"/v1/jobs/{job}").json()["state"])

    def all(self) -> list[str]:
        return sorted(job for jobs in self.ids.values() for job in jobs)

    def listed(self) -> list[str]:
        told = self._until_answered("GET", "/v1/jobs?limit=100").json()
        return sorted(job["id"] for job in told["data"])


def until(condition: Callable[[], bool], what: str) -> None:
    limit = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < limit, what
        time.sleep(0.2)


def started_at(project: Project) -> str:
    return str(docker.inspect(project.container)["State"]["StartedAt"])


@pytest.fixture
def jobs(project: Project) -> Iterator[Jobs]:
    with contextlib.closing(Jobs(project.url)) as made:
        yield made


def test_jobs_outlive_the_container_and_docker(project: Project, jobs: Jobs, running: docker.Daemon) -> None:
    expected = project.transcribe(MEETING)

    def kill_container() -> None:
        os.kill(docker.inspect(project.container)["State"]["Pid"], signal.SIGKILL)

    def kill_docker(*options: str) -> None:
        running.kill()
        running.start_again(*options)

    def lose(round_: str, kill: Callable[[], None], *, lives: bool) -> None:
        """Jobs are in hand, something is killed; the container is started again, or lives on."""
        jobs.send(round_)
        until(lambda: jobs.are_at_work(round_), "the jobs do not get on")
        before = started_at(project)
        kill()
        if not lives:
            until(lambda: started_at(project) != before, "the container is not started again")
        jobs.send(round_)
        assert (started_at(project) == before) == lives

    lose("container", kill_container, lives=False)
    if running.own:
        lose("docker", kill_docker, lives=False)
        lose("docker with live-restore", lambda: kill_docker("--live-restore"), lives=True)
    assert jobs.texts() == {expected}
    assert jobs.listed() == jobs.all()
    if not running.own:
        pytest.skip("Docker was running before, and is not killed: stop it to try that too")

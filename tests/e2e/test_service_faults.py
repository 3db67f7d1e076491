"""A real service, killed in every way: no accepted work is lost, none is done twice, and its words stay right."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.asr.catalogue import DEMO_PACKS
from tests.support.cgroup import limited
from tests.support.service_process import ServiceProcess, service, until

RECORDINGS = DEMO_PACKS.parent / "recordings"
LISTED = json.loads((RECORDINGS / "recordings.json").read_text(encoding="utf-8"))["recordings"]
FILES = [RECORDINGS / row["file"] for row in LISTED]
WORKER_KILLS, SERVICE_KILLS = 20, 6


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each recording gives when nothing happens."""
    with service(tmp_path_factory.mktemp("calm") / "data") as calm:
        return {file.name: calm.transcribe(file).json()["text"] for file in FILES}


class Load(threading.Thread):
    """Sends recordings one after the other until told to stop, and keeps what comes back."""

    def __init__(self, asked: ServiceProcess, seed: int) -> None:
        super().__init__(daemon=True)
        self._asked, self._random = asked, random.Random(seed)
        self.stopped = threading.Event()
        self.answers: list[tuple[str, int, str]] = []

    def run(self) -> None:
        while not self.stopped.is_set():
            file = self._random.choice(FILES)
            answer = self._asked.transcribe(file)
            self.answers.append((file.name, answer.status_code, answer.json().get("text", answer.text)))


@pytest.fixture
def under_load(tmp_path: Path) -> Iterator[tuple[ServiceProcess, list[Load]]]:
    with service(tmp_path / "data") as asked:
        clients = [Load(asked, seed) for seed in range(3)]
        for client in clients:
            client.start()
        yield asked, clients


def _stop(clients: list[Load]) -> list[tuple[str, int, str]]:
    for client in clients:
        client.stopped.set()
    for client in clients:
        client.join(120)
        assert not client.is_alive(), "a request never came back"
    return [answer for client in clients for answer in client.answers]


def _metric(asked: ServiceProcess, line: str) -> float:
    for found in asked.get("/metrics").text.splitlines():
        if found.startswith(line):
            return float(found.rsplit(" ", 1)[1])
    return 0.0


def test_a_worker_killed_twenty_times_costs_no_word(
    under_load: tuple[ServiceProcess, list[Load]], undisturbed: dict[str, str]
) -> None:
    asked, clients = under_load
    moments = random.Random(11)
    kills = 0
    while kills < WORKER_KILLS:
        # Killed before it is up, it would only be started later and later.
        asked.wait_until_ready()
        time.sleep(moments.random() * 1.5)
        kills += asked.kill_worker()
    answers = _stop(clients)
    assert len(answers) >= 3
    assert [(name, code) for name, code, _ in answers if code != 200] == []
    assert [name for name, _, text in answers if text != undisturbed[name]] == []
    assert _metric(asked, 'asr_worker_restarts_total{cause="killed"}') >= WORKER_KILLS - 1
    assert asked.stop() == 0


def test_a_service_killed_with_jobs_in_its_hands_ends_each_of_them_once(
    tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    moments = random.Random(5)
    with ServiceProcess(tmp_path / "data") as asked:
        asked.start()
        ids: dict[str, Path] = {}
        done = 0.0
        for turn in range(SERVICE_KILLS):
            for number, file in enumerate(FILES):
                ids[asked.send_job(file, f"{turn}-{number}")["id"]] = file
            # At any moment, but the work gets on in between: a job that is killed again and again before anything
            # came of it is taken for what kills the service, and fails.
            if turn:
                _until_more_is_done(asked, ids, done)
            time.sleep(moments.random())
            done = _done_seconds(asked, ids)
            asked.kill()
            asked.start()
            # Who did not get the answer sends again, and gets the same jobs.
            again = {asked.send_job(file, f"{turn}-{number}")["id"] for number, file in enumerate(FILES)}
            assert again <= set(ids)
        until(lambda: _states(asked, ids) == {"done"}, lambda: str(_states(asked, ids)), patience=180)
        for job, file in ids.items():
            result = asked.get(f"/v1/jobs/{job}/result?format=json").json()
            assert result["text"] == undisturbed[file.name]
        listed = asked.get("/v1/jobs?limit=100").json()["data"]
        assert sorted(job["id"] for job in listed) == sorted(ids)
        assert asked.stop() == 0


def _done_seconds(asked: ServiceProcess, ids: dict[str, Path]) -> float:
    return sum(asked.get(f"/v1/jobs/{job}").json()["progress"]["seconds_done"] for job in ids)


def _until_more_is_done(asked: ServiceProcess, ids: dict[str, Path], done: float) -> None:
    until(lambda: _done_seconds(asked, ids) > done, lambda: str(_states(asked, ids)))


def _states(asked: ServiceProcess, ids: dict[str, Path]) -> set[str]:
    """Of the jobs; of one that failed, with why."""
    told = [asked.get(f"/v1/jobs/{job}").json() for job in ids]
    return {job["state"] if not job.get("error") else f"{job['state']}: {job['error']}" for job in told}


def test_the_kernel_takes_the_worker_and_the_work_goes_on(
    tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    """A neighbour in the same control group takes all memory: the worker is killed for it, nothing else."""
    meeting = RECORDINGS / "meeting.ogg"
    with limited(700 << 20) as group, ServiceProcess(tmp_path / "data") as asked:
        asked.start()
        group.add(asked.pid)
        before = asked.worker
        asked.kill_worker()  # its successor is born into the group
        until(lambda: asked.worker not in {None, before})
        asked.wait_until_ready()
        job = asked.send_job(meeting, "one")["id"]
        eater = subprocess.Popen([sys.executable, "-c", _EATER, str(group.folder / "cgroup.procs")])
        try:
            until(lambda: group.kills() > 0)
        finally:
            eater.kill()
            eater.wait()
        assert group.kills() >= 1
        until(
            lambda: asked.get(f"/v1/jobs/{job}").json()["state"] == "done",
            lambda: f"{asked.get(f'/v1/jobs/{job}').json()}\n{asked.log()[-3000:]}",
            patience=120,
        )
        assert asked.get(f"/v1/jobs/{job}/result?format=json").json()["text"] == undisturbed[meeting.name]
        assert _metric(asked, 'asr_worker_restarts_total{cause="killed"}') >= 2
        assert asked.stop() == 0


# Grows until it is killed; the kernel's score for it is lower than the worker's, as that of any program of the host.
_EATER = """
import sys, time
open(sys.argv[1], "w").write("0")
held = []
while True:
    held.append(bytearray(b"x" * (4 << 20)))
    time.sleep(0.002)
"""


def test_work_waits_while_a_neighbour_holds_the_memory(tmp_path: Path, undisturbed: dict[str, str]) -> None:
    """Nobody is killed, there is only no room: neither the job nor the request in flight fails for that."""
    meeting, limit = RECORDINGS / "meeting.ogg", 700 << 20
    with limited(limit) as group, ServiceProcess(tmp_path / "data") as asked:
        asked.start()
        group.add(asked.pid)
        before = asked.worker
        asked.kill_worker()
        until(lambda: asked.worker not in {None, before})
        asked.wait_until_ready()
        holder = [sys.executable, "-c", _HOLDER, str(group.folder / "cgroup.procs")]
        size = limit - group.held() - (40 << 20)
        found: list[str] = []
        client = threading.Thread(
            target=lambda: found.append(asked.transcribe(meeting).json().get("text", ""))
        )
        with subprocess.Popen([*holder, str(size)], stdout=subprocess.PIPE) as neighbour:
            try:
                assert neighbour.stdout is not None and neighbour.stdout.readline()
                job = asked.send_job(meeting, "one")["id"]
                client.start()
                until(lambda: "waits for memory" in asked.log())
            finally:
                neighbour.kill()
        client.join(120)
        assert found == [undisturbed[meeting.name]]
        until(lambda: asked.get(f"/v1/jobs/{job}").json()["state"] == "done", patience=120)
        assert asked.get(f"/v1/jobs/{job}/result?format=json").json()["text"] == undisturbed[meeting.name]
        assert group.kills() == 0
        assert asked.stop() == 0


# Takes so many bytes and keeps them.
_HOLDER = """
import sys, time
open(sys.argv[1], "w").write("0")
held = b"x" * int(sys.argv[2])
print("taken", flush=True)
time.sleep(600)
"""


def test_a_request_in_flight_is_finished_before_the_end(tmp_path: Path, undisturbed: dict[str, str]) -> None:
    meeting = RECORDINGS / "meeting.ogg"
    with service(tmp_path / "data") as asked:
        found: list[str] = []
        client = threading.Thread(target=lambda: found.append(asked.transcribe(meeting).json()["text"]))
        client.start()
        until(lambda: asked.get("/v1/capacity").json()["accepted_seconds"] > 0)
        assert asked.stop() == 0
        client.join(60)
        assert found == [undisturbed[meeting.name]]
        assert os.listdir(tmp_path / "data" / "uploads") == []

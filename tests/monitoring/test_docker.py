"""Following a Docker socket: names, events, and sockets that fail, lie or hang. The Docker here is a fake."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitoring.exporter import docker
from monitoring.exporter.docker import DockerEvent, DockerWatch
from monitoring.exporter.errors import ReadingError
from tests.fakes.docker_socket import END, FakeDocker
from tests.fakes.kernel import container_id
from tests.support.waiting import wait_for


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker, "_PAUSES", (0.02,))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "docker.sock"


@pytest.fixture
def fake(path: Path) -> Iterator[FakeDocker]:
    made = FakeDocker(path)
    yield made
    made.close()


class Follower:
    """What a watch told; `since` is what it has seen so far."""

    def __init__(self, path: Path) -> None:
        self.events: list[DockerEvent] = []
        self.since = 1_700_000_000 * 10**9
        self.watch = DockerWatch(path, self.take, lambda: self.since)

    def take(self, event: DockerEvent) -> None:
        self.events.append(event)
        self.since = event.nanoseconds


@pytest.fixture
def follower(path: Path) -> Iterator[Follower]:
    made = Follower(path)
    yield made
    made.watch.close()


def healthy(follower: Follower) -> bool:
    try:
        follower.watch.check()
    except ReadingError:
        return False
    return True


def test_names_are_known_when_it_starts(fake: FakeDocker, follower: Follower) -> None:
    fake.knows("asr", "other")
    follower.watch.start()
    assert follower.watch.name_of(container_id("asr")) == "asr"
    assert follower.watch.name_of(container_id("nobody")) is None
    wait_for(lambda: healthy(follower), "health")
    assert follower.watch.check() == 2


def test_events_teach_names_and_are_handed_on(fake: FakeDocker, follower: Follower) -> None:
    follower.watch.start()
    now = time.time_ns()
    fake.tell("start", "asr", now)
    fake.tell("oom", "asr", now + 1)
    fake.tell("rename", "renamed", now + 2, container_id("asr"))
    wait_for(lambda: len(follower.events) == 3, "three events")
    assert [event.action for event in follower.events] == ["start", "oom", "rename"]
    assert follower.watch.name_of(container_id("asr")) == "renamed"


def test_events_before_the_start_are_known_when_it_has_started(fake: FakeDocker, follower: Follower) -> None:
    """Names of containers that are gone are only in there."""
    fake.tell("oom", "gone", time.time_ns() - 10**9)
    follower.watch.start()
    assert follower.watch.name_of(container_id("gone")) == "gone"
    assert [event.action for event in follower.events][:1] == ["oom"]


def test_it_asks_for_two_things_only_and_for_what_it_has_not_seen(
    fake: FakeDocker, follower: Follower
) -> None:
    follower.watch.start()
    wait_for(lambda: any(path.startswith("/events") for path in fake.asked), "the request")
    assert {path.partition("?")[0] for path in fake.asked} == {"/containers/json", "/events"}
    asked = next(path for path in fake.asked if path.startswith("/events"))
    assert "since=1700000000.000000000&" in asked


def test_a_stream_that_ends_is_taken_up_again(fake: FakeDocker, follower: Follower) -> None:
    follower.watch.start()
    now = time.time_ns()
    fake.tell("oom", "asr", now)
    fake.put(END)
    fake.tell("oom", "asr", now + 10**9)
    wait_for(lambda: follower.since == now + 10**9, "the event after the break")
    wait_for(lambda: healthy(follower), "health")


@pytest.mark.parametrize(
    "nonsense",
    [
        b"",
        b"\x00\xff\x00garbage\r\n\r\n",
        b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n[null]",
        b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n[{"Id": "12"}',
        b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n[",
    ],
)
def test_a_socket_that_speaks_nonsense(fake: FakeDocker, follower: Follower, nonsense: bytes) -> None:
    fake.broken = nonsense
    follower.watch.start()
    with pytest.raises(ReadingError, match="does not tell about containers"):
        follower.watch.check()
    fake.broken = None
    fake.knows("asr")
    wait_for(lambda: healthy(follower), "recovery")
    assert follower.watch.name_of(container_id("asr")) == "asr"


@pytest.mark.parametrize(
    "event", [b"nonsense\n", b"[]\n", b"{}\n", b'{"Action": "oom", "Actor": null}\n', b"x" * 70_000]
)
def test_events_of_nonsense(fake: FakeDocker, follower: Follower, event: bytes) -> None:
    follower.watch.start()
    fake.put(event)
    fake.tell("oom", "asr", time.time_ns())
    wait_for(lambda: follower.events, "the event after the nonsense")


def test_no_socket_then_one(path: Path, follower: Follower) -> None:
    follower.watch.start()
    with pytest.raises(ReadingError, match="No such file or directory"):
        follower.watch.check()
    fake = FakeDocker(path)
    wait_for(lambda: healthy(follower), "recovery")
    fake.close()


def test_a_socket_that_never_answers_holds_nobody_up_for_long(
    path: Path, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker, "_ANSWER_SECONDS", 0.1)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        follower.watch.start()
        with pytest.raises(ReadingError, match="timed out"):
            follower.watch.check()
    path.unlink()


def test_names_stay_bounded(fake: FakeDocker, follower: Follower) -> None:
    fake.knows(*(f"job-{run}" for run in range(docker._MOST_NAMES + 10)))
    follower.watch.start()
    assert len(follower.watch.names()) == docker._MOST_NAMES

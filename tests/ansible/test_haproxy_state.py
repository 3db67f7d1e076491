"""The tool that drains a host, against a socket that answers as HAProxy does."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.playbooks import module

tool = module("roles/gateway/files/haproxy_state.py")


class FakeHaproxy:
    """Servers by (backend, name) with their status; `sessions` is counted down each time it is asked for."""

    def __init__(self, path: Path) -> None:
        self.states = {("transcriptions", "a-0"): "UP", ("jobs", "a-0"): "UP", ("jobs", "b-0"): "UP"}
        self.held: set[tuple[str, str]] = set()
        self.sessions = 0
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.bind(str(path))
        self.socket.listen()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                line, _ = self.socket.accept()
            except OSError:
                return
            with line:
                line.sendall(self.answer(line.recv(4096).decode().strip()).encode())

    def answer(self, command: str) -> str:
        if command == "show stat":
            busy, self.sessions = self.sessions, max(0, self.sessions - 1)
            rows = [f"{backend},{name},{self.status(backend, name)},{busy}" for backend, name in self.states]
            return "\n".join(["# pxname,svname,status,scur", *rows, ""])
        if command == "show servers state":
            rows = [
                f"1 {backend} 1 {name} 10.0.0.1 2 {8 * (key in self.held)}"
                for key in self.states
                for backend, name in [key]
            ]
            return "\n".join(
                ["1", "# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state", *rows, ""]
            )
        _, _, where, _, state = command.split()
        backend, name = where.split("/")
        (self.held.add if state == "drain" else self.held.discard)((backend, name))
        return "\n"

    def status(self, backend: str, name: str) -> str:
        """As HAProxy tells it: a server that is down reads DOWN, drained or not."""
        up = self.states[backend, name]
        return "DRAIN" if up == "UP" and (backend, name) in self.held else up


@pytest.fixture
def haproxy(tmp_path: Path) -> Iterator[FakeHaproxy]:
    made = FakeHaproxy(tmp_path / "s")
    yield made
    made.socket.close()


def test_a_host_is_drained_wherever_it_stands_and_no_other(haproxy: FakeHaproxy, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    assert tool.set_state(["a-0"], "drain", path)
    assert haproxy.held == {("transcriptions", "a-0"), ("jobs", "a-0")}
    assert not tool.set_state(["a-0"], "drain", path), "a second time changes nothing"
    assert tool.set_state(["a-0"], "ready", path)
    assert not haproxy.held


def test_a_host_that_was_drained_while_it_was_down_is_handed_back(
    haproxy: FakeHaproxy, tmp_path: Path
) -> None:
    path = str(tmp_path / "s")
    haproxy.states["jobs", "b-0"] = "DOWN"
    assert tool.set_state(["b-0"], "drain", path)
    assert tool.set_state(["b-0"], "ready", path)
    assert not haproxy.held


def test_it_waits_for_work_under_way(
    haproxy: FakeHaproxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool, "PAUSE_S", 0)
    haproxy.sessions = 3
    assert tool.wait_idle(["a-0"], 60, str(tmp_path / "s"))
    haproxy.sessions = 10**9
    assert not tool.wait_idle(["a-0"], 0, str(tmp_path / "s"))


def test_a_host_is_back_only_when_haproxy_finds_it_healthy(
    haproxy: FakeHaproxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool, "PAUSE_S", 0)
    assert tool.wait_up(["a-0"], 0, str(tmp_path / "s"))
    haproxy.states["jobs", "a-0"] = "DOWN 1/2"
    assert not tool.wait_up(["a-0"], 0, str(tmp_path / "s"))

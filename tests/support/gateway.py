"""The gateway: HAProxy on what Ansible makes of the role's template, with other ports, in front of services here."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.support.packages import need
from tests.support.playbooks import ANSIBLE, play
from tests.support.program import Program
from tests.support.service_process import until
from tests.support.watch import free_port

_NAME = "gateway"  # of this HAProxy among its peers
_TEMPLATE = ANSIBLE / "roles" / "gateway" / "templates" / "haproxy.cfg.j2"
# A question for each backend that clients use, and the answer when it has a host.
_SERVED = {"/readyz": 200, "/v1/jobs?limit=1": 200, "/v1/jobs/job_unknown": 404}


class Gateway:
    """HAProxy with a master and a worker process, as its unit starts it.

    Args:
        folder: of its own; made here.
        service_port: of the service on each host.
        hosts: their addresses, all of this machine.
    """

    def __init__(self, folder: Path, service_port: int, hosts: Sequence[str] = ("127.0.0.1",)) -> None:
        need({"haproxy": "haproxy"})
        folder.mkdir()
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        config = folder / "haproxy.cfg"
        config.write_text(_settings(folder, service_port, self.port, hosts), encoding="utf-8")
        self._program = Program(["haproxy", "-W", "-L", _NAME, "-f", str(config)], folder / "haproxy.log")

    def start(self, *, wait: bool = True) -> None:
        """Returns when it lets requests through, unless told not to `wait`; all services must be ready."""
        self._program.start()
        if wait:
            self.wait_until_served()

    def wait_until_served(self) -> None:
        """Until a request reaches the service through it."""
        until(self._serves, lambda: f"nothing comes through the gateway:\n{self.log()[-2000:]}")

    def _serves(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return all(
                httpx.get(self.address + path, timeout=5).status_code == code
                for path, code in _SERVED.items()
            )
        return False

    def kill(self, *, master: bool) -> None:
        """kill -9 of the master process, whose worker then ends, or of the worker, whose master then ends."""
        workers = self._program.children()
        if master:
            self._program.kill()
        else:
            for worker in workers:  # after a reload the one before may still have connections to end
                os.kill(worker, signal.SIGKILL)
            self._program.wait()
        until(lambda: not any(map(_runs, workers)))

    def reload(self) -> None:
        """As its unit reloads it: a new worker takes over the socket, the old one ends its connections."""
        before = set(self._program.children())
        os.kill(self._program.pid, signal.SIGUSR2)
        until(lambda: any(pid not in before and _runs(pid) for pid in self._program.children()))
        self.wait_until_served()

    def stalls(self) -> int:
        """How often it took a host out because its check was not answered in time: the machine stood still."""
        return self.log().count("is DOWN, reason: Layer7 timeout")

    def log(self) -> str:
        return self._program.log.read_text(encoding="utf-8", errors="replace")

    def close(self) -> None:
        self._program.close()


def _runs(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def _settings(folder: Path, service_port: int, port: int, addresses: Sequence[str]) -> str:
    """The text of haproxy.cfg, with all that it names outside of the folder put inside."""
    known = {
        "ansible_connection": "local",
        "ansible_python_interpreter": "{{ ansible_playbook_python }}",
        "fleet_app_port": service_port,
        "fleet_gateway_port": port,
    }
    hosts = {
        f"host-{number}": {**known, "fleet_address": address} for number, address in enumerate(addresses)
    }
    groups = {"app": {"hosts": hosts}, "gateway": {"hosts": {"host-0": {}}}}
    inventory, made = folder / "hosts.yml", folder / "made.cfg"
    inventory.write_text(yaml.safe_dump({"all": {"children": groups}}))
    variables: dict[str, Any] = yaml.safe_load(
        (ANSIBLE / "roles" / "gateway" / "defaults" / "main.yml").read_text(encoding="utf-8")
    )
    variables |= {
        "gateway_instances": {},
        "gateway_statistics_port": free_port(),
        "ansible_facts": {"hostname": _NAME},
    }
    task = {"ansible.builtin.template": {"src": str(_TEMPLATE), "dest": str(made), "mode": "0600"}}
    done = play(
        [{"hosts": "gateway", "gather_facts": False, "vars": variables, "tasks": [task]}],
        *("--inventory", str(inventory)),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    text = made.read_text(encoding="utf-8")
    for own, other in (
        ("/run/haproxy/admin.sock", str(folder / "s")),
        ("127.0.0.1:10240", f"127.0.0.1:{free_port()}"),
    ):
        assert own in text, f"the template does not name {own} any more"
        text = text.replace(own, other)
    return text

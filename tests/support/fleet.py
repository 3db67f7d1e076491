"""Test hosts: containers that run systemd and sshd, reached by real SSH with a key made here, Docker inside.

Here: making them, reaching them, killing them and bringing them back, and Ansible against them. What is asked of a
provisioned fleet is tests/e2e/test_provision.py's. Their /var/lib/docker and the place of the swap file are directories
of this machine, since neither works on an overlay.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.support import docker

ROOT = Path(__file__).resolve().parent.parent.parent
# What a Debian server has before anybody provisions it.
HOST_PACKAGES = (
    "ca-certificates",
    "dbus",
    "iproute2",
    "kmod",
    "openssh-server",
    "procps",
    "python3",
    "python3-apt",
    "sudo",
    "systemd",
    "systemd-sysv",
)
KEY = "fleet-test-key-1234567890"
_PREFIX = "fleet-test-"
_AS_A_MACHINE = (
    "--cap-add=SYS_ADMIN",
    "--cap-add=NET_ADMIN",
    "--security-opt=seccomp=unconfined",
    "--security-opt=apparmor=unconfined",
    "--cgroupns=host",
    "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw",
    "--tmpfs=/run",
    "--tmpfs=/run/lock",
    "--stop-signal=SIGRTMIN+3",
)
_PATIENCE = 120.0
_RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Run:
    """A playbook that ended: exit status, all it printed, seconds, and `changed` of every host in its recap."""

    status: int
    output: str
    seconds: float

    @property
    def changed(self) -> dict[str, int]:
        return {row[1]: int(row[3]) for row in _RECAP.finditer(self.output)}

    @property
    def failed(self) -> set[str]:
        return {row[1] for row in _RECAP.finditer(self.output) if int(row[4]) or int(row[5])}


@dataclass(frozen=True)
class Begun:
    """A playbook that runs."""

    process: subprocess.Popen[str]
    started: float

    def interrupt(self) -> None:
        """Ctrl-C in its terminal: everything in the foreground is told."""
        os.killpg(self.process.pid, signal.SIGINT)

    def wait(self) -> Run:
        output, _ = self.process.communicate()
        return Run(self.process.returncode, output, time.monotonic() - self.started)


@dataclass
class Fleet:
    """Hosts by name, their addresses, and the directory with key, inventory and what belongs to the hosts."""

    folder: Path
    network: str
    subnet: str
    addresses: dict[str, str] = field(default_factory=dict)
    variables: dict[str, Any] = field(default_factory=dict)
    groups: dict[str, Sequence[str]] = field(default_factory=dict)

    def container(self, name: str) -> str:
        return f"{self.network}-{name}"

    def add(self, name: str, image: str) -> None:
        """A bare host that answers SSH, with lists of packages, as a server in use has them."""
        place = self.folder / name
        for part in ("docker", "swap"):
            (place / part).mkdir(parents=True)
        mounts = (f"--volume={place}/docker:/var/lib/docker", f"--volume={place}/swap:/swap")
        docker.docker(
            "run", "--detach", f"--name={self.container(name)}", f"--hostname={name}",
            f"--network={self.network}", f"--ip={self.subnet}.{10 + len(self.addresses)}",
            *_AS_A_MACHINE, *mounts, image, "/lib/systemd/systemd",
        )  # fmt: skip
        self.inside(name, "install -d -m 0700 /root/.ssh")
        docker.docker("cp", self.folder / "key.pub", f"{self.container(name)}:/root/.ssh/authorized_keys")
        self.inside(name, "chown root:root /root/.ssh/authorized_keys; chmod 0600 /root/.ssh/authorized_keys")
        self._await_ssh(name)
        self.inside(name, "apt-get update -qq")

    def _await_ssh(self, name: str) -> None:
        self.addresses[name] = docker.inspect(self.container(name))["NetworkSettings"]["Networks"][
            self.network
        ]["IPAddress"]
        give_up = time.monotonic() + _PATIENCE
        while self.inside(name, "systemctl is-active ssh", check=False).stdout.strip() != "active":
            if time.monotonic() > give_up:
                raise AssertionError(docker.docker("logs", self.container(name)).stdout[-2000:])
            time.sleep(0.5)
        key = self.inside(name, "cat /etc/ssh/ssh_host_ed25519_key.pub").stdout.split()[:2]
        with (self.folder / "known_hosts").open("a", encoding="ascii") as file:
            file.write(f"{self.addresses[name]} {' '.join(key)}\n")

    def inside(self, name: str, script: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A shell script on a host, past SSH; for looking and for breaking things."""
        return docker.docker("exec", self.container(name), "sh", "-c", script, check=check)

    def kill(self, name: str) -> None:
        """The power goes out."""
        docker.docker("kill", self.container(name))

    def bring_back(self, name: str) -> None:
        docker.docker("start", self.container(name))
        self._await_ssh(name)

    def inventory(self) -> Path:
        """Written anew for each run, so that a test may change `variables`."""
        hosts = {name: {"ansible_host": address} for name, address in self.addresses.items()}
        children = {
            group: {"hosts": {name: hosts[name] for name in names}} for group, names in self.groups.items()
        }
        options = f"-o UserKnownHostsFile={self.folder}/known_hosts -o IdentitiesOnly=yes"
        shared = {
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(self.folder / "key"),
            "ansible_ssh_common_args": options,
            **self.variables,
        }
        path = self.folder / "inventory.yml"
        path.write_text(yaml.safe_dump({"all": {"vars": shared, "children": children}}), encoding="utf-8")
        return path

    def play(self, verb: str, *, check: bool = False, limit: str = "", **variables: Any) -> Run:
        """`make VERB INVENTORY=...`, with more variables for this run."""
        environment = {**os.environ, "INVENTORY": str(self.inventory()), "LIMIT": limit, "NO_COLOR": "1"}
        environment |= {"CHECK": "1"} if check else {}
        if variables:
            environment["ARGS"] = " ".join(
                f"--extra-vars {name}={value}" for name, value in variables.items()
            )
        with self.begin(verb, environment) as begun:
            return begun.wait()

    @contextmanager
    def begin(self, verb: str, environment: Mapping[str, str] | None = None) -> Iterator[Begun]:
        """The same, while it runs; killed when it is not waited for."""
        given = environment or {**os.environ, "INVENTORY": str(self.inventory()), "NO_COLOR": "1"}
        with subprocess.Popen(
            ["make", "--no-print-directory", verb],
            cwd=ROOT,
            env=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:
            begun = Begun(process, time.monotonic())
            try:
                yield begun
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def fleet(groups: Mapping[str, Sequence[str]], folder: Path) -> Iterator[Fleet]:
    """Bare hosts for these groups; everything is gone afterwards, their swap too, which is this machine's."""
    place = Path(tempfile.mkdtemp(prefix="fleet-", dir=folder))
    network = f"{_PREFIX}{place.name[6:].lower()}".replace("_", "0")
    # Addresses are given, so that a host that was killed comes back with its own.
    subnet = f"10.213.{zlib.crc32(network.encode()) % 256}"
    made = Fleet(place, network, subnet, groups=dict(groups))
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / "key")], check=True)
    (place / "api_keys").write_text(f"{KEY}\n", encoding="ascii")
    image = docker.base_image(HOST_PACKAGES)
    docker.docker("network", "create", f"--subnet={subnet}.0/24", f"--gateway={subnet}.1", network)
    names = list(dict.fromkeys(name for members in groups.values() for name in members))
    try:
        for name in names:
            made.add(name, image)
        yield made
    finally:
        for name in names:
            made.inside(name, "swapoff /swap/file", check=False)
        docker.remove_all(network)
        shutil.rmtree(place, ignore_errors=True)

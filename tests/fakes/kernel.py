"""A fake /proc, /sys and /dev below a folder, as --root takes it: cgroup v1 or v2, by the systemd or cgroupfs driver.

Files are ordinary ones, so that counters move when a test writes them. What real kernels do is in tests/e2e.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Literal

Runtime = Literal["docker", "docker-cgroupfs", "podman", "podman-cgroupfs", "kubernetes"]
RUNTIMES: tuple[Runtime, ...] = ("docker", "docker-cgroupfs", "podman", "podman-cgroupfs", "kubernetes")
_PATHS: dict[Runtime, str] = {
    "docker": "system.slice/docker-{id}.scope",
    "docker-cgroupfs": "docker/{id}",
    "podman": "machine.slice/libpod-{id}.scope",
    "podman-cgroupfs": "libpod_parent/libpod-{id}",
    "kubernetes": "kubepods.slice/kubepods-burstable.slice/kubepods-pod7.slice/cri-containerd-{id}.scope",
}
MEMINFO = """MemTotal:        2097152 kB
MemFree:          102400 kB
MemAvailable:     524288 kB
SwapTotal:       1048576 kB
SwapFree:         786432 kB
HugePages_Total:       0
"""


def container_id(name: str) -> str:
    """64 hexadecimal digits, the same for the same name."""
    return hashlib.sha256(name.encode()).hexdigest()


class FakeKernel:
    """A host below `root`."""

    def __init__(self, root: Path, version: Literal[1, 2] = 2, runtime: Runtime = "docker") -> None:
        self.root, self.version, self.runtime = root, version, runtime
        self.groups = root / "sys/fs/cgroup" / ("memory" if version == 1 else ".")
        self.groups.mkdir(parents=True)
        if version == 2:
            (self.groups / "cgroup.controllers").write_text("cpu memory\n")
        self.write("proc/meminfo", MEMINFO)
        self.vmstat(oom_kill=0)
        self.boot("first-boot")

    def write(self, path: str, text: str) -> Path:
        """A file below the root."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def boot(self, boot_id: str) -> None:
        """The host's boot; another one is a reboot."""
        self.write("proc/sys/kernel/random/boot_id", f"{boot_id}\n")
        self.write("proc/stat", "cpu 1 2 3\nbtime 1700000000\n")

    def vmstat(self, **values: int) -> None:
        """/proc/vmstat."""
        self.write("proc/vmstat", "".join(f"{name} {value}\n" for name, value in values.items()))

    def path_of(self, name: str) -> Path:
        """The directory of a container's cgroup."""
        return self.groups / _PATHS[self.runtime].format(id=container_id(name))

    def kills(self, name: str, kills: int, *, inside: str = "") -> Path:
        """A container's cgroup (or one inside it), and how many it counted."""
        directory = self.path_of(name) / inside
        directory.mkdir(parents=True, exist_ok=True)
        if self.version == 2:
            file, text = "memory.events", f"low 0\nhigh 0\nmax 9\noom {kills + 1}\noom_kill {kills}\n"
        else:
            file, text = "memory.oom_control", f"oom_kill_disable 0\nunder_oom 0\noom_kill {kills}\n"
        (directory / file).write_text(text)
        return directory

    def remove(self, name: str) -> None:
        """The container is gone, and its cgroup with it."""
        shutil.rmtree(self.path_of(name))

    def process(self, pid: int, name: str, container: str | None) -> None:
        """A process, in a container or outside of all."""
        inner = "/" + _PATHS[self.runtime].format(id=container_id(container)) if container else "/user.slice"
        lines = [f"0::{inner}"] if self.version == 2 else [f"4:memory:{inner}", "1:name=systemd:/", "0::/"]
        self.write(f"proc/{pid}/cgroup", "\n".join(lines) + "\n")
        self.write(f"proc/{pid}/comm", f"{name}\n")

    def log_kill(self, sequence: int, name: str | None) -> None:
        """The kernel log reports a kill, in a container or in none."""
        group = (
            "/" + _PATHS[self.runtime].format(id=container_id(name)) if name else "/system.slice/cron.service"
        )
        self.log(
            f"6,{sequence},{sequence}00,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=x,"
            f"mems_allowed=0,oom_memcg={group},task_memcg={group},task=python3,pid=7,uid=0\n SUBSYSTEM=mm\n"
        )

    def log(self, text: str) -> None:
        """More in the kernel log."""
        file = self.root / "dev/kmsg"
        file.parent.mkdir(exist_ok=True)
        with file.open("a") as log:
            log.write(text)

"""From a cgroup path or a process to its container: ids as the kernel shows them, names as people gave them.

Here: how Docker, Podman and Kubernetes spell a container's cgroup under both drivers, where the memory controller's
tree is, which container a pid belongs to. Names come from docker.py; kills are counted in oom.py.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from monitoring.exporter.host import below

# With systemd: docker-, libpod-, cri-containerd- or crio-<id>.scope; with cgroupfs: <id> or libpod-<id>.
_COMPONENT = re.compile(r"(?:(?P<prefix>[a-z][a-z-]*)-)?(?P<id>[0-9a-f]{64})(?:\.scope)?")
_MONITOR = "conmon"  # of Podman and CRI-O, beside the container
_DEEPEST = 12
_MOST_DIRECTORIES = 20_000
SHORT_ID = 12


def container_of(cgroup: str) -> str | None:
    """The id of the outermost container in a cgroup path: what runs in a container inside it is its own."""
    for component in cgroup.split("/"):
        found = _COMPONENT.fullmatch(component)
        if found and not (found["prefix"] or "").endswith(_MONITOR):
            return found["id"]
    return None


def container_of_pid(root: Path, pid: int) -> str | None:
    """The container of a process, None for one outside of containers.

    Raises:
        OSError: the process is gone, or not visible from here.
    """
    text = below(root, f"/proc/{pid}/cgroup").read_text(encoding="utf-8", errors="replace")
    for line in text.splitlines():
        found = container_of(line.partition(":")[2].partition(":")[2])
        if found:
            return found
    return None


@dataclass(frozen=True)
class MemoryTree:
    """Where the memory controller's cgroups are, and the file that counts kills there."""

    path: Path
    version: Literal[1, 2]

    @property
    def kills_file(self) -> str:
        """Name of the file with the line `oom_kill N`."""
        return "memory.events" if self.version == 2 else "memory.oom_control"


def memory_tree(root: Path) -> MemoryTree | None:
    """The host's tree of memory cgroups; None without one."""
    top = below(root, "/sys/fs/cgroup")
    if (top / "cgroup.controllers").exists():
        return MemoryTree(top, 2)
    if (top / "memory").is_dir():
        return MemoryTree(top / "memory", 1)
    return None


@dataclass(frozen=True)
class ContainerGroup:
    """A container's own cgroup: its directory, and a number that is another when the container is started again."""

    container: str
    path: Path
    instance: int


def walk(tree: MemoryTree) -> Iterator[ContainerGroup | Path]:
    """All containers of a tree, and the directories above them; those inside a container are not entered.

    Directories that vanish meanwhile are left out. Bounded in depth and number.
    """
    waiting = [(tree.path, 0)]
    seen = 0
    while waiting and seen < _MOST_DIRECTORIES:
        directory, depth = waiting.pop()
        seen += 1
        yield directory
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    if not entry.is_dir(follow_symlinks=False):
                        continue
                    container = container_of(entry.name)
                    if container:
                        yield ContainerGroup(container, Path(entry.path), entry.inode())
                    elif depth < _DEEPEST:
                        waiting.append((Path(entry.path), depth + 1))
        except OSError:
            continue


def count_kills(group: ContainerGroup, tree: MemoryTree) -> int | None:
    """Kills in a container since its cgroup was made; None when it is gone.

    memory.events (v2) counts everything below; memory.oom_control (v1) only its own group, so that there the groups
    below are added.
    """
    own = _kills_in(group.path / tree.kills_file)
    if own is None or tree.version == 2:
        return own
    return own + sum(_kills_in(Path(path) / tree.kills_file) or 0 for path in _below(group.path))


def _below(path: Path) -> Iterator[str]:
    for directory, names, _ in os.walk(path):
        yield from (os.path.join(directory, name) for name in names)


def _kills_in(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name == "oom_kill" and value.isdigit():
            return int(value)
    return None

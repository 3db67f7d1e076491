"""Kills by container: what three witnesses saw, joined without counting a kill twice, and kept over restarts.

The witnesses are the container's cgroup file, the kernel log and Docker's events. Each may miss kills, none invents
any, so that the largest of the three is the best count of a container. A container started again keeps its id
while its cgroup begins at nought: increments are counted, not values. Watching is oom.py; the file is state.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from monitoring.exporter.containers import SHORT_ID
from monitoring.exporter.names import OTHER_CONTAINERS

Witness = Literal["files", "kernel_log", "docker"]
_WITNESSES: tuple[Witness, ...] = ("files", "kernel_log", "docker")
_MOST_CONTAINERS = 300  # ids remembered one by one; the eldest are folded into their names
_MOST_NAMES = 200  # names told one by one; hosts that make up a name for every run must not grow without end


@dataclass
class Count:
    """A container's kills since boot, by witness; `instance` and `last` are those of its cgroup file."""

    name: str
    files: int = 0
    kernel_log: int = 0
    docker: int = 0
    instance: int | None = None
    last: int = 0

    @property
    def kills(self) -> int:
        """What is believed."""
        return max(self.files, self.kernel_log, self.docker)


@dataclass
class Ledger:
    """All counts. `earlier`: by name, from boots before; `folded`: by name, of this boot, where the id was let go.

    Not safe for threads: its owner locks. `changed` is set by whatever must be saved, and cleared by who saves.
    """

    boot: str
    containers: dict[str, Count] = field(default_factory=dict)
    folded: dict[str, int] = field(default_factory=dict)
    earlier: dict[str, int] = field(default_factory=dict)
    log_sequence: int = -1
    docker_nanoseconds: int = 0
    changed: bool = False

    def saw(self, container: str, witness: Witness, *, name: str | None = None) -> None:
        """One kill, told by the kernel log or by Docker."""
        count = self._count(container, name)
        setattr(count, witness, getattr(count, witness) + 1)
        self.changed = True

    def read_file(self, container: str, instance: int, kills: int, *, name: str | None = None) -> None:
        """What the container's cgroup file says now. A value that fell (a group inside vanished) counts nothing."""
        known = self.containers.get(container)
        if known is None and not kills:
            return
        count = self._count(container, name)
        if count.instance != instance:
            count.instance, count.last = instance, 0
            self.changed = True
        if kills != count.last:
            count.files += max(0, kills - count.last)
            count.last = kills
            self.changed = True

    def rename(self, container: str, name: str) -> None:
        """The container is called so now; its count goes with it."""
        count = self.containers.get(container)
        if count is not None and count.name != name:
            count.name = name
            self.changed = True

    def _count(self, container: str, name: str | None) -> Count:
        count = self.containers.pop(container, None) or Count(name or container[:SHORT_ID])
        if name:
            count.name = name
        self.containers[container] = count  # at the end: the first are those that were quiet for longest
        while len(self.containers) > _MOST_CONTAINERS:
            eldest = self.containers.pop(next(iter(self.containers)))
            name = eldest.name
            if name not in self.folded and len(self.folded) >= _MOST_NAMES:
                name = OTHER_CONTAINERS
            self.folded[name] = self.folded.get(name, 0) + eldest.kills
        return count

    @property
    def attributed(self) -> int:
        """Kills since boot that have a container."""
        return sum(count.kills for count in self.containers.values()) + sum(self.folded.values())

    def totals(self) -> dict[str, int]:
        """Kills by name, over all boots. Containers of one name, one after the other, are one series."""
        found = dict(self.earlier)
        for name, kills in self.folded.items():
            found[name] = found.get(name, 0) + kills
        for count in self.containers.values():
            found[count.name] = found.get(count.name, 0) + count.kills
        return {name: kills for name, kills in found.items() if kills}

    def as_data(self) -> dict[str, Any]:
        """For the state file."""
        return {
            "boot": self.boot,
            "log_sequence": self.log_sequence,
            "docker_nanoseconds": self.docker_nanoseconds,
            "containers": {container: vars(count) for container, count in self.containers.items()},
            "folded": self.folded,
            "earlier": self.earlier,
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any], boot: str) -> Ledger:
        """From the state file; after another boot, what was counted goes to `earlier`, and witnesses begin anew.

        Raises:
            ValueError, TypeError, LookupError: this is not such a file.
        """
        counts = {str(name): _count_from(told) for name, told in data["containers"].items()}
        made = cls(str(data["boot"]), counts, _numbers(data["folded"]), _numbers(data["earlier"]))
        made.log_sequence, made.docker_nanoseconds = (
            int(data["log_sequence"]),
            int(data["docker_nanoseconds"]),
        )
        if made.boot == boot:
            return made
        return cls(boot, earlier=_within(made.totals(), _MOST_NAMES), changed=True)


def _count_from(data: Mapping[str, Any]) -> Count:
    instance = data["instance"]
    seen = {witness: int(data[witness]) for witness in _WITNESSES}
    if min(seen.values()) < 0 or int(data["last"]) < 0:
        raise ValueError("a negative count")
    return Count(
        str(data["name"]),
        **seen,
        instance=None if instance is None else int(instance),
        last=int(data["last"]),
    )


def _numbers(data: Mapping[str, Any]) -> dict[str, int]:
    found = {str(name): int(value) for name, value in data.items()}
    if min(found.values(), default=0) < 0:
        raise ValueError("a negative count")
    return found


def _within(totals: Mapping[str, int], most: int) -> dict[str, int]:
    """The largest counts by name, the rest in one."""
    kept = sorted(totals, key=lambda name: totals[name], reverse=True)[:most]
    found = {name: totals[name] for name in kept}
    rest = sum(totals.values()) - sum(found.values())
    if rest:
        found[OTHER_CONTAINERS] = found.get(OTHER_CONTAINERS, 0) + rest
    return found

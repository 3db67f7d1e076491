"""Who was killed for want of memory: watches cgroups, the kernel log and Docker's events, and keeps the ledger.

Here: one thread that waits for the kernel's notices and, where those do not come (cgroup v1, no inotify), looks once
a second. How a kill is counted once though three tell of it is ledger.py. A CUDA out-of-memory is no kill and not
here.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import stat
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from monitoring.exporter.containers import ContainerGroup, container_of, count_kills, memory_tree, walk
from monitoring.exporter.docker import DockerEvent
from monitoring.exporter.errors import ReadingError
from monitoring.exporter.host import below, read_text, read_vmstat
from monitoring.exporter.kernel_log import KernelKill, KernelLog
from monitoring.exporter.ledger import Ledger
from monitoring.exporter.notices import Notices
from monitoring.exporter.state import StateFile

LOG = logging.getLogger(__name__)
_LOOK_SECONDS = 1.0
_WALK_SECONDS = 15.0  # all cgroups are walked so often even where the kernel tells of new ones


@dataclass(frozen=True)
class OomReading:
    """Kills since boot, and by container over all boots; `unattributed`: those since boot without a container."""

    host: int
    unattributed: int
    containers: Mapping[str, int]


class OomWatch:
    """Counts kills while it runs.

    Args:
        root: below which /proc, /sys and /dev are.
        name_of: container id -> name, None when it is not known (yet).
        kernel_log: "auto" uses it where it can be read, "on" wants it, "off" leaves it.
        state: where counts are kept; None keeps them in memory.
    """

    def __init__(
        self,
        root: Path,
        *,
        name_of: Callable[[str], str | None],
        kernel_log: str = "auto",
        state: StateFile | None = None,
    ) -> None:
        self._root, self._name_of, self._state = root, name_of, state
        self._lock = threading.RLock()
        self._boot = _boot_of(root)
        self._ledger = state.load(self._boot) if state else Ledger(self._boot)
        self._groups: dict[Path, ContainerGroup] = {}
        self._watched: set[Path] = set()
        self._tree = memory_tree(root)
        self._log: KernelLog | None = None
        self._log_failure: ReadingError | None = None
        self._log_wanted, self._had_log = kernel_log, False
        self._notices: Notices | None = None
        self._walked = 0.0
        self._closing = threading.Event()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="oom", daemon=True)

    def start(self) -> None:
        """Reads everything once, so that the first scrape is whole, and goes on in a thread."""
        self._open()
        self._look()
        self._thread.start()

    def close(self) -> None:
        """Ends the thread; what was counted is saved."""
        self._closing.set()
        os.eventfd_write(self._wake, 1)
        if self._thread.ident is not None:
            self._thread.join(timeout=2 * _LOOK_SECONDS)
        with self._lock:
            self._save()

    def docker_event(self, event: DockerEvent) -> None:
        """From docker.py, in its thread. Events that came before are known by their time."""
        with self._lock:
            self._ledger.rename(event.container, event.name)
            if event.nanoseconds > self._ledger.docker_nanoseconds:
                self._ledger.docker_nanoseconds = event.nanoseconds
                if event.action == "oom":
                    self._ledger.saw(event.container, "docker", name=event.name)
            self._save()

    def docker_since(self) -> int:
        """Unix time in nanoseconds of the last event that was seen; before any, the host's boot."""
        with self._lock:
            return self._ledger.docker_nanoseconds or _boot_time(self._root) * 10**9

    def read(self) -> OomReading:
        """The counts now.

        Raises:
            ReadingError: /proc/vmstat cannot be read or has no such count (Linux before 4.13).
        """
        self._look(walk_again=self._notices is None)
        with self._lock:
            for container in self._ledger.containers:
                self._ledger.rename(
                    container, self._name_of(container) or self._ledger.containers[container].name
                )
            self._save()
            attributed, totals = self._ledger.attributed, self._ledger.totals()
        kills = read_vmstat(self._root).get("oom_kill")
        if kills is None:
            raise ReadingError(
                "/proc/vmstat has no count of kills for want of memory", fix="Use Linux 4.13 or later"
            )
        return OomReading(kills, max(0, kills - attributed), totals)

    @property
    def has_kernel_log(self) -> bool:
        """Whether the kernel log was a witness at the start, or was asked for."""
        return self._log_wanted == "on" or self._had_log

    def check_kernel_log(self) -> int:
        """The number of the last record read.

        Raises:
            ReadingError: the log cannot be read.
        """
        if self._log_failure is not None:
            raise self._log_failure
        return self._ledger.log_sequence

    def _open(self) -> None:
        if self._log_wanted != "off":
            try:
                self._log = KernelLog(below(self._root, "/dev/kmsg"))
                self._had_log = True
            except ReadingError as error:
                self._log_failure = error
                if self._log_wanted == "auto":
                    LOG.info("Kills are counted without the kernel log: %s", error)
        try:
            self._notices = Notices()
        except ReadingError as error:
            LOG.warning("%s", error)

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        for source in (self._log, self._notices):
            if source is not None and not stat.S_ISREG(os.fstat(source.fileno()).st_mode):
                poll.register(source, select.POLLIN)  # a file of a --root would always be ready
        while not self._closing.is_set():
            poll.poll(_LOOK_SECONDS * 1000)
            try:
                self._look()
            except Exception:
                LOG.exception(
                    "Looking for kills failed in a way that was not foreseen; it goes on in a second"
                )
                self._closing.wait(_LOOK_SECONDS)
            if self._log is not None and self._log_failure is not None:
                with contextlib.suppress(KeyError):
                    poll.unregister(self._log)
                self._log.close()
                self._log = None

    def _look(self, *, walk_again: bool = False) -> None:
        with self._lock:
            self._read_log()
            lost = self._read_notices()
            if lost or walk_again or time.monotonic() - self._walked >= _WALK_SECONDS or not self._walked:
                self._walk()
            else:
                for group in [group for path, group in self._groups.items() if path not in self._watched]:
                    self._add(group)
            self._save()

    def _read_log(self) -> None:
        if self._log is None or self._log_failure is not None:
            return
        try:
            for found in self._log.kills():
                if isinstance(found, KernelKill):
                    if found.sequence > self._ledger.log_sequence and found.container is not None:
                        name = self._name_of(found.container)
                        self._ledger.saw(found.container, "kernel_log", name=name)
                elif found > self._ledger.log_sequence:
                    self._ledger.log_sequence = found
        except ReadingError as error:
            self._log_failure = error

    def _read_notices(self) -> bool:
        """Follows what the kernel told; True when notices were lost."""
        if self._notices is None or self._tree is None:
            return False
        lost = False
        for notice in self._notices.read():
            if notice.path is None:
                lost = True
            elif notice.path.name == self._tree.kills_file:
                group = self._groups.get(notice.path.parent)
                if group is not None:
                    self._count(group)
            elif notice.created:
                self._appeared(notice.path)
            else:
                self._forget(notice.path)
        return lost

    def _appeared(self, path: Path) -> None:
        container = container_of(path.name)
        try:
            instance = path.stat().st_ino
        except OSError:
            return  # gone already
        if container is not None:
            self._add(ContainerGroup(container, path, instance))
        elif path.is_dir():
            self._walk()  # something above containers, which may hold some already

    def _add(self, group: ContainerGroup) -> None:
        """Counts a group, from now on whenever the kernel tells of a change; where it does not, at every look."""
        self._groups[group.path] = group
        notices, tree = self._notices, self._tree
        if notices is not None and tree is not None and tree.version == 2:
            file = group.path / tree.kills_file
            self._watched |= {group.path} if notices.watch_file(file) else set()
        self._count(group)

    def _forget(self, path: Path) -> None:
        self._groups.pop(path, None)
        self._watched.discard(path)

    def _walk(self) -> None:
        """Finds all containers anew; watches are set before files are read, so that nothing falls in between."""
        self._walked = time.monotonic()
        self._tree = memory_tree(self._root)
        if self._tree is None:
            return
        found = {}
        for met in walk(self._tree):
            if isinstance(met, ContainerGroup):
                found[met.path] = met
            elif self._notices is not None:
                self._notices.watch_directory(met)
        self._groups = {}
        self._watched = set()
        for group in found.values():
            self._add(group)

    def _count(self, group: ContainerGroup) -> None:
        if self._tree is None:
            return
        kills = count_kills(group, self._tree)
        if kills is None:
            if not group.path.exists():
                self._forget(group.path)
        else:
            name = self._name_of(group.container)
            self._ledger.read_file(group.container, group.instance, kills, name=name)

    def _save(self) -> None:
        if self._state is not None and self._ledger.changed:
            self._state.save(self._ledger)


def _boot_of(root: Path) -> str:
    try:
        return read_text(below(root, "/proc/sys/kernel/random/boot_id")).strip()
    except ReadingError:
        return f"boot at {_boot_time(root)}"


def _boot_time(root: Path) -> int:
    """Unix time of the host's boot; 0 when the kernel does not tell."""
    try:
        lines = read_text(below(root, "/proc/stat")).splitlines()
    except ReadingError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("btime ")), 0)

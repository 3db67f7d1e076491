"""What this host grants the process: processors, memory, instruction sets, and the memory used so far.

Containers are given less than the machine has; onnxruntime and torch look at the machine. Every reading here
takes the smaller of both. Only files of /proc and /sys are read (below `root`, so that tests can lay them
out), nothing is cached, and a reading that is not there is None. What to do with the numbers is decided
elsewhere.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
import resource
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/")
# The peak at the last time that the kernel was told to forget it (peak_rss_during).
_forgotten_peak = 0
# A thread that is nicer by this much has a tenth of the weight.
HELPER_NICENESS = 10
_UNLIMITED = 1 << 60  # cgroup v1 writes "no limit" as a number of this order


@dataclass(frozen=True)
class CpuGrant:
    """Processors: of the machine, those this process may run on, and the container's quota in processors."""

    machine: int
    affinity: int
    quota: float | None

    @property
    def cores(self) -> int:
        """How many threads to start; half a processor of quota counts as one more thread, less does not."""
        granted = self.affinity if self.quota is None else min(self.affinity, int(self.quota + 0.5))
        return max(1, granted)

    @property
    def reason(self) -> str:
        """Why it is that number, as a clause."""
        if self.quota is not None and int(self.quota + 0.5) < self.affinity:
            return f"the container's quota is {self.quota:g} of {self.machine} processors"
        if self.affinity < self.machine:
            return f"the process may run on {self.affinity} of {self.machine} processors"
        return "all processors of the machine"


@dataclass(frozen=True)
class MemoryGrant:
    """Memory in bytes: all and free on the machine, the container's limit and what it holds of that."""

    total: int | None
    machine_available: int | None
    limit: int | None
    used_of_limit: int | None

    @property
    def available(self) -> int | None:
        """What can still be taken before the machine swaps or the container is killed."""
        room = None
        if self.limit is not None and self.used_of_limit is not None:
            room = max(0, self.limit - self.used_of_limit)
        readings = [value for value in (self.machine_available, room) if value is not None]
        return min(readings, default=None)


@dataclass(frozen=True)
class CpuFeatures:
    """The processor's name and the instruction sets that matter for matrix products."""

    model: str
    architecture: str
    flags: frozenset[str]

    @property
    def avx2(self) -> bool:
        return "avx2" in self.flags

    @property
    def avx512(self) -> bool:
        return "avx512f" in self.flags

    @property
    def int8_dot(self) -> bool:
        """True with instructions that multiply and add 8-bit integers at once (VNNI; `asimddp` on ARM)."""
        return bool(self.flags & {"avx512_vnni", "avx_vnni", "avx512vnni", "avxvnni", "asimddp"})


def cpu_grant(root: Path = _ROOT) -> CpuGrant:
    """Processors this process may use."""
    machine = os.cpu_count() or 1
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else machine
    quotas = [quota for folder in _cgroup_folders(root, "cpu") if (quota := _quota(folder)) is not None]
    return CpuGrant(machine=machine, affinity=affinity, quota=min(quotas, default=None))


def memory_grant(root: Path = _ROOT) -> MemoryGrant:
    """Memory this process may use."""
    fields = _fields(root / "proc/meminfo")
    total, available = _kilobytes(fields.get("MemTotal")), _kilobytes(fields.get("MemAvailable"))
    limit: int | None = None
    used: int | None = None
    for folder in _cgroup_folders(root, "memory"):
        found = _number(folder / "memory.max", folder / "memory.limit_in_bytes")
        if found is None or found >= (total or _UNLIMITED) or (limit is not None and found >= limit):
            continue
        limit, used = found, _working_set(folder)
    return MemoryGrant(total=total, machine_available=available, limit=limit, used_of_limit=used)


def cpu_features(root: Path = _ROOT) -> CpuFeatures:
    """Name and flags of the first processor listed."""
    fields = _fields(root / "proc/cpuinfo")
    name = fields.get("model name") or fields.get("Model") or platform.processor() or "unknown processor"
    flags = fields.get("flags") or fields.get("Features") or ""
    return CpuFeatures(model=name, architecture=platform.machine(), flags=frozenset(flags.split()))


def peak_rss_bytes(root: Path = _ROOT) -> int:
    """The most memory this process has held at once, in bytes."""
    peak = _kilobytes(_fields(root / "proc/self/status").get("VmHWM"))
    if peak is not None:
        return max(peak, _forgotten_peak) if root == _ROOT else peak
    measured = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return measured if sys.platform == "darwin" else measured * 1024


def rss_bytes(root: Path = _ROOT) -> int:
    """Memory this process holds now, in bytes."""
    return _kilobytes(_fields(root / "proc/self/status").get("VmRSS")) or peak_rss_bytes(root)


def peak_rss_during(work: Callable[[], None]) -> int:
    """The most memory, in bytes, that this process held while `work` ran.

    Linux forgets the peak so far when a 5 is written to clear_refs (proc(5)); where that is refused, an earlier and
    higher peak is taken for it.
    """
    global _forgotten_peak  # noqa: PLW0603 - the kernel has one such mark a process, and so have we
    so_far = peak_rss_bytes()
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        _forgotten_peak = so_far
    except OSError:
        pass
    work()
    return _kilobytes(_fields(_ROOT / "proc/self/status").get("VmHWM")) or peak_rss_bytes()


def nvidia_driver(root: Path = _ROOT) -> str | None:
    """Version of the loaded NVIDIA kernel driver, such as "535.247.01"; None without one."""
    version = _read(root / "sys/module/nvidia/version")
    if version:
        return version
    found = re.search(r"Kernel Module.*?(\d+\.\d+(?:\.\d+)?)", _read(root / "proc/driver/nvidia/version"))
    return found.group(1) if found else None


def _cgroup_folders(root: Path, controller: str) -> Iterator[Path]:
    """The control groups that bound this process for a controller, from its own up to the mount point."""
    own = _own_groups(root, controller)
    for line in _lines(root / "proc/self/mountinfo"):
        before, separator, after = line.partition(" - ")
        left, right = before.split(), after.split()
        if not separator or len(left) < 5 or len(right) < 3:
            continue
        if right[0] == "cgroup2":
            group = own.get("")
        elif right[0] == "cgroup" and controller in right[2].split(","):
            group = own.get(controller)
        else:
            continue
        mount = root / left[4].lstrip("/")
        inside = _below(group or "/", left[3])
        folder = mount / inside
        while True:
            yield folder
            if folder == mount or mount not in folder.parents:
                break
            folder = folder.parent


def _own_groups(root: Path, controller: str) -> dict[str, str]:
    """Controller -> path of this process's group; the unified hierarchy stands under ""."""
    groups: dict[str, str] = {}
    for line in _lines(root / "proc/self/cgroup"):
        parts = line.split(":", 2)
        if len(parts) == 3 and (parts[1] == "" or controller in parts[1].split(",")):
            groups["" if parts[1] == "" else controller] = parts[2]
    return groups


def _below(group: str, mounted: str) -> str:
    """The group's path below what is mounted; inside a container only a part of the tree is."""
    if mounted != "/" and (group == mounted or group.startswith(mounted + "/")):
        group = group[len(mounted) :]
    return "" if ".." in group.split("/") else group.lstrip("/")


def _quota(folder: Path) -> float | None:
    unified = _read(folder / "cpu.max").split()
    if len(unified) == 2 and unified[0].isdigit() and unified[1].isdigit():
        return int(unified[0]) / max(1, int(unified[1]))
    quota = _number(folder / "cpu.cfs_quota_us")
    period = _number(folder / "cpu.cfs_period_us")
    return quota / period if quota is not None and quota > 0 and period else None


def _working_set(folder: Path) -> int | None:
    """Bytes in use that the kernel cannot simply drop: pages of files go before anything is killed."""
    used = _number(folder / "memory.current", folder / "memory.usage_in_bytes")
    if used is None:
        return None
    statistics = dict(line.split()[:2] for line in _lines(folder / "memory.stat") if len(line.split()) >= 2)
    # Version 1 has a total_ of each for the group and those below it, version 2 counts these in.
    files = [
        statistics.get(f"total_{kind}", statistics.get(kind, "0"))
        for kind in ("inactive_file", "active_file")
    ]
    return max(0, used - sum(int(count) for count in files if count.isdigit()))


def _number(*paths: Path) -> int | None:
    for path in paths:
        try:
            return int(_read(path))
        except ValueError:
            continue
    return None


def _kilobytes(text: str | None) -> int | None:
    words = (text or "").split()
    return int(words[0]) * 1024 if words and words[0].isdigit() else None


def _fields(path: Path) -> dict[str, str]:
    """`name: value` lines; the first of each name."""
    found: dict[str, str] = {}
    for line in _lines(path):
        name, separator, value = line.partition(":")
        if separator:
            found.setdefault(name.strip(), value.strip())
    return found


def _lines(path: Path) -> list[str]:
    return _read(path).splitlines()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


@contextlib.contextmanager
def helpers_give_way(count: int, root: Path = _ROOT) -> Iterator[None]:
    """Of the threads that a library starts meanwhile, `count`, those of Python not among them, get a low priority.

    They then take only what nobody else wants of a processor. Where it cannot be told which they are (not on Linux, or
    others began at the same time) all stay as they are.
    """
    before = _threads(root)
    yield
    own = {thread.native_id or 0 for thread in threading.enumerate()}
    begun = _threads(root) - before - own
    if len(begun) == count:
        for thread in begun:
            with contextlib.suppress(OSError):  # Linux takes both calls as about one thread
                niceness = os.getpriority(os.PRIO_PROCESS, thread) + HELPER_NICENESS
                os.setpriority(os.PRIO_PROCESS, thread, min(19, niceness))


def _threads(root: Path) -> set[int]:
    try:
        return {int(entry.name) for entry in (root / "proc/self/task").iterdir()}
    except OSError:
        return set()


# glibc's mallopt parameters (malloc.h), and what they are set to.
_MALLOC_SETTINGS = (
    (-8, 1),  # M_ARENA_MAX: one heap for all threads instead of one a thread
    (-3, 256 << 10),  # M_MMAP_THRESHOLD: larger blocks go straight back to the system when freed
    (-1, 128 << 10),  # M_TRIM_THRESHOLD: so does free space at the end of the heap
)


def keep_heap_small() -> bool:
    """Tells glibc's allocator to give freed memory back; False where there is no glibc.

    Segments of ever new lengths otherwise leave holes: a ten-hour file peaked 5 % above a one-minute file, with
    these settings 2 % (docs/benchmarks/memory.md). Process-wide, so it is for programs to call, at their start.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all(mallopt(name, value) == 1 for name, value in _MALLOC_SETTINGS)

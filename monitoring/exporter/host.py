"""RAM, swap, pressure and disks of the host, from /proc (below --root) and statvfs; and the variant picked for it.

Kills are oom.py. All functions read afresh and keep nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from monitoring.exporter.errors import ReadingError

_PAGE = os.sysconf("SC_PAGE_SIZE")
_RESOURCES = ("cpu", "memory", "io")
_LARGEST_FILE = 1 << 20


@dataclass(frozen=True)
class HostReading:
    """Bytes and seconds; None, and no key, where the kernel does not tell. `pressure`: (resource, kind) -> seconds."""

    memory_total: int
    memory_available: int
    swap_total: int | None
    swap_free: int | None
    swap_in: int | None
    swap_out: int | None
    pressure: Mapping[tuple[str, str], float]


@dataclass(frozen=True)
class Disk:
    """A file system: size, and what users may still take, in bytes."""

    total: int
    free: int


@dataclass(frozen=True)
class Instance:
    """One instance that was picked: variant, and the GPU's uuid (empty: the CPU)."""

    variant: str
    gpu: str


def below(root: Path, path: str) -> Path:
    """A path of the host, seen from here."""
    return root / path.lstrip("/")


def read_text(path: Path) -> str:
    """A small file of the kernel or of ours.

    Raises:
        ReadingError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST_FILE).decode("utf-8", "replace")
    except OSError as error:
        raise ReadingError(
            f"{path} cannot be read ({error.strerror or error})",
            fix="Check that it is there and that the exporter's user may read it",
        ) from None


def read_vmstat(root: Path) -> dict[str, int]:
    """/proc/vmstat: name -> value."""
    found = {}
    for line in read_text(below(root, "/proc/vmstat")).splitlines():
        name, _, value = line.partition(" ")
        if value.isdigit():
            found[name] = int(value)
    return found


def _read_meminfo(root: Path) -> dict[str, int]:
    found = {}
    for line in read_text(below(root, "/proc/meminfo")).splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            found[name] = int(words[0]) * (1024 if words[1:] == ["kB"] else 1)
    return found


def _read_pressure(root: Path) -> dict[tuple[str, str], float]:
    """Seconds that tasks waited; empty where the kernel does not count (before 4.20, or psi=0)."""
    found: dict[tuple[str, str], float] = {}
    for resource in _RESOURCES:
        try:
            text = read_text(below(root, f"/proc/pressure/{resource}"))
        except ReadingError:
            continue
        for line in text.splitlines():
            kind, *fields = line.split() or [""]
            total = next((field[6:] for field in fields if field.startswith("total=")), "")
            if kind in {"some", "full"} and total.isdigit():
                found[resource, kind] = int(total) / 1e6
    return found


def read_host(root: Path) -> HostReading:
    """Memory, swap and pressure.

    Raises:
        ReadingError: /proc/meminfo cannot be read, or says nothing of memory.
    """
    memory = _read_meminfo(root)
    if "MemTotal" not in memory or "MemAvailable" not in memory:
        raise ReadingError(
            f"{below(root, '/proc/meminfo')} does not tell MemTotal and MemAvailable",
            fix="Check what is mounted there; --root must name a folder with the host's /proc",
        )
    try:
        vmstat = read_vmstat(root)
    except ReadingError:
        vmstat = {}
    swap_in, swap_out = vmstat.get("pswpin"), vmstat.get("pswpout")
    return HostReading(
        memory_total=memory["MemTotal"],
        memory_available=memory["MemAvailable"],
        swap_total=memory.get("SwapTotal"),
        swap_free=memory.get("SwapFree"),
        swap_in=None if swap_in is None else swap_in * _PAGE,
        swap_out=None if swap_out is None else swap_out * _PAGE,
        pressure=_read_pressure(root),
    )


def read_disks(root: Path, paths: Sequence[str]) -> dict[str, Disk]:
    """Path -> its file system.

    Raises:
        ReadingError: none of the paths is there; a single missing one has no entry.
    """
    found = {}
    missing = []
    for path in paths:
        try:
            told = os.statvfs(below(root, path))
        except OSError as error:
            missing.append(f"{path} ({error.strerror})")
            continue
        found[path] = Disk(told.f_blocks * told.f_frsize, told.f_bavail * told.f_frsize)
    if missing and not found:
        raise ReadingError(
            f"No disk can be measured: {', '.join(missing)}", fix="Give --disk a path that exists on the host"
        )
    return found


def read_variant(path: Path) -> list[Instance]:
    """What scripts/pick_variant.py decided for this host.

    Raises:
        ReadingError: the file is not there or is not the picker's.
    """
    try:
        instances = json.loads(read_text(path))["instances"]
        return [
            Instance(str(one["variant"]), str((one["device"] or {}).get("uuid") or "")) for one in instances
        ]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise ReadingError(
            f"{path} does not tell which variant was picked",
            fix="Write it again: python3 scripts/pick_variant.py, on the host",
        ) from None

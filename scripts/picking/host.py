"""A host's facts as checked objects: what probe_host.py wrote, as far as the rules read it.

Facts of another version, or of another kind, are refused with the place that does not fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.picking import shapes
from scripts.picking.errors import InputError
from scripts.picking.shapes import Choice, Fields, Pattern, check, read_json
from scripts.picking.table import version_of

FACTS_VERSION = 1
_TEXT, _NUMBER, _TRUTH = shapes.Optional(str), shapes.Optional(int), shapes.Optional(bool)
_DRIVER_VERSION = shapes.Optional(Pattern(r"\d{2,4}(\.\d+)*", 'a driver version such as "535.247.01"'))
_CARD = Fields(
    {
        "index": _NUMBER,
        "uuid": _TEXT,
        "pci_address": _TEXT,
        "pci_id": shapes.Optional(Pattern(r"[0-9a-f]{4}", 'a PCI device id such as "1f82"')),
        "name": _TEXT,
        "capability": shapes.Optional(Pattern(r"\d+\.\d", 'a compute capability such as "7.5"')),
        "kernel_driver": _TEXT,
        "state": Choice(("ready", "unreadable", "unlisted", "driverless")),
        "total_mib": _NUMBER,
        "reserved_mib": _NUMBER,
        "used_mib": _NUMBER,
        "free_mib": _NUMBER,
        "own_mib": int,
        "mig": shapes.Optional([Fields({"profile": str, "uuid": str, "total_mib": _NUMBER}, open=True)]),
    },
    open=True,
)
_SHAPE = Fields(
    {
        "facts_version": int,
        "system": Fields(
            {
                "architecture": str,
                "distribution": _TEXT,
                "distribution_name": _TEXT,
                "wsl": bool,
                "secure_boot": _TRUTH,
            },
            open=True,
        ),
        "cpu": Fields({"model": _TEXT, "cores": _NUMBER, "flags": [str]}, open=True),
        "memory": Fields({"total_mib": int, "available_mib": _NUMBER, "swap_mib": _NUMBER}, open=True),
        "disk": Fields({"path": str, "free_mib": _NUMBER}, open=True),
        "cgroup": _NUMBER,
        "containers": Fields(
            {
                "docker": _TEXT,
                "docker_installed": bool,
                "compose": _TEXT,
                "nvidia_runtime": bool,
                "nvidia_toolkit": _TEXT,
                "cdi": bool,
                "images": [str],
            },
            open=True,
        ),
        "driver": Fields(
            {
                "loaded": _DRIVER_VERSION,
                "flavour": shapes.Optional(Choice(("open", "proprietary"))),
                "installed": _DRIVER_VERSION,
                "signed": _TRUTH,
                "nouveau": bool,
                "smi": _TEXT,
            },
            open=True,
        ),
        "gpus": [_CARD],
        "problems": [str],
    },
    open=True,
)
_PLATFORMS = {
    "x86_64": "linux/amd64",
    "amd64": "linux/amd64",
    "aarch64": "linux/arm64",
    "arm64": "linux/arm64",
}


@dataclass(frozen=True)
class Gpu:
    """A card. `free` is what the service could take, in MiB: what it holds itself at present counts as free."""

    index: int | None
    uuid: str | None
    address: str | None
    device: int | None
    name: str | None
    capability: str | None
    kernel_driver: str | None
    state: str
    total: int | None
    free: int | None
    parts: tuple[Mapping[str, Any], ...] | None

    @property
    def label(self) -> str:
        """How sentences call it."""
        shown = self.name or (f"PCI id 10de:{self.device:04x}" if self.device is not None else "unknown card")
        return f"GPU {self.index} ({shown})" if self.index is not None else f"{shown} at {self.address}"


@dataclass(frozen=True)
class Driver:
    """The NVIDIA driver; `smi` says why nvidia-smi tells nothing, None when it does."""

    loaded: str | None
    flavour: str | None
    installed: str | None
    signed: bool | None
    smi: str | None

    @property
    def branch(self) -> int | None:
        """580 of "580.95.05"; None when none is loaded."""
        return version_of(self.loaded)[0] if self.loaded else None


@dataclass(frozen=True)
class Host:
    """A machine; memory and disk in MiB. `platform` is as images name it, None for one without images."""

    architecture: str
    platform: str | None
    distribution: str
    wsl: bool
    secure_boot: bool | None
    cpu_model: str
    cores: int | None
    flags: tuple[str, ...]
    ram: int
    ram_available: int | None
    swap: int
    disk_path: str
    disk_free: int | None
    cgroup: int | None
    containers: Mapping[str, Any]
    driver: Driver
    gpus: tuple[Gpu, ...]
    problems: tuple[str, ...]


def load_host(path: Path) -> Host:
    """Facts of a file.

    Raises:
        InputError: they cannot be read, are of another version, or do not fit; the place is in the message.
    """
    return host_of(read_json(path, "the facts file"), str(path))


def host_of(facts: Any, where: str) -> Host:
    """The same, for facts that were read already; `where` names them in messages."""
    version = facts.get("facts_version") if isinstance(facts, dict) else None
    if version != FACTS_VERSION or isinstance(version, bool):
        raise InputError(
            f"{where} holds facts of version {version!r}, and the picker reads version {FACTS_VERSION}",
            "Probe the host again with the probe_host.py beside this picker.",
        )
    check(facts, _SHAPE, where)
    system, cpu, memory = facts["system"], facts["cpu"], facts["memory"]
    driver = facts["driver"]
    return Host(
        architecture=system["architecture"],
        platform=_PLATFORMS.get(system["architecture"]),
        distribution=system["distribution_name"] or "unknown distribution",
        wsl=system["wsl"],
        secure_boot=system["secure_boot"],
        cpu_model=cpu["model"] or "unknown processor",
        cores=cpu["cores"],
        flags=tuple(cpu["flags"]),
        ram=memory["total_mib"],
        ram_available=memory["available_mib"],
        swap=memory["swap_mib"] or 0,
        disk_path=facts["disk"]["path"],
        disk_free=facts["disk"]["free_mib"],
        cgroup=facts["cgroup"],
        containers=facts["containers"],
        driver=Driver(
            loaded=driver["loaded"],
            flavour=driver["flavour"],
            installed=driver["installed"],
            signed=driver["signed"],
            smi=driver["smi"],
        ),
        gpus=tuple(_gpu(row) for row in facts["gpus"]),
        problems=tuple(facts["problems"]),
    )


def _gpu(row: Mapping[str, Any]) -> Gpu:
    return Gpu(
        index=row["index"],
        uuid=row["uuid"],
        address=row["pci_address"],
        device=int(row["pci_id"], 16) if row["pci_id"] else None,
        name=row["name"],
        capability=row["capability"],
        kernel_driver=row["kernel_driver"],
        state=row["state"],
        total=row["total_mib"],
        free=_free(row),
        parts=None if row["mig"] is None else tuple(row["mig"]),
    )


def _free(row: Mapping[str, Any]) -> int | None:
    """Never more than the card has, whatever was read."""
    total: int | None = row["total_mib"]
    free: int | None = row["free_mib"]
    if free is None and total is not None and row["used_mib"] is not None:
        free = max(0, total - row["used_mib"])
    if free is None or total is None:
        return None
    own: int = row["own_mib"]
    return min(total - (row["reserved_mib"] or 0), free + own)

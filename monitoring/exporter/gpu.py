"""GPUs as NVML tells of them: what there is, memory, Xid errors, and whose processes hold the memory.

NVML itself is called in a process of its own (nvml_process.py), which nvml_client.py keeps in check. A value that NVML
does not offer is None here and has no series.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monitoring.exporter.containers import SHORT_ID, container_of_pid
from monitoring.exporter.errors import NvmlError, ReadingError
from monitoring.exporter.host import below
from monitoring.exporter.names import HOST_CONTAINER, THROTTLE_REASONS, UNKNOWN_CONTAINER
from monitoring.exporter.nvml_client import NvmlClient, failure

_NVIDIA = "0x10de"
_DISPLAY = "0x03"  # class of a PCI device
_THROTTLE_BITS = dict(zip(THROTTLE_REASONS, (0x04, 0x08, 0x10, 0x20, 0x40, 0x80), strict=True))
_LOOK_AGAIN_SECONDS = 60.0
_ASK_AGAIN_SECONDS = 600.0


@dataclass(frozen=True)
class Gpu:
    """One GPU that answers: bytes, ratios of 0 to 1, degrees Celsius, watts, hertz."""

    index: int
    uuid: str
    info: Mapping[str, str]
    memory: Mapping[str, int]
    numbers: Mapping[str, float]
    clocks: Mapping[str, float]
    throttled: Mapping[str, bool]
    ecc: Mapping[str, int]


@dataclass(frozen=True)
class GpuReading:
    """`up`: index -> does it answer; `xids`: (uuid, xid) -> how often, and Unix time of the last."""

    gpus: tuple[Gpu, ...]
    up: Mapping[int, bool]
    xids: Mapping[tuple[str, int], tuple[int, float]]


@dataclass(frozen=True)
class GpuProcess:
    """A process with memory on a GPU, in bytes; `container` is a name, or one of those that no container can have."""

    uuid: str
    pid: int
    name: str
    container: str
    memory: int


def has_nvidia(root: Path) -> bool:
    """Whether the host has an NVIDIA card or its driver, with or without a working NVML."""
    if any(below(root, path).exists() for path in ("/dev/nvidiactl", "/dev/dxg", "/proc/driver/nvidia")):
        return True
    try:
        devices = list(below(root, "/sys/bus/pci/devices").iterdir())
    except OSError:
        return False
    return any(
        _word(path / "vendor") == _NVIDIA and _word(path / "class").startswith(_DISPLAY) for path in devices
    )


def _word(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


@dataclass
class GpuWatch:
    """Reads GPUs, and keeps what NVML tells only once: Xid errors.

    Args:
        root: below which /proc and /sys are.
        client: who asks NVML.
        name_of: container id -> name, None when it is not known.
        wanted: "on", "off", or "auto": only where there is an NVIDIA card.
    """

    root: Path
    client: NvmlClient
    name_of: Callable[[str], str | None]
    wanted: str = "auto"
    _xids: dict[tuple[str, int], tuple[int, float]] = field(default_factory=dict)
    _looked: float | None = None
    _found: bool = False
    _processes_failure: NvmlError | None = None
    _processes_not_before: float = 0.0

    def offered(self) -> bool:
        """Whether GPUs are to be read here; cards may come later (a module loaded, an eGPU)."""
        if self.wanted != "auto":
            return self.wanted == "on"
        now = time.monotonic()
        if self._looked is None or (not self._found and now - self._looked > _LOOK_AGAIN_SECONDS):
            self._looked, self._found = now, has_nvidia(self.root)
        return self._found

    def read(self) -> GpuReading:
        """All GPUs that answer.

        Raises:
            NvmlError: NVML tells nothing, or of none.
        """
        told = self.client.ask("gpus")
        for event in told["xids"]:
            key = str(event["uuid"]), int(event["xid"])
            self._xids[key] = self._xids.get(key, (0, 0.0))[0] + 1, time.time()
        listed = told["gpus"]
        gpus = tuple(_gpu_from(found, told["driver_version"]) for found in listed if "error" not in found)
        if listed and not gpus:
            why = failure(f"No GPU answers: {listed[0]['error']}", "no_gpu_answers")
            self.client.begin_anew(why)
            raise why
        up = {int(found["index"]): "error" not in found for found in listed}
        return GpuReading(gpus, up, dict(self._xids))

    def read_processes(self) -> list[GpuProcess]:
        """Who holds GPU memory; processes whose memory NVML does not tell (WSL) are left out.

        Raises:
            ReadingError: NVML does not tell of processes, or not of any GPU's.
        """
        if self._processes_failure is not None and time.monotonic() < self._processes_not_before:
            raise self._processes_failure
        try:
            listed = self.client.ask("processes")["gpus"]
        except NvmlError as error:
            if error.code in {"hang", "died"}:  # this question alone may do it: the other one need not suffer
                self._processes_failure = error
                self._processes_not_before = time.monotonic() + _ASK_AGAIN_SECONDS
                self.client.begin_anew()
            raise
        good = [found for found in listed if "error" not in found]
        if listed and not good:
            raise ReadingError(
                f"NVML does not tell which processes use the GPU: {listed[0]['error']}",
                fix="Compare with nvidia-smi on the host; the rest of the GPU's series is not touched",
            )
        return [
            GpuProcess(str(found["uuid"]), int(pid), *self._identify(int(pid)), int(memory))
            for found in good
            for pid, memory in found["processes"].items()
            if memory is not None
        ]

    def _identify(self, pid: int) -> tuple[str, str]:
        """Name of the program and of the container."""
        try:
            name = below(self.root, f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
            container = container_of_pid(self.root, pid)
        except OSError:
            return "", UNKNOWN_CONTAINER
        if container is None:
            return name, HOST_CONTAINER
        return name, self.name_of(container) or container[:SHORT_ID]


def _gpu_from(told: Mapping[str, Any], driver: str | None) -> Gpu:
    reasons = told["throttling"]
    numbers = {
        "utilization": _scaled(told["utilization_percent"], 0.01),
        "temperature": _scaled(told["temperature_celsius"], 1.0),
        "power": _scaled(told["power_milliwatts"], 0.001),
        "power_limit": _scaled(told["power_limit_milliwatts"], 0.001),
        "pcie_generation": _scaled(told["pcie_generation"], 1.0),
        "pcie_width": _scaled(told["pcie_width"], 1.0),
    }
    return Gpu(
        index=int(told["index"]),
        uuid=str(told["uuid"]),
        info={
            "name": str(told["name"] or ""),
            "driver_version": str(driver or ""),
            "compute_capability": str(told["compute_capability"] or ""),
            "pci_bus_id": str(told["pci_bus_id"] or ""),
        },
        memory={name: int(value) for name, value in told["memory"].items()},
        numbers={name: value for name, value in numbers.items() if value is not None},
        clocks={name: value * 1e6 for name, value in told["clocks_megahertz"].items() if value is not None},
        throttled={}
        if reasons is None
        else {name: bool(reasons & bit) for name, bit in _THROTTLE_BITS.items()},
        ecc={kind: int(value) for kind, value in told["ecc"].items() if value is not None},
    )


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor

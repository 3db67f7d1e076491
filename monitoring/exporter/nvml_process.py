"""The process that asks NVML, so that a driver which hangs can be left behind: it is killed, the exporter lives on.

    python -m monitoring.exporter.nvml_process

One line of JSON after the start ({"ready": ...} or {"error": ...}), then one for each line of input: "gpus" or
"processes". What NVML does not offer is left out. It ends with its input. Nothing here interprets; that is gpu.py.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from typing import Any

import pynvml

from monitoring.exporter.heap import give_back

_LONGEST_REQUEST_SECONDS = 60  # the kernel ends a process that nobody is left to kill
_CLOCKS = {"graphics": 0, "sm": 1, "memory": 2, "video": 3}
_XID = 8  # nvmlEventTypeXidCriticalError
_MOST_EVENTS = 1000
_MEMORY_V2 = pynvml.nvmlMemory_v2


def optional(function: Callable[..., Any], *arguments: Any) -> Any:
    """What NVML says; None when it does not offer this here."""
    try:
        return function(*arguments)
    except pynvml.NVMLError:
        return None


def read_memory(handle: Any) -> dict[str, int]:
    """Bytes. The second version tells the driver's own share apart; where it fails (WSL), the first has it in used."""
    try:
        told = pynvml.nvmlDeviceGetMemoryInfo(handle, version=_MEMORY_V2)
        return {"total": told.total, "used": told.used, "free": told.free, "reserved": told.reserved}
    except pynvml.NVMLError:
        told = pynvml.nvmlDeviceGetMemoryInfo(handle)
        return {"total": told.total, "used": told.used, "free": told.free}


def read_throttling(handle: Any) -> int | None:
    """The bits of what holds the clock down; libraries before 12.2 know them by another name."""
    found: int | None = optional(pynvml.nvmlDeviceGetCurrentClocksEventReasons, handle)
    if found is None:
        found = optional(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle)
    return found


def read_gpu(handle: Any) -> dict[str, Any]:
    """One GPU; keys whose value is None are not offered.

    Raises:
        NVMLError: it does not answer.
    """
    found: dict[str, Any] = {"uuid": pynvml.nvmlDeviceGetUUID(handle), "memory": read_memory(handle)}
    capability = optional(pynvml.nvmlDeviceGetCudaComputeCapability, handle)
    pci = optional(pynvml.nvmlDeviceGetPciInfo, handle)
    utilization = optional(pynvml.nvmlDeviceGetUtilizationRates, handle)
    found["name"] = optional(pynvml.nvmlDeviceGetName, handle)
    found["compute_capability"] = None if capability is None else f"{capability[0]}.{capability[1]}"
    found["pci_bus_id"] = None if pci is None else _text(pci.busId)
    found["utilization_percent"] = None if utilization is None else utilization.gpu
    found["temperature_celsius"] = optional(pynvml.nvmlDeviceGetTemperature, handle, 0)
    found["power_milliwatts"] = optional(pynvml.nvmlDeviceGetPowerUsage, handle)
    found["power_limit_milliwatts"] = optional(pynvml.nvmlDeviceGetEnforcedPowerLimit, handle)
    found["clocks_megahertz"] = {
        name: optional(pynvml.nvmlDeviceGetClockInfo, handle, number) for name, number in _CLOCKS.items()
    }
    found["throttling"] = read_throttling(handle)
    found["ecc"] = {  # 1: over the card's life, 0: since the driver was loaded
        "corrected": optional(pynvml.nvmlDeviceGetTotalEccErrors, handle, 0, 1),
        "uncorrected": optional(pynvml.nvmlDeviceGetTotalEccErrors, handle, 1, 1),
    }
    found["pcie_generation"] = optional(pynvml.nvmlDeviceGetCurrPcieLinkGeneration, handle)
    found["pcie_width"] = optional(pynvml.nvmlDeviceGetCurrPcieLinkWidth, handle)
    return found


def read_processes(handle: Any) -> dict[str, Any]:
    """Memory by process of one GPU: pid -> bytes, None where the driver does not tell (WSL).

    Raises:
        NVMLError: the list is not to be had: neither of computing nor of drawing processes.
    """
    found: dict[int, int | None] = {}
    lists = [pynvml.nvmlDeviceGetComputeRunningProcesses(handle)]
    drawing = optional(pynvml.nvmlDeviceGetGraphicsRunningProcesses, handle)
    for process in [*lists[0], *(drawing or ())]:
        known = found.get(process.pid)
        told = process.usedGpuMemory
        found[process.pid] = told if known is None or (told is not None and told > known) else known
    return {"uuid": pynvml.nvmlDeviceGetUUID(handle), "processes": found}


class Xids:
    """Xid errors as the driver reports them; none where it reports none (WSL)."""

    def __init__(self) -> None:
        self._events: Any = optional(pynvml.nvmlEventSetCreate)
        self._registered: set[int] = set()

    def register(self, index: int, handle: Any) -> None:
        """From now on, errors of this GPU are queued."""
        if self._events is not None and index not in self._registered:
            self._registered.add(index)
            optional(pynvml.nvmlDeviceRegisterEvents, handle, _XID, self._events)

    def drain(self) -> list[dict[str, Any]]:
        """What was queued: uuid and xid of each."""
        found = []
        for _ in range(_MOST_EVENTS if self._registered else 0):
            event = optional(pynvml.nvmlEventSetWait_v2, self._events, 0)
            if event is None:
                break
            uuid = optional(pynvml.nvmlDeviceGetUUID, event.device)
            if event.eventType == _XID and uuid:
                found.append({"uuid": uuid, "xid": event.eventData})
        return found


def answer(request: str, xids: Xids) -> dict[str, Any]:
    """What was asked for, GPU by GPU; one that does not answer has its error in place of its data."""
    driver = optional(pynvml.nvmlSystemGetDriverVersion) if request == "gpus" else None
    read = read_gpu if request == "gpus" else read_processes
    gpus: list[dict[str, Any]] = []
    for index in range(pynvml.nvmlDeviceGetCount()):
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            xids.register(index, handle)
            gpus.append({"index": index, **read(handle)})
        except pynvml.NVMLError as error:
            gpus.append({"index": index, **describe(error)})
    if request != "gpus":
        return {"gpus": gpus}
    return {"driver_version": driver, "gpus": gpus, "xids": xids.drain()}


def describe(error: pynvml.NVMLError) -> dict[str, Any]:
    """An NVML error, as data."""
    return {"error": str(error), "number": int(error.value)}


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _say(told: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(told, separators=(",", ":"), default=_text) + "\n")
    sys.stdout.flush()


def main() -> int:
    """Serves requests until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the exporter, which then ends the input
    signal.alarm(_LONGEST_REQUEST_SECONDS)
    try:
        pynvml.nvmlInit()
        xids = Xids()
    except pynvml.NVMLError as error:
        _say(describe(error))
        return 1
    give_back()
    _say({"ready": True})
    signal.alarm(0)
    for line in sys.stdin:
        signal.alarm(_LONGEST_REQUEST_SECONDS)
        try:
            _say(answer(line.strip(), xids))
        except pynvml.NVMLError as error:
            _say(describe(error))
        signal.alarm(0)
    return 0


if __name__ == "__main__":
    sys.exit(main())

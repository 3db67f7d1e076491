"""A host with a 2 GiB card, made of files: kernel.py's /proc and /sys, docker_socket.py's Docker, a capture for nvml/.

It lives through a story, so that every graph has something to show: the service loads and works, a desktop program
takes more and more of the card, the card gets hot, an Xid comes, the kernel kills in a container.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.fakes.docker_socket import FakeDocker
from tests.fakes.kernel import FakeKernel

MIB = 1 << 20
UUID = "GPU-5f1c2d3e-0000-4000-8000-0000000000fa"
SERVICE, DESKTOP = "asr-service", "desktop"
TOTAL, RESERVED, OTHERS = 2048 * MIB, 60 * MIB, 440 * MIB
_PIDS = {SERVICE: 4242, DESKTOP: 4343}


class _Kernel(FakeKernel):
    """Files are replaced at once, as the kernel's are: a reader never sees half of one."""

    def write(self, path: str, text: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{file.name}")
        partial.write_text(text, encoding="utf-8")
        return partial.replace(file)


class FakeGpuHost:
    """Files below `root`, the capture in `capture`; `at(part)` moves the story to a part of 0 to 1."""

    def __init__(self, folder: Path) -> None:
        self.root, self.capture = folder / "root", folder / "nvml.txt"
        self._kernel, self._kills = _Kernel(self.root), -1
        for name, pid in _PIDS.items():
            self._kernel.process(pid, name, name)
        (self.root / "run").mkdir()
        self._docker = FakeDocker(self.root / "run" / "docker.sock")
        self._docker.knows(*_PIDS)
        self.variant = folder / "variant-gpu.json"
        self.variant.write_text(
            json.dumps({"instances": [{"variant": "cuda-fp16", "device": {"uuid": UUID}}]})
        )
        self.at(0.0)

    def at(self, part: float) -> None:
        """Writes what is to be seen at this part of the story."""
        kernel, kills = self._kernel, 1 if part > 0.6 else 0
        if kills != self._kills:
            kernel.kills(SERVICE, 0)
            kernel.kills(DESKTOP, kills)
            self._kills = kills
        kernel.write(
            "proc/meminfo",
            f"MemTotal: 8000000 kB\nMemAvailable: {int(5_000_000 - 4_000_000 * part)} kB\n"
            f"SwapTotal: 2000000 kB\nSwapFree: {int(2_000_000 - 900_000 * part)} kB\n",
        )
        kernel.vmstat(pswpin=int(9_000 * part), pswpout=int(220_000 * part), oom_kill=kills)
        for resource, seconds in (("cpu", 30.0), ("memory", 8.0), ("io", 4.0)):
            some, full = int(seconds * part * 1e6), int(seconds * part * 4e5)
            averages = "avg10=0.00 avg60=0.00 avg300=0.00"
            kernel.write(
                f"proc/pressure/{resource}", f"some {averages} total={some}\nfull {averages} total={full}\n"
            )
        self._tell_nvml(part)

    def _tell_nvml(self, part: float) -> None:
        desktop = int((200 + 600 * part) * MIB)
        service = int((560 + 120 * min(1.0, 3 * part)) * MIB)
        used = desktop + service + OTHERS
        lines = [
            "driver 580.95.05",
            *(["xid 0 31"] if part > 0.3 else []),  # a program's fault, and no alarm
            "gpu",
            f"uuid {UUID}",
            "name NVIDIA GeForce GTX 1650",
            "pci 00000000:01:00.0",
            "compute 7 5",
            f"memory {TOTAL} {RESERVED} {used} {TOTAL - RESERVED - used}",
            f"utilization {int(20 + 70 * min(1.0, 2 * part))}",
            f"temperature {int(48 + 40 * part)}",
            f"power {int(30_000 + 42_000 * part)}",
            "power_limit 75000",
            f"clock 0 {1500 if part < 0.7 else 1140}",
            f"throttling {0x20 if part > 0.7 else 0}",
            f"compute_process {_PIDS[SERVICE]} {service}",
            f"graphics_process {_PIDS[DESKTOP]} {desktop}",
        ]
        partial = self.capture.with_suffix(".partial")  # a reader never sees half of it
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
        partial.replace(self.capture)

    def close(self) -> None:
        """Ends its Docker."""
        self._docker.close()

"""What machine and which versions a benchmark ran on, without anything that names the host."""

from __future__ import annotations

import datetime as dt
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

TELLING_FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "amx_bf16")
PACKAGES = ("numpy", "onnxruntime", "av", "torch", "funasr", "funasr-onnx", "sherpa-onnx")


def describe(pythons: dict[str, Path]) -> dict[str, Any]:
    """Describe processor, memory, kernel and the packages of each environment (name -> its python)."""
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    fields = {
        name.strip(): value.strip()
        for name, colon, value in (line.partition(":") for line in cpuinfo.splitlines())
        if colon
    }
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    memory = Path("/proc/meminfo").read_text(encoding="utf-8").split()
    return {
        "date": dt.datetime.now(dt.timezone.utc).date().isoformat(),
        "processor": fields.get("model name", platform.machine()),
        "instructions": [flag for flag in TELLING_FLAGS if flag in flags],
        "cores": granted_cores(),
        "memory_gib": round(int(memory[1]) / 2**20, 1),
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
        "load_average_at_start": round(os.getloadavg()[0], 2),
        "packages": {name: versions(python) for name, python in pythons.items()},
    }


def granted_cores() -> int:
    """Cores this process may use: its affinity, cut by the quota of its control group."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
        return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):
        return cores


def versions(python: Path) -> dict[str, str]:
    """Versions of the telling packages of one environment."""
    code = (
        "import importlib.metadata as m, sys\n"
        "for name in sys.argv[1:]:\n"
        "    try: print(name, m.version(name))\n"
        "    except m.PackageNotFoundError: pass\n"
    )
    done = subprocess.run([python, "-c", code, *PACKAGES], capture_output=True, text=True, check=True)
    return dict(line.split() for line in done.stdout.splitlines())

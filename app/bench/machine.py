"""The machine that figures were measured on, in words that name neither the host nor its user."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from typing import Any

from app.asr.host import cpu_features, cpu_grant, memory_grant

_PACKAGES = ("numpy", "onnxruntime", "torch", "av", "kaldi-native-fbank")
# Settings of the environment that change what is measured.
_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "PYTORCH_CUDA_ALLOC_CONF")
_QUERY = ("--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits")


def describe() -> dict[str, Any]:
    """Processor, memory, GPUs, versions and the hour; plain values, ready for JSON."""
    processor, grant, memory = cpu_features(), cpu_grant(), memory_grant()
    sets = {"AVX2": processor.avx2, "AVX-512": processor.avx512, "int8 dot product": processor.int8_dot}
    return {
        "date": dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": processor.model,
        "instructions": [name for name, there in sets.items() if there],
        "cores": grant.cores,
        "cores_reason": grant.reason,
        "memory_bytes": memory.total,
        "memory_limit_bytes": memory.limit,
        "memory_available_bytes": memory.available,
        "gpus": gpus(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "packages": _versions(_PACKAGES),
        "environment": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "load_average": round(os.getloadavg()[0], 2),
    }


def gpus() -> list[str]:
    """Each GPU that the NVIDIA driver knows, as "name, n MiB, driver x"; empty without a driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        done = subprocess.run(
            [program, *_QUERY], capture_output=True, text=True, timeout=30, check=False, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    if done.returncode:
        return []
    lines = ([part.strip() for part in line.split(",")] for line in done.stdout.splitlines())
    return [f"{parts[0]}, {parts[1]} MiB, driver {parts[2]}" for parts in lines if len(parts) == 3]


def _versions(packages: Sequence[str]) -> dict[str, str]:
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found

"""What the host grants, read from laid-out /proc and /sys trees."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from app.asr.host import (
    HELPER_NICENESS,
    CpuGrant,
    MemoryGrant,
    cpu_features,
    cpu_grant,
    helpers_give_way,
    memory_grant,
    nvidia_driver,
    peak_rss_bytes,
)

GIB = 1 << 30
V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n"
V1_MOUNTS = (
    "31 30 0:27 /docker/abc /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "32 30 0:28 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
)


def lay_out(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def meminfo(total: int = 8 * GIB, available: int = 6 * GIB) -> dict[str, str]:
    return {
        "proc/meminfo": f"MemTotal: {total // 1024} kB\nMemFree: 1 kB\nMemAvailable: {available // 1024} kB\n"
    }


def v2(own: str, groups: dict[str, str]) -> dict[str, str]:
    files = {"proc/self/cgroup": f"0::{own}\n", "proc/self/mountinfo": V2_MOUNT}
    return files | {f"sys/fs/cgroup/{name}": content for name, content in groups.items()}


def test_no_control_groups(tmp_path: Path) -> None:
    grant = cpu_grant(lay_out(tmp_path, meminfo()))
    assert grant.quota is None and grant.machine == os.cpu_count()
    assert grant.affinity == len(os.sched_getaffinity(0))
    assert memory_grant(tmp_path) == MemoryGrant(8 * GIB, 6 * GIB, None, None)
    assert memory_grant(tmp_path).available == 6 * GIB


def test_nothing_readable(tmp_path: Path) -> None:
    assert memory_grant(tmp_path).available is None
    assert cpu_features(tmp_path).flags == frozenset()
    assert peak_rss_bytes(tmp_path) > 1 << 20


def test_version_2_container(tmp_path: Path) -> None:
    groups = {
        "cpu.max": "150000 100000\n",
        "memory.max": f"{GIB}\n",
        "memory.current": f"{700 << 20}\n",
        "memory.stat": f"anon 1\ninactive_file {200 << 20}\nactive_file {100 << 20}\n",
    }
    lay_out(tmp_path, v2("/", groups) | meminfo())
    assert cpu_grant(tmp_path).quota == 1.5
    grant = memory_grant(tmp_path)
    assert (grant.limit, grant.used_of_limit, grant.available) == (GIB, 400 << 20, GIB - (400 << 20))


def test_version_2_takes_the_tightest_level(tmp_path: Path) -> None:
    groups = {
        "a/cpu.max": "100000 100000",
        "a/b/cpu.max": "max 100000",
        "a/b/memory.max": "max",
        "a/memory.max": str(2 * GIB),
        "a/memory.current": "0",
        "memory.max": str(3 * GIB),
    }
    lay_out(tmp_path, v2("/a/b", groups) | meminfo())
    assert cpu_grant(tmp_path).quota == 1.0
    assert memory_grant(tmp_path).limit == 2 * GIB


def test_version_1_container_sees_only_its_part_of_the_tree(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n1:name=systemd:/docker/abc\n",
        "proc/self/mountinfo": V1_MOUNTS,
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": str(GIB),
        "sys/fs/cgroup/memory/memory.usage_in_bytes": str(GIB // 2),
        "sys/fs/cgroup/memory/memory.stat": "inactive_file 1\nactive_file 1\n"
        f"total_inactive_file {GIB // 8}\ntotal_active_file {GIB // 8}\n",
    }
    lay_out(tmp_path, files | meminfo())
    assert cpu_grant(tmp_path).quota == 0.5
    assert memory_grant(tmp_path).available == GIB - GIB // 4


def test_version_1_without_limits(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "5:cpu,cpuacct:/\n4:memory:/\n",
        "proc/self/mountinfo": V1_MOUNTS.replace("/docker/abc", "/"),
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "1",
    }
    lay_out(tmp_path, files | meminfo())
    assert cpu_grant(tmp_path).quota is None
    assert memory_grant(tmp_path).limit is None


def test_the_busier_of_machine_and_container_counts() -> None:
    assert MemoryGrant(8 * GIB, GIB, 4 * GIB, 2 * GIB).available == GIB
    assert MemoryGrant(8 * GIB, 6 * GIB, GIB, 2 * GIB).available == 0


@pytest.mark.parametrize(
    ("machine", "affinity", "quota", "cores", "told"),
    [
        (8, 8, None, 8, "all processors"),
        (8, 4, None, 4, "4 of 8"),
        (8, 8, 2.0, 2, "quota is 2 of 8"),
        (8, 8, 1.5, 2, "quota is 1.5"),
        (8, 8, 1.4, 1, "quota is 1.4"),
        (8, 8, 0.1, 1, "quota is 0.1"),
        (8, 2, 6.0, 2, "2 of 8"),
    ],
)
def test_granted_cores(machine: int, affinity: int, quota: float | None, cores: int, told: str) -> None:
    grant = CpuGrant(machine, affinity, quota)
    assert grant.cores == cores
    assert told in grant.reason


@pytest.mark.parametrize(
    ("flags", "avx2", "avx512", "int8"),
    [
        ("flags\t: fpu sse2", False, False, False),
        ("flags\t: avx2 fma", True, False, False),
        ("flags\t: avx2 avx512f avx512_vnni", True, True, True),
        ("flags\t: avx2 avx_vnni", True, False, True),
        ("Features\t: fp asimd asimddp", False, False, True),
    ],
)
def test_processor(tmp_path: Path, flags: str, avx2: bool, avx512: bool, int8: bool) -> None:
    entry = f"processor\t: 0\nmodel name\t: Some CPU @ 2.0GHz\n{flags}\n\n"
    features = cpu_features(lay_out(tmp_path, {"proc/cpuinfo": entry + entry.replace("Some", "Other")}))
    assert features.model == "Some CPU @ 2.0GHz"
    assert (features.avx2, features.avx512, features.int8_dot) == (avx2, avx512, int8)


def test_peak_memory_is_the_high_water_mark(tmp_path: Path) -> None:
    lay_out(tmp_path, {"proc/self/status": "Name:\tx\nVmRSS:\t  100 kB\nVmHWM:\t  250 kB\n"})
    assert peak_rss_bytes(tmp_path) == 250 * 1024


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_freed_memory_goes_back_to_the_system() -> None:
    script = """
import resource
from app.asr.host import keep_heap_small
assert keep_heap_small()
first = bytearray(4_000_000)
del first  # by default this teaches glibc to keep blocks of such sizes in its heap
blocks = [bytearray(400_000) for _ in range(200)]
holders = blocks[::2]
del blocks
pages = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
print(pages)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert int(done.stdout) < 70e6, "blocks between others were kept"


def test_the_nvidia_driver_is_read_where_it_is_loaded(tmp_path: Path) -> None:
    assert nvidia_driver(tmp_path) is None
    text = (
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.247.01  Mon Mar  3 2025\nGCC version: 12.2.0\n"
    )
    lay_out(tmp_path, {"proc/driver/nvidia/version": text})
    assert nvidia_driver(tmp_path) == "535.247.01"
    text = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n"
    lay_out(tmp_path, {"proc/driver/nvidia/version": text})
    assert nvidia_driver(tmp_path) == "580.65.06"
    lay_out(tmp_path, {"sys/module/nvidia/version": "550.163.01\n"})
    assert nvidia_driver(tmp_path) == "550.163.01"


def _native_threads(count: int) -> None:
    """Threads that Python does not know, as a library's are; they sleep for some seconds."""
    libc = ctypes.CDLL(None)
    for _ in range(count):
        handle = ctypes.c_ulong()
        libc.pthread_create(ctypes.byref(handle), None, libc.sleep, ctypes.c_void_p(5))


def _niceness() -> dict[int, int]:
    found = {}
    for entry in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # it has just ended
            found[int(entry.name)] = os.getpriority(os.PRIO_PROCESS, int(entry.name))
    return found


@pytest.mark.parametrize(("told", "nicer"), [(2, HELPER_NICENESS), (3, 0), (1, 0)])
def test_threads_of_a_library_give_way_where_it_is_known_which_they_are(told: int, nicer: int) -> None:
    before = _niceness()
    done = threading.Event()
    with helpers_give_way(told):
        own = threading.Thread(target=done.wait)
        own.start()
        _native_threads(2)
    after = _niceness()
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    assert after[own.native_id or 0] == usual, "it is Python's"
    done.set()
    own.join()
    new = {thread: nice for thread, nice in after.items() if thread not in before and thread != own.native_id}
    assert list(new.values()) == [min(19, usual + nicer)] * 2
    assert {thread: after[thread] for thread in before if thread in after}.items() <= before.items()


def test_where_threads_are_not_listed_they_stay_as_they_are(tmp_path: Path) -> None:
    before = _niceness()
    with helpers_give_way(1, tmp_path):
        _native_threads(1)
    assert [nice for thread, nice in _niceness().items() if thread not in before] == [
        os.getpriority(os.PRIO_PROCESS, 0)
    ]

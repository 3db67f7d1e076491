"""Memory, swap, pressure, disks and the picked variant, from fake trees and from this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from monitoring.exporter.errors import ReadingError
from monitoring.exporter.host import Instance, read_disks, read_host, read_variant
from tests.fakes.kernel import FakeKernel

ROOT = Path(__file__).resolve().parents[2]
PAGE = os.sysconf("SC_PAGE_SIZE")
MIB = 1 << 20


def test_memory_and_swap_in_bytes(tmp_path: Path) -> None:
    kernel = FakeKernel(tmp_path)
    kernel.vmstat(pswpin=10, pswpout=20, oom_kill=0)
    kernel.write(
        "proc/pressure/memory", "some avg10=0.00 avg60=1.00 avg300=0.50 total=2500000\nfull avg10=0 total=1\n"
    )
    read = read_host(tmp_path)
    assert (read.memory_total, read.memory_available) == (2048 * MIB, 512 * MIB)
    assert (read.swap_total, read.swap_free) == (1024 * MIB, 768 * MIB)
    assert (read.swap_in, read.swap_out) == (10 * PAGE, 20 * PAGE)
    assert dict(read.pressure) == {("memory", "some"): 2.5, ("memory", "full"): 1e-6}


def test_what_a_kernel_does_not_tell_is_absent(tmp_path: Path) -> None:
    kernel = FakeKernel(tmp_path)
    kernel.write("proc/meminfo", "MemTotal: 1024 kB\nMemAvailable: 512 kB\n")
    (tmp_path / "proc/vmstat").unlink()
    read = read_host(tmp_path)
    assert read.memory_total == MIB
    assert (read.swap_total, read.swap_in) == (None, None)
    assert not read.pressure


@pytest.mark.parametrize(
    "garbage", ["", "\x00\xff", "MemTotal:\n", "MemTotal: many kB\nMemAvailable: 1 kB\n"]
)
def test_a_meminfo_of_garbage_is_no_reading(tmp_path: Path, garbage: str) -> None:
    FakeKernel(tmp_path).write("proc/meminfo", garbage)
    with pytest.raises(ReadingError, match="MemTotal"):
        read_host(tmp_path)


def test_garbage_in_pressure_is_left_out(tmp_path: Path) -> None:
    kernel = FakeKernel(tmp_path)
    kernel.write("proc/pressure/cpu", "\nsome\nsome total=x\nother total=5\n\x00")
    assert not read_host(tmp_path).pressure


def test_no_proc_at_all(tmp_path: Path) -> None:
    with pytest.raises(ReadingError, match="No such file"):
        read_host(tmp_path)


def test_this_machine() -> None:
    read = read_host(Path("/"))
    assert 0 < read.memory_available < read.memory_total


def test_disks(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    disks = read_disks(tmp_path, ["/models", "/not there"])
    assert list(disks) == ["/models"]
    assert 0 < disks["/models"].free <= disks["/models"].total
    with pytest.raises(ReadingError, match="/not there"):
        read_disks(tmp_path, ["/not there"])


def verdict(*instances: dict) -> str:
    return json.dumps({"verdict_version": 1, "instances": list(instances)})


def test_the_picked_variant(tmp_path: Path) -> None:
    file = tmp_path / "verdict.json"
    gpu = {"index": 0, "uuid": "GPU-1", "cdi": "nvidia.com/gpu=0"}
    file.write_text(verdict({"variant": "cuda-fp16", "device": gpu}, {"variant": "cpu", "device": None}))
    assert read_variant(file) == [Instance("cuda-fp16", "GPU-1"), Instance("cpu", "")]
    file.write_text(verdict())
    assert read_variant(file) == []


@pytest.mark.parametrize("host", ["cpu-1g", "a2000-6g", "cpu-512m"])
def test_what_the_real_picker_writes(tmp_path: Path, host: str) -> None:
    facts = ROOT / "tests" / "captures" / f"{host}.json"
    command = [sys.executable, str(ROOT / "scripts" / "pick_variant.py"), "--json", "--facts", str(facts)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    file = tmp_path / "verdict.json"
    file.write_text(done.stdout)
    instances = json.loads(done.stdout)["instances"]
    picked = [(one["variant"], (one["device"] or {}).get("uuid") or "") for one in instances]
    assert [(one.variant, one.gpu) for one in read_variant(file)] == picked


@pytest.mark.parametrize(
    "garbage", ["", "{", "[]", "null", "{}", '{"instances": 7}', '{"instances": [{}]}', "[" * 99_999]
)
def test_a_file_that_the_picker_did_not_write(tmp_path: Path, garbage: str) -> None:
    file = tmp_path / "verdict.json"
    file.write_text(garbage)
    with pytest.raises(ReadingError, match=r"pick_variant\.py"):
        read_variant(file)
    with pytest.raises(ReadingError, match="cannot be read"):
        read_variant(tmp_path / "not there")

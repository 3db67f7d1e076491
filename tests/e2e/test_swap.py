"""Real swap on real ext4, xfs and btrfs, in loop-mounted files: made, grown, mended and taken away by the swap module.

Needs root and loop devices, as CI has them; where the kernel refuses one, the reason is told.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.packages import need
from tests.support.playbooks import ANSIBLE, ROOT, module

PATH = "roles/swap/library/swap_file.py"
swap_file = module(PATH)
PYTHON = ROOT / ".venv-ops" / "bin" / "python"
MAKERS = {"ext4": "e2fsprogs", "xfs": "xfsprogs", "btrfs": "btrfs-progs"}
SIZE = 40  # MiB
FSTAB = "# a comment\nUUID=1 / ext4 defaults 0 1\n/other none swap sw 0 0\n"


@contextmanager
def mounted(kind: str, folder: Path) -> Iterator[Path]:
    need({f"mkfs.{kind}": MAKERS[kind]})
    image, place = folder / "image", folder / "place"
    with image.open("wb") as file:
        file.truncate(400 << 20)
    place.mkdir()
    subprocess.run([f"mkfs.{kind}", "-q", image], check=True, capture_output=True)
    done = subprocess.run(["mount", "-o", "loop", image, place], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this machine mounts no {kind} from a file: {done.stderr.strip()}")
    try:
        yield place
    finally:
        for path in place.glob("*swap*"):
            subprocess.run(["swapoff", path], check=False, capture_output=True)
        subprocess.run(["umount", place], check=True)


def ask(folder: Path, path: Path, *, check: bool = False, **more: Any) -> dict[str, Any]:
    """Runs the module as Ansible does: a process, arguments on standard input, an answer in JSON."""
    arguments = {
        "path": str(path),
        "size_mib": SIZE,
        "fstab": str(folder / "fstab"),
        "spare_mib": 10,
        "allow_container": True,
        "_ansible_check_mode": check,
        **more,
    }
    done = subprocess.run(
        [PYTHON, ANSIBLE / PATH],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        capture_output=True,
        text=True,
        check=False,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def active(path: Path) -> int:
    """MiB of swap there, 0 when there is none."""
    return int(swap_file.active_swaps(Path("/proc/swaps").read_text()).get(str(path), (0, 0))[0])


needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can mount file systems and swap")


@needs_root
@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_swap_from_nothing_to_active_and_back(kind: str, tmp_path: Path) -> None:
    with mounted(kind, tmp_path) as place:
        path, fstab = place / "swap", tmp_path / "fstab"
        fstab.write_text(FSTAB)
        told = ask(tmp_path, path, check=True)
        assert told["changed"] and not path.exists() and fstab.read_text() == FSTAB

        made = ask(tmp_path, path)
        assert made["changed"], made
        assert active(path) == SIZE
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.stat().st_blocks * 512 >= SIZE << 20, "swap must have no holes"
        assert fstab.read_text() == FSTAB + f"{path} none swap sw 0 0\n"
        assert not ask(tmp_path, path)["changed"]
        assert not ask(tmp_path, path, check=True)["changed"]

        assert ask(tmp_path, path, size_mib=SIZE * 2)["changed"]
        assert active(path) == SIZE * 2

        assert ask(tmp_path, path, state="absent")["changed"]
        assert not active(path) and not path.exists() and fstab.read_text() == FSTAB
        assert not ask(tmp_path, path, state="absent")["changed"]


@needs_root
def test_what_a_killed_run_left_is_mended(tmp_path: Path) -> None:
    """Killed while writing, before swapon, and before the line in fstab; and a file that others could read."""
    with mounted("ext4", tmp_path) as place:
        path = place / "swap"
        (tmp_path / "fstab").write_text(FSTAB)
        (place / "swap.new").write_bytes(b"half")
        path.write_bytes(b"\0" * (SIZE << 20))
        assert ask(tmp_path, path)["changed"]
        assert active(path) == SIZE and not (place / "swap.new").exists()
        subprocess.run(["swapoff", path], check=True)
        (tmp_path / "fstab").write_text(FSTAB)
        path.chmod(0o644)
        assert ask(tmp_path, path)["changed"]
        assert active(path) == SIZE and stat.S_IMODE(path.stat().st_mode) == 0o600
        assert str(path) in (tmp_path / "fstab").read_text()


@needs_root
def test_a_full_disk_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with mounted("ext4", tmp_path) as place:
        told = ask(tmp_path, place / "swap", size_mib=4000)
        assert told["failed"] and "MiB free" in told["msg"] and "4010" in told["msg"]
        assert not (place / "swap").exists() and not (tmp_path / "fstab").exists()


@needs_root
def test_a_file_system_that_cannot_hold_swap_is_named(tmp_path: Path) -> None:
    place = tmp_path / "memory"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    try:
        told = ask(tmp_path, place / "swap")
    finally:
        subprocess.run(["umount", place], check=True)
    assert told["failed"] and "tmpfs, which cannot hold a swap file" in told["msg"]

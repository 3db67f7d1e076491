"""The look at a host: each problem is found, named with its fix, and none hides another."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.playbooks import ANSIBLE, module

PATH = "roles/preflight/files/preflight.py"
preflight = module(PATH)
DEBIAN = {"ID": "debian", "VERSION_ID": "12"}


def texts(problems: list[dict[str, str]]) -> str:
    assert all(item["problem"] and item["fix"].endswith(".") for item in problems)
    return "\n".join(item["problem"] for item in problems)


@pytest.mark.parametrize(
    ("name", "version"), [("debian", "12"), ("debian", "13"), ("ubuntu", "22.04"), ("ubuntu", "24.04")]
)
def test_supported_distributions_pass(name: str, version: str) -> None:
    assert preflight.distribution_problems({"ID": name, "VERSION_ID": version}, "x86_64") == []


@pytest.mark.parametrize(
    "names", [{"ID": "debian", "VERSION_ID": "11"}, {"ID": "fedora", "VERSION_ID": "41"}, {}]
)
def test_others_are_refused_by_name(names: dict[str, str]) -> None:
    found = texts(preflight.distribution_problems(names, "x86_64"))
    assert names.get("ID", "unknown") in found and "supported are" in found


def test_all_that_is_wrong_is_told_at_once() -> None:
    found = texts(preflight.distribution_problems({"ID": "alpine"}, "riscv64", (3, 6, 9)))
    assert "alpine" in found and "riscv64" in found and "Python is 3.6" in found


def test_a_full_disk_is_told_with_both_numbers(tmp_path: Path) -> None:
    found = texts(preflight.disk_problems({str(tmp_path / "not" / "there"): 1 << 40}))
    assert "MiB free" in found and str(1 << 40) in found
    assert preflight.disk_problems({str(tmp_path / "new"): 1}) == []


def test_needs_on_one_disk_are_added_up(tmp_path: Path) -> None:
    import shutil

    half = (shutil.disk_usage(tmp_path).free >> 20) * 6 // 10
    assert preflight.disk_problems({str(tmp_path / "a"): half}) == []
    assert len(preflight.disk_problems({str(tmp_path / "a"): half, str(tmp_path / "b"): half})) == 1


def test_too_little_memory() -> None:
    meminfo = "MemTotal:         512000 kB\nMemFree: 1 kB\n"
    assert "500 MiB of memory; the service needs 900" in texts(preflight.memory_problems(900, meminfo))
    assert preflight.memory_problems(500, meminfo) == []


def test_a_taken_port_is_told_with_its_owner() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        told = texts(preflight.port_problems([("127.0.0.1", port, [])]))
        ours = preflight.owner_of(preflight.listeners()[("127.0.0.1", port)])
        assert f"port {port} of 127.0.0.1 is taken by {ours}" in told
        assert preflight.port_problems([("127.0.0.1", port, [ours])]) == []
    assert preflight.port_problems([("127.0.0.1", port, [])]) == []


def test_a_port_taken_on_all_addresses_is_taken_on_each() -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]
        assert preflight.port_problems([("127.0.0.1", port, [])])


def test_an_address_of_another_host() -> None:
    assert "cannot listen on 198.51.100.7 port 8000" in texts(
        preflight.port_problems([("198.51.100.7", 8000, [])], {})
    )


@pytest.mark.parametrize(
    ("names", "cards", "secure", "loaded", "refused"),
    [
        (DEBIAN, ["0000:01:00.0"], True, False, True),
        (DEBIAN, ["0000:01:00.0"], True, True, False),
        (DEBIAN, ["0000:01:00.0"], False, False, False),
        (DEBIAN, [], True, False, False),
        ({"ID": "ubuntu"}, ["0000:01:00.0"], True, False, False),
    ],
)
def test_secure_boot_stops_only_a_driver_that_nobody_signed(
    names: dict[str, str], cards: list[str], secure: bool, loaded: bool, refused: bool
) -> None:
    found = preflight.driver_problems(names, cards, secure=secure, driver_loaded=loaded)
    assert bool(found) == refused
    assert not found or "mokutil --import" in found[0]["fix"]


def test_cards_are_found_by_vendor_and_class(tmp_path: Path) -> None:
    for name, vendor, kind in (
        ("0000:01:00.0", "0x10de", "0x030000"),
        ("0000:01:00.1", "0x10de", "0x040300"),
        ("0000:02:00.0", "0x1002", "0x030000"),
        ("0000:03:00.0", "0x10de", "0x030200"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "vendor").write_text(f"{vendor}\n")
        (folder / "class").write_text(f"{kind}\n")
    assert preflight.nvidia_cards(str(tmp_path)) == ["0000:01:00.0", "0000:03:00.0"]


def test_check_mode_needs_something_to_look_ahead_with() -> None:
    found = texts(preflight.check_mode_problems(has_module=False, has_lists=False))
    assert "python3-apt" in found and "lists of packages" in found
    assert preflight.check_mode_problems(has_module=True, has_lists=True) == []


def test_it_runs_alone_and_prints_a_list() -> None:
    needs = {
        "ram_mib": 1 << 40,
        "paths": {"/": 0},
        "ports": [["127.0.0.1", 0, []]],
        "driver": True,
        "check_mode": False,
    }
    done = subprocess.run(
        [sys.executable, "-I", ANSIBLE / PATH, json.dumps(needs)], capture_output=True, text=True, check=True
    )
    assert "of memory; the service needs" in texts(json.loads(done.stdout))

"""Is this host fit to be provisioned? Prints every problem at once as JSON, and changes nothing.

Here: what can be seen on the host itself. Runs there before anything is installed: standard library only, Python
3.8. What the inventory and the controller must bring is checked in the role's vars/main.yml.

    preflight.py '{"paths": {"/opt/asr": 2048}, "ram_mib": 900, "ports": [["10.0.0.1", 8000, ["docker-proxy"]]]}'
"""

from __future__ import annotations

import errno
import glob
import importlib.util
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
from typing import Any, Callable, Dict, List, Mapping, Sequence

Problems = List[Dict[str, str]]
SUPPORTED = {"debian": ("12", "13"), "ubuntu": ("22.04", "24.04")}
MACHINES = ("x86_64", "aarch64")
OLDEST_PYTHON = (3, 8)
SECURE_BOOT = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
NVIDIA, DISPLAY = "0x10de", ("0x0300", "0x0302")


def problem(text: str, fix: str) -> dict[str, str]:
    return {"problem": text, "fix": fix}


def read(path: str, default: str = "") -> str:
    try:
        with open(path, "rb") as file:
            return file.read(1 << 20).decode("utf-8", "replace")
    except OSError:
        return default


def release(root: str = "/") -> dict[str, str]:
    """/etc/os-release as a dictionary."""
    lines = read(os.path.join(root, "etc/os-release")).splitlines()
    pairs = (line.split("=", 1) for line in lines if "=" in line)
    return {name: value.strip().strip("\"'") for name, value in pairs}


def distribution_problems(
    names: Mapping[str, str], machine: str, python: Sequence[Any] = sys.version_info
) -> Problems:
    found = []
    name, version = names.get("ID", "unknown"), names.get("VERSION_ID", "unknown")
    if version not in SUPPORTED.get(name, ()):
        found.append(
            problem(
                f"the distribution is {name} {version}; supported are Debian 12 and 13, Ubuntu 22.04 and 24.04",
                "Install one of these, or run the images on this host by hand: the service itself needs only Docker.",
            )
        )
    if machine not in MACHINES:
        found.append(
            problem(
                f"the processor is of type {machine}", "Only x86_64 and aarch64 hosts can run the images."
            )
        )
    if tuple(python[:2]) < OLDEST_PYTHON:
        found.append(
            problem(
                "Python is {}.{}; 3.8 is the oldest that Ansible can use".format(*python[:2]),
                "Install a newer python3, and name it in the inventory: ansible_python_interpreter.",
            )
        )
    return found


def existing(path: str) -> str:
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


def disk_problems(paths: Mapping[str, int]) -> Problems:
    """`paths`: directory -> MiB that will be needed below it. Paths on one file system are added up."""
    needs: dict[int, list[Any]] = {}
    for path, mib in paths.items():
        place = existing(path)
        device = os.stat(place).st_dev
        have = needs.setdefault(device, [place, 0, []])
        have[1] += mib
        have[2].append(path)
    found = []
    for place, mib, names in needs.values():
        free = shutil.disk_usage(place).free >> 20
        if free < mib:
            found.append(
                problem(
                    "the file system of {} has {} MiB free, {} MiB are needed".format(
                        ", ".join(sorted(names)), free, mib
                    ),
                    "Free some space, or set fleet_root to a directory on a larger disk.",
                )
            )
        if os.statvfs(place).f_flag & os.ST_RDONLY:
            found.append(problem(f"the file system of {place} is mounted read-only", "Mount it for writing."))
    return found


def memory_problems(mib: int, meminfo: str) -> Problems:
    rows = dict(line.split(":", 1) for line in meminfo.splitlines() if ":" in line)
    total = int(rows.get("MemTotal", "0 kB").split()[0]) >> 10
    if total < mib:
        return [
            problem(
                f"the host has {total} MiB of memory; the service needs {mib} MiB",
                "Take a larger host, or leave this one out of the group `app`. Swap does not replace memory here.",
            )
        ]
    return []


def listeners(root: str = "/proc") -> dict[tuple[str | None, int], str]:
    """(address or None for all, port) -> inode of every listening TCP socket."""
    found: dict[tuple[str | None, int], str] = {}
    for name, size in (("tcp", 4), ("tcp6", 16)):
        for line in read(os.path.join(root, "net", name)).splitlines()[1:]:
            fields = line.split()
            if len(fields) < 10 or fields[3] != "0A":
                continue
            text, port = fields[1].split(":")
            words = [struct.pack("<I", int(text[at : at + 8], 16)) for at in range(0, len(text), 8)]
            raw = b"".join(words)
            family = socket.AF_INET if size == 4 else socket.AF_INET6
            address = None if not any(raw) else socket.inet_ntop(family, raw)
            found[(address, int(port, 16))] = fields[9]
    return found


def owner_of(inode: str, root: str = "/proc") -> str:
    """The program that holds a socket; empty where nobody lets us look."""
    for link in glob.glob(os.path.join(root, "[0-9]*/fd/*")):
        try:
            if os.readlink(link) == f"socket:[{inode}]":
                return read(os.path.join(link.rsplit("/fd/", 1)[0], "comm")).strip()
        except OSError:
            continue
    return ""


def running(root: str = "/proc") -> set[str]:
    return {read(path).strip() for path in glob.glob(os.path.join(root, "[0-9]*/comm"))}


def port_problems(
    ports: Sequence[Sequence[Any]],
    listening: Mapping[tuple[str | None, int], str] | None = None,
    owner: Callable[[str], str] = owner_of,
) -> Problems:
    """`ports`: (address, port, programs of ours that may hold it already)."""
    listening = listeners() if listening is None else listening
    found = []
    for address, port, ours in ports:
        inode = listening.get((address, port)) or listening.get((None, port))
        if inode is None:
            found += address_problems(address, port)
            continue
        program = owner(inode)
        # A container's root may not see whose socket it is; a program of ours that runs is then taken for its owner.
        mine = program in ours if program else bool(running().intersection(ours))
        if not mine:
            program = program or "another program"
            found.append(
                problem(
                    f"port {port} of {address} is taken by {program}",
                    f"Stop {program}, or give the fleet another port (ansible/fleet.yml).",
                )
            )
    return found


def address_problems(address: str, port: int) -> Problems:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return []  # a connection that has just ended; nobody listens
            return [
                problem(
                    f"cannot listen on {address} port {port}: {os.strerror(error.errno or 0) or error}",
                    "Set fleet_address of this host to an address that it has.",
                )
            ]
    return []


def answer(*command: str) -> str:
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace").strip()


def in_container() -> bool:
    return answer("systemd-detect-virt", "--container") not in ("", "none")


def system_problems() -> Problems:
    found = []
    if not os.path.isdir("/run/systemd/system"):
        found.append(
            problem(
                "the host does not run systemd", "Services are started by systemd; use a host that has it."
            )
        )
    elif not in_container() and answer("timedatectl", "show", "-p", "NTPSynchronized", "--value") == "no":
        found.append(
            problem(
                "the clock is not synchronised",
                "Start a time service (apt-get install systemd-timesyncd; timedatectl set-ntp true) and wait a minute.",
            )
        )
    return found


def check_mode_problems(*, has_module: bool, has_lists: bool) -> Problems:
    """Check mode installs nothing, so what it needs to look ahead must be there."""
    found = []
    if not has_module:
        found.append(
            problem(
                "python3-apt is missing, without which it cannot be told what would be installed",
                "Type on the host: apt-get install -y python3-apt; or run without CHECK=1, which installs it.",
            )
        )
    if not has_lists:
        found.append(
            problem(
                "the host has no lists of packages, so it cannot be told what would be installed",
                "Type on the host: apt-get update; or run without CHECK=1, which fetches them.",
            )
        )
    return found


def nvidia_cards(root: str = "/sys/bus/pci/devices") -> list[str]:
    cards = []
    for device in sorted(glob.glob(os.path.join(root, "*"))):
        kind = read(os.path.join(device, "class")).strip()[:6]
        if read(os.path.join(device, "vendor")).strip() == NVIDIA and kind in DISPLAY:
            cards.append(os.path.basename(device))
    return cards


def secure_boot() -> bool:
    raw = b""
    try:
        with open(SECURE_BOOT, "rb") as file:
            raw = file.read(5)
    except OSError:
        pass
    return len(raw) == 5 and raw[4] == 1


def driver_problems(
    names: Mapping[str, str], cards: Sequence[str], *, secure: bool, driver_loaded: bool
) -> Problems:
    """Debian builds the driver on the host; Secure Boot refuses it until somebody at the console enrols its key."""
    if not cards or driver_loaded or not secure or names.get("ID") != "debian":
        return []
    return [
        problem(
            "Secure Boot is on and no NVIDIA driver is loaded; Debian builds the driver with a key of this host",
            "At the console: `mokutil --import /var/lib/dkms/mok.pub`, reboot, enrol the key; or switch Secure Boot "
            "off; or use Ubuntu, whose modules are signed; or set nvidia_driver_manage: false to run on the CPU.",
        )
    ]


def main(arguments: Sequence[str]) -> int:
    needs = json.loads(arguments[0])
    names = release()
    found = distribution_problems(names, os.uname().machine)
    found += system_problems()
    found += memory_problems(needs["ram_mib"], read("/proc/meminfo"))
    found += disk_problems(needs["paths"])
    found += port_problems(needs["ports"])
    if needs["check_mode"]:
        found += check_mode_problems(
            has_module=importlib.util.find_spec("apt") is not None,
            has_lists=bool(glob.glob("/var/lib/apt/lists/*_Packages*")),
        )
    if needs["driver"]:
        found += driver_problems(
            names, nvidia_cards(), secure=secure_boot(), driver_loaded=os.path.exists("/sys/module/nvidia")
        )
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

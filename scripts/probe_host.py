#!/usr/bin/env python3
"""What is this machine? Prints one JSON object of facts about it, for pick_variant.py and the playbooks.

One file, standard library only, Python 3.8: it is copied to hosts where nothing has been installed. It reads /proc
and /sys, and asks `nvidia-smi`, `modinfo` and `docker`, each for a bounded time, so that a wedged driver cannot hold
it. What cannot be read is null, and why is said in `problems`. Nothing is changed, and nothing is decided here.

    probe_host.py --record FILE      writes a capture: the facts, without what could name the machine
    probe_host.py --facts FILE       prints the facts of that file
    probe_host.py --root DIR         reads a tree in place of /; commands are looked for in DIR/usr/bin only
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FACTS_VERSION = 1
SECONDS = 15.0
# Flags that decide something, of the many that a processor has.
FLAGS = (
    "ssse3 sse4_1 sse4_2 popcnt cx16 avx avx2 fma f16c avx512f avx512bw avx512vl avx512_vnni avx_vnni amx_int8 "
    "asimd asimddp i8mm sve hypervisor"
).split()
# Read by name and in this order. A driver that does not know one refuses the whole question, so the newer names
# are left out in a second one (compute_cap came with 495, memory.reserved with 510).
FIELDS = (
    "index uuid pci.bus_id pci.device_id name driver_version memory.total memory.used memory.free "
    "compute_cap memory.reserved mig.mode.current"
).split()
OLD_FIELDS = FIELDS[:9]
IMAGE = "seaco-speech"
WORKER = "app.service.worker_main"
_SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
_CSV = ("--format=csv,noheader,nounits",)
_MIG = re.compile(r"^\s+MIG (\S+)\s+Device\s+\d+: \(UUID: (MIG-[^)]+)\)")


class Probe:
    """Reads one host below `root`; `problems` collects what could not be read, as sentences."""

    def __init__(self, root: Path, seconds: float) -> None:
        self.root = root
        self.seconds = seconds
        self.problems: list[str] = []

    def facts(self) -> dict[str, Any]:
        """Everything, in the shape of FACTS_VERSION."""
        system, driver = self.system(), self.driver()
        gpus = self.gpus(driver, wsl=system["wsl"])
        return {
            "facts_version": FACTS_VERSION,
            "system": system,
            "cpu": self.cpu(),
            "memory": self.memory(),
            "disk": self.disk(),
            "cgroup": self.cgroup(),
            "containers": self.containers(),
            "driver": driver,
            "gpus": gpus,
            "problems": self.problems,
        }

    # The machine

    def system(self) -> dict[str, Any]:
        release = self._read("proc/sys/kernel/osrelease")
        names = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', self._read("etc/os-release"), re.MULTILINE))
        return {
            "architecture": self._read("proc/sys/kernel/arch") or platform.machine(),
            "kernel": release or None,
            "distribution": names.get("ID"),
            "distribution_version": names.get("VERSION_ID"),
            "distribution_name": names.get("PRETTY_NAME"),
            "wsl": "microsoft" in release.lower(),
            "container": self._there(".dockerenv") or self._there("run/.containerenv"),
            "secure_boot": self._secure_boot(),
        }

    def _secure_boot(self) -> bool | None:
        """None where the firmware cannot be asked; False without EFI, which has no such thing."""
        if not self._there("sys/firmware/efi"):
            return False
        try:
            # Four bytes of attributes come before the value.
            value = (self.root / _SECURE_BOOT).read_bytes()
        except OSError:
            return None
        return value[4] == 1 if len(value) == 5 else None

    def cpu(self) -> dict[str, Any]:
        text = self._read("proc/cpuinfo")
        flags = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
        model = re.search(r"^(?:model name|Model)\s*:\s*(.*)$", text, re.MULTILINE)
        found = set(flags.group(1).split()) if flags else set()
        return {
            "model": model.group(1).strip() if model else None,
            "cores": len(re.findall(r"^processor\s*:", text, re.MULTILINE)) or None,
            "flags": [name for name in FLAGS if name in found],
        }

    def memory(self) -> dict[str, Any]:
        rows = dict(re.findall(r"^(\w+):\s+(\d+) kB$", self._read("proc/meminfo"), re.MULTILINE))
        mib = {name: int(rows[name]) // 1024 if name in rows else None for name in _MEMORY.values()}
        return {field: mib[name] for field, name in _MEMORY.items()}

    def disk(self) -> dict[str, Any]:
        """Room where images are stored, or where they will be."""
        path = self.root / "var/lib/docker"
        while not path.exists() and path != path.parent:
            path = path.parent
        try:
            free: int | None = shutil.disk_usage(str(path)).free >> 20
        except OSError:
            free = None
        shown = "/" + str(path.relative_to(self.root)) if path != self.root else "/"
        return {"path": shown, "free_mib": free}

    def cgroup(self) -> int | None:
        """Version of the control groups that can limit memory, None without any."""
        if "memory" in self._read("sys/fs/cgroup/cgroup.controllers").split():
            return 2
        return 1 if self._there("sys/fs/cgroup/memory") else None

    # What containers need

    def containers(self) -> dict[str, Any]:
        try:
            info = json.loads(self._ask("docker", "info", "--format", "{{json .}}") or "{}")
        except ValueError:
            info = {}
            self.problems.append("docker info did not answer with JSON")
        images = self._ask("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}") if info else ""
        short = (name.rpartition("/")[2] for name in images.split())
        specs = (path for place in ("etc/cdi", "var/run/cdi") for path in (self.root / place).glob("*"))
        toolkit = re.search(r"version (\d[\w.+~-]*)", self._ask("nvidia-ctk", "--version"))
        return {
            "docker": info.get("ServerVersion") or None,
            "docker_installed": self._command("docker") is not None,
            "compose": self._ask("docker", "compose", "version", "--short") or None,
            "nvidia_runtime": "nvidia" in (info.get("Runtimes") or {}),
            "nvidia_toolkit": toolkit.group(1) if toolkit else None,
            "cdi": any("nvidia.com/gpu" in self._text_of(path) for path in specs),
            "images": [name for name in short if name.startswith(f"{IMAGE}:")],
        }

    # The driver

    def driver(self) -> dict[str, Any]:
        about = self._read("proc/driver/nvidia/version")
        found = re.search(r"Kernel Module.*?(\d+\.\d+(?:\.\d+)?)", about)
        loaded = self._read("sys/module/nvidia/version") or (found.group(1) if found else None)
        flavour = "open" if "Open Kernel Module" in about else "proprietary"
        installed = self._ask("modinfo", "-F", "version", "nvidia")
        return {
            "loaded": loaded,
            "flavour": flavour if loaded else None,
            "installed": installed or None,
            "signed": bool(self._ask("modinfo", "-F", "signer", "nvidia")) if installed else None,
            "nouveau": self._there("sys/module/nouveau"),
            "smi": None,
        }

    # The cards

    def gpus(self, driver: dict[str, Any], *, wsl: bool) -> list[dict[str, Any]]:
        """Cards on the PCI bus, joined with what the driver says of them; sets driver["smi"] to why it says nothing."""
        cards = {card["pci_address"]: card for card in self._on_the_bus()}
        rows, driver["smi"] = self._smi_rows()
        for row in rows:
            address = _address(row.get("pci.bus_id"))
            card = cards.setdefault(address or f"unknown-{row.get('index')}", _card(address, None, None))
            _join(card, row)
            if wsl and not driver["loaded"]:
                driver["loaded"] = _text(row.get("driver_version"))
        ready = [card for card in cards.values() if card["state"] == "ready"]
        if ready:
            self._add_own_use(ready)
            if any(card["mig"] is not None for card in ready):
                self._add_mig(ready)
        for card in cards.values():
            if card["state"] == "unlisted" and card["kernel_driver"] != "nvidia":
                card["state"] = "driverless"
        return sorted(
            cards.values(), key=lambda card: (card["index"] is None, card["index"], str(card["pci_address"]))
        )

    def _on_the_bus(self) -> list[dict[str, Any]]:
        """NVIDIA's display controllers (class 03); the audio and USB functions of the same cards are left out."""
        found = []
        for device in sorted((self.root / "sys/bus/pci/devices").glob("*")):
            inside = str(device.relative_to(self.root))
            if self._read(f"{inside}/vendor") != "0x10de" or self._read(f"{inside}/class")[:4] != "0x03":
                continue
            bound = (device / "driver").resolve().name if (device / "driver").exists() else None
            found.append(_card(device.name, self._read(f"{inside}/device")[2:], bound))
        return found

    def _smi_rows(self) -> tuple[list[Mapping[str, str]], str | None]:
        """One row a card, and why there is none."""
        problem: str | None = None
        for fields in (FIELDS, OLD_FIELDS):
            code, output = self._run(["nvidia-smi", f"--query-gpu={','.join(fields)}", *_CSV])
            if code is None:
                return [], output
            rows = [row for row in (_row(line, fields) for line in output.splitlines()) if row]
            if rows:
                if len(rows) < len([line for line in output.splitlines() if line.count(",") > 1]):
                    self.problems.append("nvidia-smi gave lines that cannot be read")
                return rows, None
            problem = f"failed: {(output.strip().splitlines() or ['it said nothing'])[0][:160]}"
            if "not a valid field" not in output:
                break
        return [], problem

    def _add_own_use(self, cards: Sequence[dict[str, Any]]) -> None:
        """Memory that our own service holds: whoever decides anew must not count it as taken by others."""
        answer = self._ask("nvidia-smi", "--query-compute-apps=gpu_uuid,pid,used_memory", *_CSV)
        for uuid, pid, used in re.findall(r"^(\S+), (\d+), (\d+)$", answer, re.MULTILINE):
            for card in cards:
                if card["uuid"] == uuid and WORKER in self._read(f"proc/{pid}/cmdline"):
                    card["own_mib"] += int(used)

    def _add_mig(self, cards: Sequence[dict[str, Any]]) -> None:
        current: dict[str, Any] | None = None
        for line in self._ask("nvidia-smi", "-L").splitlines():
            found = re.match(r"GPU (\d+):", line)
            if found:
                current = next((card for card in cards if card["index"] == int(found.group(1))), None)
            part = _MIG.match(line)
            if part and current is not None and current["mig"] is not None:
                size = re.search(r"(\d+)gb", part.group(1))
                mib = int(size.group(1)) * 1024 if size else None
                current["mig"].append({"profile": part.group(1), "uuid": part.group(2), "total_mib": mib})

    def _read(self, path: str) -> str:
        return self._text_of(self.root / path)

    def _text_of(self, path: Path) -> str:
        try:
            return path.read_text(encoding="utf-8", errors="replace").replace("\0", " ").strip()
        except OSError:
            return ""

    def _there(self, path: str) -> bool:
        return (self.root / path).exists()

    def _command(self, name: str) -> str | None:
        places = [str(self.root / place) for place in ("usr/bin", "usr/lib/wsl/lib", "usr/sbin", "sbin")]
        if self.root == Path("/"):
            places.insert(0, os.environ.get("PATH", ""))
        return shutil.which(name, path=os.pathsep.join(places))

    def _ask(self, *command: str) -> str:
        """What a command prints, "" when it is not there or fails; only one that hangs is a problem of its own."""
        code, output = self._run(command)
        if output == "hung":
            self.problems.append(f"{' '.join(command[:3])} gave no answer in {self.seconds:g} s")
        return output.strip() if code == 0 else ""

    def _run(self, command: Sequence[str]) -> tuple[int | None, str]:
        """Exit status and output; None and "absent" or "hung" when there is none. Nothing is waited for beyond the
        limit: a process stuck in a driver cannot even be killed."""
        program = self._command(command[0])
        if program is None:
            return None, "absent"
        try:
            process = subprocess.Popen(
                [program, *command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                env={**os.environ, "LC_ALL": "C"},
            )
        except OSError as error:
            return None, f"failed: {error.strerror}"
        try:
            output, said = process.communicate(timeout=self.seconds)
        except subprocess.TimeoutExpired:
            try:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate(timeout=1)
            except (OSError, subprocess.TimeoutExpired):
                pass
            return None, "hung"
        if process.returncode != 0:
            output += said
        return process.returncode, output.decode("utf-8", "replace")


_MEMORY = {"total_mib": "MemTotal", "available_mib": "MemAvailable", "swap_mib": "SwapTotal"}


def _card(address: str | None, device: str | None, kernel_driver: str | None) -> dict[str, Any]:
    """A card of which only the bus knows. `state`: ready, unreadable (the driver lists it, without readings),
    unlisted (bound to the driver, but not listed), driverless."""
    return {
        "index": None,
        "uuid": None,
        "pci_address": address,
        "pci_id": device,
        "name": None,
        "capability": None,
        "kernel_driver": kernel_driver,
        "state": "unlisted",
        "total_mib": None,
        "reserved_mib": None,
        "used_mib": None,
        "free_mib": None,
        "own_mib": 0,
        "mig": None,
    }


def _join(card: dict[str, Any], row: Mapping[str, str]) -> None:
    card["index"] = _number(row.get("index"))
    card["uuid"] = _text(row.get("uuid"))
    card["name"] = _text(row.get("name"))
    capability = row.get("compute_cap", "")
    card["capability"] = capability if re.fullmatch(r"\d+\.\d", capability) else None
    device = re.match(r"0x([0-9A-Fa-f]{4})10[Dd][Ee]$", row.get("pci.device_id", ""))
    if device and not card["pci_id"]:
        card["pci_id"] = device.group(1).lower()
    for name in ("total", "reserved", "used", "free"):
        card[f"{name}_mib"] = _number(row.get(f"memory.{name}"))
    if row.get("mig.mode.current") == "Enabled":
        card["mig"] = []
    card["state"] = "unreadable" if card["total_mib"] is None or card["uuid"] is None else "ready"


def _row(line: str, fields: Sequence[str]) -> Mapping[str, str] | None:
    words = [word.strip() for word in line.split(",")]
    if len(words) != len(fields) or not words[0].isdigit():
        return None
    return {name: words[place] for place, name in enumerate(fields)}


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"\d{1,9}", text) else None


def _text(text: str | None) -> str | None:
    """A reading, or None for what nvidia-smi writes in place of one."""
    unread = text is None or not text or text.startswith("[") or text in {"N/A", "ERR!"} or "Error" in text
    return None if unread else text


def _address(text: str | None) -> str | None:
    """nvidia-smi writes 00000000:01:00.0 for what the kernel calls 0000:01:00.0."""
    found = re.fullmatch(r"[0-9a-f]*([0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])", (text or "").lower())
    return found.group(1) if found else None


def masked(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts without what is one machine's own: unique ids of cards and of their parts."""
    text = json.dumps(facts)
    for number, uuid in enumerate(dict.fromkeys(re.findall(r'"((?:GPU|MIG)-[^"]+)"', text))):
        text = text.replace(f'"{uuid}"', f'"{uuid[:3]}-00000000-0000-0000-0000-{number:012d}"')
    made: dict[str, Any] = json.loads(text)
    return made


def read_facts(path: Path) -> dict[str, Any]:
    """dict[str, Any] of a file.

    Raises:
        ValueError: it holds none of this version; the message is a sentence.
    """
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as facts ({error}). Write it anew with --record.") from None
    version = facts.get("facts_version") if isinstance(facts, dict) else None
    if version != FACTS_VERSION:
        raise ValueError(
            f"{path} holds facts of version {version}, and this program knows version {FACTS_VERSION}. "
            "Write it anew with --record on that host."
        )
    found: dict[str, Any] = facts
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Prints facts about this host as JSON.")
    parser.add_argument("--record", metavar="FILE", type=Path, help="write a capture that names no machine")
    parser.add_argument("--facts", metavar="FILE", type=Path, help="take the facts of a file")
    parser.add_argument(
        "--root", metavar="DIR", type=Path, default=Path("/"), help="read this tree in place of /"
    )
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help="longest wait for a command (%(default)s)"
    )
    chosen = parser.parse_args(arguments)
    if chosen.facts is None and not chosen.root.is_dir():
        parser.error(f"{chosen.root} is not a directory")
    try:
        facts = read_facts(chosen.facts) if chosen.facts else Probe(chosen.root, chosen.seconds).facts()
        if chosen.record is None:
            print(json.dumps(facts, indent=2))
        else:
            chosen.record.write_text(json.dumps(masked(facts), indent=2) + "\n", encoding="utf-8")
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A plan for a fleet of twenty hosts that are only captures: the picker's verdict for each, and its driver's packages.

One run of ansible/plan.yml, as `make plan` does; no host is asked and nothing is pulled.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.playbooks import ANSIBLE, ROOT, run

CAPTURES = ROOT / "tests" / "captures"
# Capture -> packages of the driver's plan, or what its obstacle says; nothing where nothing is to be done.
UBUNTU = (
    "linux-modules-nvidia-580-server{0}-generic nvidia-headless-no-dkms-580-server{0} nvidia-utils-580-server"
)
DEBIAN = "linux-headers-amd64 {} nvidia-smi libcuda1 nvidia-persistenced"
HOSTS: dict[str, str] = {
    "cpu-1g": "",
    "cpu-8g": "",
    "no-avx2": "",
    "arm-raspberry-pi-5": "",
    "gt710-2g": "",
    "gtx750ti-2g": "",
    "gt1030-2g": "",
    "gtx1060-6g": "",
    "gtx1650-4g": "",
    "mx450-2g": "",
    "t400-4g": "",
    "rtx3050-4g-laptop": "",
    "rtx5060-8g": "",
    "two-cards": "",
    "no-driver-gtx1050ti": UBUNTU.format(""),
    "no-driver-gtx1650": UBUNTU.format("-open"),
    "open-module-on-pascal": UBUNTU.format(""),
    "driver-595-on-pascal": UBUNTU.format(""),
    "secure-boot-unsigned": UBUNTU.format("-open"),
    "nouveau": DEBIAN.format("nvidia-kernel-dkms"),
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Host -> its lines in the table that `make plan` prints."""
    inventory = tmp_path_factory.mktemp("plan") / "hosts.yml"
    hosts = {
        name: {"variant_facts_file": str(CAPTURES / f"{name}.json"), "ansible_connection": "local"}
        for name in HOSTS
    }
    inventory.write_text(yaml.safe_dump({"all": {"children": {"app": {"hosts": hosts}}}}), encoding="utf-8")
    done = run(ANSIBLE / "plan.yml", "--inventory", str(inventory))
    assert done.returncode == 0, done.stdout + done.stderr
    text = (ROOT / "build" / "fleet" / "plan.txt").read_text(encoding="utf-8")
    parts: dict[str, str] = {}
    for line in text.splitlines():
        if not line.startswith(" "):
            name = line.partition(":")[0]
        parts[name] = parts.get(name, "") + line + "\n"
    return parts


def picked(capture: Path) -> dict[str, Any]:
    command = [sys.executable, str(ROOT / "scripts" / "pick_variant.py"), "--facts", str(capture), "--json"]
    told: dict[str, Any] = json.loads(
        subprocess.run(command, capture_output=True, text=True, check=True).stdout
    )
    return told


def test_the_sample_is_twenty_hosts(table: dict[str, str]) -> None:
    assert len(HOSTS) == 20 and set(table) == set(HOSTS)


@pytest.mark.parametrize("name", HOSTS)
def test_the_plan_is_the_pickers_verdict_with_all_reasons(name: str, table: dict[str, str]) -> None:
    verdict = picked(CAPTURES / f"{name}.json")
    runs = " + ".join(one["variant"] for one in verdict["instances"])
    assert table[name].splitlines()[0] == f"{name}: {runs}"
    assert all(reason["text"] in table[name] for reason in verdict["reasons"])


@pytest.mark.parametrize("name", HOSTS)
def test_the_driver_fits_the_cards(name: str, table: dict[str, str]) -> None:
    lines = [line.strip() for line in table[name].splitlines() if line.startswith("  driver:")]
    assert [line.partition(", ")[2] for line in lines] == ([HOSTS[name]] if HOSTS[name] else [])

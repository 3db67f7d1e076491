"""scripts/probe_host.py on made-up trees: old, future and wedged drivers, WSL, MIG, cards that are lost."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from scripts.picking.host import host_of
from scripts.probe_host import FACTS_VERSION, Probe, main, masked
from tests.fakes.commands import Answer, lay_command, lay_file

FULL = (
    "0, GPU-1f3c, 00000000:01:00.0, 0x1F8210DE, NVIDIA GeForce GTX 1650, 535.247.01, 4096, 310, 3599, "
    "7.5, 187, [N/A]\n"
)
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build\n"
CLOSED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.247.01  Mon Aug 11 21:00:00 UTC 2025\n"
SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small Debian host without a card."""
    lay_file(tmp_path, "proc/sys/kernel/osrelease", "6.1.0-40-amd64\n")
    lay_file(tmp_path, "proc/sys/kernel/arch", "x86_64\n")
    lay_file(
        tmp_path,
        "etc/os-release",
        'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_ID="12"\n',
    )
    cpuinfo = (
        "processor\t: 0\nmodel name\t: A Processor\nflags\t\t: fpu ssse3 avx2 popcnt\n\nprocessor\t: 1\n"
    )
    lay_file(tmp_path, "proc/cpuinfo", cpuinfo)
    meminfo = "MemTotal:        4000000 kB\nMemAvailable:    3000000 kB\nSwapTotal:             0 kB\n"
    lay_file(tmp_path, "proc/meminfo", meminfo)
    lay_file(tmp_path, "sys/fs/cgroup/cgroup.controllers", "cpu memory pids\n")
    return tmp_path


def _lay_card(
    root: Path, device: str = "1f82", address: str = "0000:01:00.0", driver: str | None = None
) -> None:
    folder = f"sys/bus/pci/devices/{address}"
    lay_file(root, f"{folder}/vendor", "0x10de\n")
    lay_file(root, f"{folder}/class", "0x030000\n")
    lay_file(root, f"{folder}/device", f"0x{device}\n")
    if driver is not None:
        (root / f"sys/bus/pci/drivers/{driver}").mkdir(parents=True, exist_ok=True)
        (root / folder / "driver").symlink_to(root / f"sys/bus/pci/drivers/{driver}")


def _lay_driver(root: Path, version: str = "535.247.01", about: str = CLOSED) -> None:
    lay_file(root, "sys/module/nvidia/version", f"{version}\n")
    lay_file(root, "proc/driver/nvidia/version", about)


def _probe(root: Path, seconds: float = 20.0) -> dict[str, Any]:
    facts = Probe(root, seconds).facts()
    host_of(facts, "the probe")  # whatever was found, the picker must be able to read it
    return facts


def test_a_host_without_a_card(root: Path) -> None:
    facts = _probe(root)
    assert facts["facts_version"] == FACTS_VERSION and facts["gpus"] == [] and facts["problems"] == []
    assert facts["system"]["distribution"] == "debian" and facts["system"]["secure_boot"] is False
    assert facts["cpu"] == {"model": "A Processor", "cores": 2, "flags": ["ssse3", "popcnt", "avx2"]}
    assert facts["memory"] == {"total_mib": 3906, "available_mib": 2929, "swap_mib": 0}
    assert facts["cgroup"] == 2 and facts["driver"]["smi"] == "absent"
    assert facts["containers"]["docker"] is None and not facts["containers"]["docker_installed"]


def test_a_card_is_known_by_its_id_before_there_is_a_driver(root: Path) -> None:
    _lay_card(root)
    lay_file(root, "sys/bus/pci/devices/0000:01:00.1/vendor", "0x10de\n")
    lay_file(root, "sys/bus/pci/devices/0000:01:00.1/class", "0x040300\n")
    lay_file(root, "sys/bus/pci/devices/0000:00:02.0/vendor", "0x8086\n")
    lay_file(root, "sys/bus/pci/devices/0000:00:02.0/class", "0x030000\n")
    (card,) = _probe(root)["gpus"]
    assert (card["pci_id"], card["pci_address"], card["state"]) == ("1f82", "0000:01:00.0", "driverless")
    assert card["total_mib"] is None and card["kernel_driver"] is None


@pytest.mark.parametrize("name", ["nouveau", "vfio-pci"])
def test_a_card_that_another_driver_holds(root: Path, name: str) -> None:
    _lay_card(root, driver=name)
    if name == "nouveau":
        (root / "sys/module/nouveau").mkdir(parents=True)
    facts = _probe(root)
    assert facts["gpus"][0]["kernel_driver"] == name and facts["gpus"][0]["state"] == "driverless"
    assert facts["driver"]["nouveau"] == (name == "nouveau")


def test_a_working_card(root: Path) -> None:
    _lay_card(root, driver="nvidia")
    _lay_driver(root)
    lay_command(root, "nvidia-smi", {"--query-gpu": Answer(FULL), "--query-compute-apps": Answer("")})
    facts = _probe(root)
    assert facts["driver"]["loaded"] == "535.247.01" and facts["driver"]["flavour"] == "proprietary"
    assert facts["driver"]["smi"] is None
    (card,) = facts["gpus"]
    assert card["name"] == "NVIDIA GeForce GTX 1650" and card["capability"] == "7.5" and card["index"] == 0
    sizes = [card[f"{name}_mib"] for name in ("total", "reserved", "used", "free")]
    assert sizes == [4096, 187, 310, 3599] and card["state"] == "ready" and card["mig"] is None


def test_the_open_module_is_told_from_the_proprietary_one(root: Path) -> None:
    lay_file(root, "proc/driver/nvidia/version", OPEN)
    driver = _probe(root)["driver"]
    assert (driver["loaded"], driver["flavour"]) == ("580.95.05", "open")


def test_memory_that_our_own_worker_holds_is_counted_apart(root: Path) -> None:
    _lay_card(root, driver="nvidia")
    _lay_driver(root)
    apps = "GPU-1f3c, 4711, 210\nGPU-1f3c, 4712, 200\nGPU-1f3c, 4713, [N/A]\nGPU-other, 4711, 5\n"
    lay_command(root, "nvidia-smi", {"--query-gpu": Answer(FULL), "--query-compute-apps": Answer(apps)})
    lay_file(root, "proc/4711/cmdline", "python\0-m\0app.service.worker_main\0\x35\0")
    lay_file(root, "proc/4712/cmdline", "/usr/bin/blender\0")
    facts = _probe(root)
    assert facts["gpus"][0]["own_mib"] == 210
    assert host_of(facts, "x").gpus[0].free == 3599 + 210
    facts["gpus"][0]["own_mib"] = 3000
    assert host_of(facts, "x").gpus[0].free == 4096 - 187, "never more than there is"


def test_an_old_driver_refuses_new_fields_and_is_asked_for_the_old_ones(root: Path) -> None:
    _lay_card(root, device="128b", driver="nvidia")
    _lay_driver(root, "470.256.02")
    refusal = 'Field "compute_cap" is not a valid field to query.\n'
    old = "0, GPU-2a, 00000000:01:00.0, 0x128B10DE, NVIDIA GeForce GT 710, 470.256.02, 2002, 54, 1948\n"
    lay_command(root, "nvidia-smi", {"compute_cap": Answer(refusal, 2), "--query-gpu": Answer(old)})
    facts = _probe(root)
    (card,) = facts["gpus"]
    assert card["state"] == "ready" and card["capability"] is None and card["free_mib"] == 1948
    assert facts["driver"]["smi"] is None


def test_a_hanging_nvidia_smi_holds_nobody_up(root: Path) -> None:
    _lay_card(root, driver="nvidia")
    _lay_driver(root)
    lay_command(root, "nvidia-smi", {"": Answer(FULL, seconds=120)})
    before = time.monotonic()
    facts = _probe(root, seconds=1.0)
    assert facts["driver"]["smi"] == "hung" and facts["gpus"][0]["state"] == "unlisted"
    assert time.monotonic() - before < 60, "it was waited for"


@pytest.mark.parametrize(
    ("answer", "smi"),
    [
        (Answer("No devices were found\n", 6), "failed: No devices were found"),
        (
            Answer(
                "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.95\n",
                18,
            ),
            "failed: Failed to initialize NVML: Driver/library version mismatch",
        ),
        (
            Answer("", 127, "nvidia-smi: error while loading shared libraries\n"),
            "failed: nvidia-smi: error while",
        ),
        (Answer("", 0), "failed: it said nothing"),
        (Answer("<!DOCTYPE html>" * 100, 0), "failed: <!DOCTYPE"),
    ],
)
def test_an_nvidia_smi_that_fails_is_quoted(root: Path, answer: Answer, smi: str) -> None:
    _lay_card(root, driver="nvidia")
    _lay_driver(root)
    lay_command(root, "nvidia-smi", {"": answer})
    facts = _probe(root)
    assert facts["driver"]["smi"].startswith(smi) and len(facts["driver"]["smi"]) < 200
    assert facts["gpus"][0]["state"] == "unlisted"


def test_a_lost_card_has_no_readings(root: Path) -> None:
    _lay_card(root, driver="nvidia")
    _lay_card(root, address="0000:02:00.0", driver="nvidia")
    _lay_driver(root)
    row = f"0, [N/A], 00000000:01:00.0, 0x1F8210DE, [Unknown Error], 535.247.01{', [N/A]' * 6}\n"
    good = FULL.replace("0, GPU-1f3c, 00000000:01", "1, GPU-77, 00000000:02")
    lay_command(root, "nvidia-smi", {"--query-gpu": Answer(row + good), "--query-compute-apps": Answer("")})
    lost, fine = _probe(root)["gpus"]
    assert lost["state"] == "unreadable" and lost["name"] is None and lost["total_mib"] is None
    assert fine["state"] == "ready" and fine["pci_address"] == "0000:02:00.0"


def test_a_cut_off_answer_loses_the_cut_card_only(root: Path) -> None:
    for bus in ("01", "02"):
        _lay_card(root, address=f"0000:{bus}:00.0", driver="nvidia")
    _lay_driver(root)
    answer = FULL + "1, GPU-77, 00000000:02:00.0, 0x1F82"
    lay_command(root, "nvidia-smi", {"--query-gpu": Answer(answer), "--query-compute-apps": Answer("")})
    facts = _probe(root)
    assert [card["state"] for card in facts["gpus"]] == ["ready", "unlisted"]
    assert facts["problems"] == ["nvidia-smi gave lines that cannot be read"]


def test_a_future_answer_with_one_more_field_is_not_misread(root: Path) -> None:
    _lay_card(root, driver="nvidia")
    _lay_driver(root, "610.43.02")
    lay_command(root, "nvidia-smi", {"--query-gpu": Answer(FULL.replace(", [N/A]", ", [N/A], 1"))})
    facts = _probe(root)
    assert facts["gpus"][0]["state"] == "unlisted" and facts["driver"]["smi"].startswith(
        "failed: 0, GPU-1f3c"
    )


def test_wsl_tells_the_driver_of_windows(root: Path) -> None:
    lay_file(root, "proc/sys/kernel/osrelease", "5.15.167.4-microsoft-standard-WSL2\n")
    row = FULL.replace("535.247.01", "560.94").replace(", 187,", ", [N/A],")
    answers = {"--query-gpu": Answer(row), "--query-compute-apps": Answer("[Not Supported]")}
    lay_command(root, "nvidia-smi", answers, folder="usr/lib/wsl/lib")
    facts = _probe(root)
    (card,) = facts["gpus"]
    assert facts["system"]["wsl"] and facts["driver"]["loaded"] == "560.94"
    assert card["state"] == "ready" and card["pci_id"] == "1f82" and card["reserved_mib"] is None


def test_the_parts_of_a_divided_card(root: Path) -> None:
    _lay_card(root, device="20b0", driver="nvidia")
    _lay_driver(root)
    listing = (
        "GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-1f3c)\n"
        "  MIG 1g.5gb      Device  0: (UUID: MIG-aa)\n"
        "  MIG 2g.10gb     Device  1: (UUID: MIG-bb)\n"
        "GPU 1: another (UUID: GPU-5)\n"
        "  MIG 1g.5gb      Device  0: (UUID: MIG-cc)\n"
    )
    answers = {
        "--query-gpu": Answer(FULL.replace("[N/A]", "Enabled")),
        "--query-compute-apps": Answer(""),
        "-L": Answer(listing),
    }
    lay_command(root, "nvidia-smi", answers)
    (card,) = _probe(root)["gpus"]
    assert [(part["uuid"], part["total_mib"]) for part in card["mig"]] == [
        ("MIG-aa", 5120),
        ("MIG-bb", 10240),
    ]


@pytest.mark.parametrize(
    ("value", "expected"), [(b"\6\0\0\0\1", True), (b"\6\0\0\0\0", False), (b"\6", None)]
)
def test_secure_boot_is_read_from_the_firmware(root: Path, value: bytes, expected: bool | None) -> None:
    lay_file(root, SECURE_BOOT, value)
    assert _probe(root)["system"]["secure_boot"] is expected


def test_a_module_that_is_installed_but_not_loaded(root: Path) -> None:
    _lay_card(root, device="2584")
    lay_command(
        root, "modinfo", {"-F version": Answer("580.95.05\n"), "-F signer": Answer("\n")}, folder="sbin"
    )
    driver = _probe(root)["driver"]
    assert (driver["loaded"], driver["installed"], driver["signed"]) == (None, "580.95.05", False)


def test_docker_and_the_toolkit(root: Path) -> None:
    info = json.dumps({"ServerVersion": "27.5.1", "Runtimes": {"runc": {}, "nvidia": {}}})
    tags = (
        "seaco-speech:0.1.0-cpu\nhub.example:5000/a/seaco-speech:0.1.0-cuda-fp16\nnginx:1\nseaco-speech-x:1\n"
    )
    answers = {
        "info": Answer(info, complaint="WARNING: No swap limit support\n"),
        "image ls": Answer(tags),
        "compose": Answer("2.35.1\n"),
    }
    lay_command(root, "docker", answers)
    lay_command(
        root, "nvidia-ctk", {"": Answer("NVIDIA Container Toolkit CLI version 1.18.0\ncommit: 123\n")}
    )
    lay_file(root, "var/run/cdi/nvidia.yaml", "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\n")
    found = _probe(root)["containers"]
    assert found == {
        "docker": "27.5.1",
        "docker_installed": True,
        "compose": "2.35.1",
        "nvidia_runtime": True,
        "nvidia_toolkit": "1.18.0",
        "cdi": True,
        "images": ["seaco-speech:0.1.0-cpu", "seaco-speech:0.1.0-cuda-fp16"],
    }


@pytest.mark.parametrize(
    "answer",
    [
        Answer("", 1, "permission denied"),
        Answer("not json"),
        Answer("{}", seconds=30),
        Answer('{"Runtimes": null}'),
    ],
)
def test_a_docker_that_does_not_answer(root: Path, answer: Answer) -> None:
    lay_command(root, "docker", {"info": answer, "": Answer("", 1)})
    found = _probe(root, seconds=1.5)["containers"]
    assert found["docker"] is None and found["docker_installed"] and found["images"] == []


def test_an_empty_tree_gives_facts_that_say_so(tmp_path: Path) -> None:
    facts = Probe(tmp_path, 1.0).facts()
    assert facts["memory"]["total_mib"] is None and facts["cpu"]["cores"] is None and facts["cgroup"] is None


def test_a_capture_names_no_machine(root: Path, tmp_path: Path) -> None:
    _lay_card(root, driver="nvidia")
    _lay_driver(root)
    lay_command(root, "nvidia-smi", {"--query-gpu": Answer(FULL), "--query-compute-apps": Answer("")})
    file = tmp_path / "capture.json"
    assert main(["--root", str(root), "--record", str(file)]) == 0
    text = file.read_text(encoding="utf-8")
    assert "1f3c" not in text and "GPU-00000000-0000-0000-0000-000000000000" in text
    facts = json.loads(text)
    assert masked(facts) == facts and str(root) not in text


def test_recorded_facts_are_told_again(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "facts.json"
    assert main(["--root", str(root), "--record", str(file)]) == 0
    assert main(["--facts", str(file)]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"facts_version": 99}', "{"])
def test_facts_that_cannot_be_told_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    file = tmp_path / "facts.json"
    file.write_text(content, encoding="utf-8")
    assert main(["--facts", str(file)]) == 2
    told = capsys.readouterr()
    assert not told.out and str(file) in told.err and "--record" in told.err


def test_a_root_that_is_not_there_is_a_mistake_in_use(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--root", str(tmp_path / "nowhere")])
    assert ended.value.code == 2


def test_commands_are_asked_in_english(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    lay_file(root, "usr/bin/tongue", '#!/bin/sh\nprintf "%s" "$LC_ALL"\n')
    (root / "usr/bin/tongue").chmod(0o755)
    assert Probe(root, 20.0)._ask("tongue") == "C"


def test_this_machine_can_be_probed() -> None:
    facts = _probe(Path("/"))
    assert facts["memory"]["total_mib"] > 100 and facts["cpu"]["cores"] >= 1

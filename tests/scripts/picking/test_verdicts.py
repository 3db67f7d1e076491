"""Every capture gets the verdict that was reasoned out for it by hand (tests/golden/verdicts.json).

Each entry says why in its `because`. A changed verdict is a changed rule: reason it out again, and write down why.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.picking import report
from scripts.picking.cards import STORAGE
from scripts.picking.host import Host, host_of, load_host
from scripts.picking.plan import Plan, plan
from scripts.picking.table import table_of
from tests.support.hosts import CAPTURES, NAMES, TABLE, capture, card, host, table_data

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "verdicts.json"
EXPECTED: dict[str, Any] = json.loads(GOLDEN.read_text(encoding="utf-8"))


def _planned(name: str) -> tuple[Plan, Host]:
    there = load_host(CAPTURES / f"{name}.json")
    return plan(there, TABLE), there


def test_every_capture_has_a_verdict_and_the_other_way_round() -> None:
    assert set(EXPECTED) == set(NAMES)
    assert len(NAMES) >= 25


@pytest.mark.parametrize("name", NAMES)
def test_the_verdict_is_the_one_reasoned_out(name: str) -> None:
    expected = EXPECTED[name]
    made, there = _planned(name)
    found = report.as_json(made, there)
    runs = [
        [
            one["variant"],
            one["precision"],
            one["environment"]["ASR_PRECISION"],
            None if one["device"] is None else one["device"]["index"],
        ]
        for one in found["instances"]
    ]
    assert (found["verdict"], runs) == (expected["verdict"], expected["runs"]), expected["because"]
    driver = [found["driver"][field] for field in ("action", "branch", "modules", "last_branch")]
    assert driver == expected["driver"], expected["because"]
    assert {reason["limit"] for reason in found["reasons"]} == set(expected["limits"])
    assert {reason["limit"] for reason in found["would_change"]} == set(expected["changes"])
    for words in expected["warnings"]:
        assert any(words in warning for warning in found["warnings"]), words
    assert len(expected["because"].split()) >= 4


@pytest.mark.parametrize("name", NAMES)
def test_the_text_tells_what_the_data_say(name: str) -> None:
    made, there = _planned(name)
    joined = " ".join(report.as_text(made, there).split())
    for reason in (*made.reasons, *made.changes):
        assert reason.limit in joined
    for one in made.instances:
        assert one.variant.name in joined and f"{one.ram} MiB" in joined
    assert ("nothing can run" in joined) == (made.verdict == "none")
    assert not [line for line in report.as_text(made, there).splitlines()[1:] if len(line) > 120]


def test_devices_are_named_as_containers_want_them() -> None:
    (device,) = _devices("gtx1050ti-4g")
    assert device["cdi"] == "nvidia.com/gpu=0" and device["uuid"].startswith("GPU-")
    assert [one["cdi"] for one in _devices("mig-a100")] == ["nvidia.com/gpu=0:0", "nvidia.com/gpu=0:1"]
    assert all(one["uuid"].startswith("MIG-") for one in _devices("mig-a100"))
    assert [one["cdi"] for one in _devices("wsl2-rtx3050-4g")] == ["nvidia.com/gpu=all"]


def _devices(name: str) -> list[dict[str, Any]]:
    made, there = _planned(name)
    return [one["device"] for one in report.as_json(made, there)["instances"]]


def test_a_row_for_blackwell_is_all_that_it_needs() -> None:
    """The rules know no generation: a variant on the wheels of CUDA 13 makes an RTX 5060 run it."""
    data = table_data()
    data["variants"].insert(0, {**data["variants"][0], "name": "cuda130-fp16", "wheels": "cu130"})
    data["wheels"][2]["minimum_driver"]["linux"] = "575.51.03"
    made = plan(load_host(CAPTURES / "rtx5060-8g.json"), table_of(data))
    assert [(one.variant.name, one.precision) for one in made.instances] == [("cuda130-fp16", "fp16")]
    assert (made.driver.action, made.driver.modules) == ("keep", "open")


def test_no_card_of_two_gigabytes_is_thrown_away_without_a_reason() -> None:
    for name in NAMES:
        made, there = _planned(name)
        for one in made.cards:
            assert one.way is not None or one.reasons, f"{name}: {one.card.label} is dropped silently"
        assert len({id(one.card) for one in made.cards}) == len(there.gpus)


def test_swap_docker_and_the_toolkit_are_warned_of_and_decide_nothing() -> None:
    ready = card()
    usual = plan(host(ready), TABLE)
    bare = {"docker": None, "docker_installed": False, "compose": None, "cdi": False, "nvidia_runtime": False}
    made = plan(host(ready, containers={**bare, "nvidia_toolkit": None}, cgroup=None), TABLE)
    assert made.instances == usual.instances and not usual.warnings
    said = " ".join(made.warnings)
    for words in ("Docker is not installed", "container toolkit", "control group"):
        assert words in said
    asleep = plan(host(ready, containers={"docker": None, "docker_installed": True}), TABLE)
    assert "does not answer" in " ".join(asleep.warnings)
    old = plan(host(ready, containers={"compose": None, "cdi": False}), TABLE)
    assert "compose plugin" in " ".join(old.warnings) and "CDI" in " ".join(old.warnings)


def test_what_failed_while_probing_is_passed_on() -> None:
    made = plan(host(problems=["nvidia-smi gave lines that cannot be read"]), TABLE)
    assert "While probing: nvidia-smi gave lines that cannot be read." in made.warnings


def test_our_own_service_does_not_count_against_itself() -> None:
    facts = capture("gt1030-2g-serving")
    facts["gpus"][0]["own_mib"] = 0
    assert plan(host_of(facts, "without it"), TABLE).verdict == "cpu"
    assert _planned("gt1030-2g-serving")[0].verdict == "gpu"


def test_cards_that_only_the_driver_knows_are_used_with_care() -> None:
    """A new id with a known capability: the careful one of two generations of 7.5."""
    (new,) = plan(host(card(pci_id="3fff", capability="7.5")), TABLE).instances
    assert (new.variant.name, new.environment["ASR_PRECISION"]) == ("cuda-fp32", "fp32")
    (ada,) = plan(host(card(pci_id="3fff", capability="8.9")), TABLE).instances
    assert ada.precision == "fp16"
    (small,) = plan(host(card(pci_id="3fff", capability="6.1", free_mib=1000)), TABLE).instances
    assert small.precision == STORAGE


def test_a_generation_of_tomorrow_is_named_as_such() -> None:
    made = plan(host(card(pci_id="2d05", capability="13.0")), TABLE)
    assert made.verdict == "cpu" and made.reasons[0].limit == "13.0"
    spark = plan(host(card(pci_id="2e12", capability="12.1")), TABLE)
    assert spark.reasons[0].limit == "12.1" and "580.65.06" in spark.changes[0].text
    kepler = plan(host(card(pci_id="128b", capability="3.5")), TABLE)
    assert kepler.reasons[0].limit == "3.5", "what the driver tells is said, not the family's 3.x"


@pytest.mark.parametrize(("ram", "verdict"), [(607, "none"), (863, "none"), (864, "cpu")])
def test_a_processor_s_memory_must_hold_the_system_too(ram: int, verdict: str) -> None:
    assert plan(host(memory={"total_mib": ram}), TABLE).verdict == verdict


@pytest.mark.parametrize(
    ("ram", "off"),
    [
        (864, ["ASR_PAGE", "ASR_PUNCTUATION"]),
        (902, ["ASR_PAGE", "ASR_PUNCTUATION"]),
        (903, ["ASR_PAGE"]),
        (979, ["ASR_PAGE"]),
        (980, []),
    ],
)
def test_a_small_host_goes_without_the_page_before_it_goes_without_punctuation(
    ram: int, off: list[str]
) -> None:
    made = plan(host(memory={"total_mib": ram}), TABLE)
    (one,) = made.instances
    assert sorted(name for name, value in one.environment.items() if value == "off") == off
    extras = {"ASR_PAGE": "page_ram_mib", "ASR_PUNCTUATION": "punctuation_ram_mib"}
    on = sum(TABLE.memory[size] for name, size in extras.items() if name not in off)
    assert one.ram == one.variant.ram_mib + on <= one.ram_limit <= ram - TABLE.memory["system_ram_mib"]
    assert len([reason for reason in made.reasons if " is off: " in reason.text]) == len(off)


def test_memory_that_nobody_tells_is_not_guessed() -> None:
    made = plan(host({**card(), "free_mib": None, "used_mib": None}), TABLE)
    assert made.verdict == "cpu" and "memory.free" in {reason.limit for reason in made.reasons}
    (told,) = plan(host({**card(), "free_mib": None, "used_mib": 96}), TABLE).instances
    assert told.precision == "fp32"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nouveau", "driven by nouveau"),
        ("vfio", "reserved for virtual machines"),
        ("driver-470", "the driver is 470.256.02, and CUDA 12.6 needs 525.60.13"),
        ("driver-595-on-pascal", "580 is the last branch that drives Pascal"),
        ("open-module-on-pascal", "Pascal (PCI id 10de:1c03 at 0000:01:00.0) needs the proprietary one"),
        ("secure-boot-unsigned", "its module is not signed"),
        ("driver-not-loaded", "is installed, but not loaded"),
        ("driver-mismatch", "not the installed one any more"),
        ("smi-missing", "nvidia-smi is missing"),
        ("smi-hung", "gave no answer in time"),
        ("off-the-bus", "fallen off the bus"),
        ("wsl2-old-driver", "CUDA 12.6 needs 528.33"),
        ("mig-without-instance", "no MIG instance"),
        ("gt1030-2g-1g-ram", "beside 256 MiB for the system and other instances, and there are 968 MiB"),
        (
            "mx250-2g-busy",
            "at least 973 MiB of GPU 0 (NVIDIA GeForce MX250) must be free, and 902 of 2048 MiB are",
        ),
        ("rtx5060-8g", "compute capability 12.0, and the torch in our images holds code for other ones"),
        ("arm-server-with-a2", "is built for linux/amd64, and this host is aarch64"),
    ],
)
def test_what_stands_in_the_way_is_said_in_its_own_words(name: str, words: str) -> None:
    made, _ = _planned(name)
    assert any(words in reason.text for reason in made.reasons), [reason.text for reason in made.reasons]


def test_a_wsl_without_windows_driver_and_a_card_too_new_for_the_driver() -> None:
    facts = capture("wsl2-old-driver")
    facts["driver"].update(loaded=None)
    made = plan(host_of(facts, "WSL"), TABLE)
    assert made.driver.action == "windows" and "WSL shows no NVIDIA driver" in made.reasons[0].text
    early = plan(host(card(pci_id="28a1", capability="8.9"), driver={"loaded": "520.61.05"}), TABLE)
    assert early.driver.action == "replace" and "needs branch 525 or newer" in early.reasons[0].text

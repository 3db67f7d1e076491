"""The limits of a plan to the MiB and to the core: what just fits, what just does not, and what is only warned of."""

from __future__ import annotations

from typing import Any

import pytest

from scripts.picking.cards import STORAGE
from scripts.picking.plan import Plan, plan
from tests.support.hosts import TABLE, card, host

CPU_RAM, GPU_RAM, SYSTEM_RAM = 608, 1640, 256  # docs/variants.md
GPU_DISK, CPU_DISK = 12288, 2048


def planned(*cards: dict[str, Any], **changes: Any) -> Plan:
    return plan(host(*cards, **changes), TABLE)


def said(made: Plan, words: str) -> list[str]:
    return [warning for warning in made.warnings if words in warning]


@pytest.mark.parametrize(
    ("total", "cards", "verdict"),
    [
        (GPU_RAM + SYSTEM_RAM, 1, "gpu"),
        (GPU_RAM + SYSTEM_RAM - 1, 1, "cpu"),
        (2 * GPU_RAM + SYSTEM_RAM, 2, "gpu"),
    ],
)
def test_instances_fit_into_the_host_s_memory_to_the_mib(total: int, cards: int, verdict: str) -> None:
    rows = [card(index=number, uuid=f"GPU-{number}") for number in range(2)]
    made = planned(*rows, memory={"total_mib": total})
    assert (made.verdict, len(made.instances)) == (verdict, cards)


@pytest.mark.parametrize(
    ("free", "verdict"),
    [(GPU_DISK, "gpu"), (GPU_DISK - 1, "cpu"), (CPU_DISK, "cpu"), (CPU_DISK - 1, "none"), (None, "gpu")],
)
def test_an_image_fits_on_the_disk_to_the_mib_and_is_hoped_to_where_nobody_tells(
    free: int | None, verdict: str
) -> None:
    assert planned(card(), disk={"free_mib": free}).verdict == verdict


def test_an_image_that_is_there_needs_no_room_and_a_better_card_does_not_hide_the_other() -> None:
    """The better card's image finds no room; the other's is on the host already."""
    ada = card(pci_id="28a1", capability="8.9", index=0, uuid="GPU-0")
    pascal = card(index=1, uuid="GPU-1")
    made = planned(ada, pascal, disk={"free_mib": 6000}, containers={"images": ["any/name:0.1.0-cuda-fp32"]})
    assert [(one.variant.name, one.card.card.index) for one in made.instances if one.card] == [
        ("cuda-fp32", 1)
    ]
    assert f"{GPU_DISK} MiB" in {reason.limit for reason in made.changes}


def test_better_cards_come_first() -> None:
    """Half before single precision, then more memory; instances are named in that order."""
    rows = [
        card(index=0, uuid="GPU-0", total_mib=4096, free_mib=2000),
        card(index=1, uuid="GPU-1", total_mib=4096, free_mib=3000),
        card(pci_id="28a1", capability="8.9", index=2, uuid="GPU-2", total_mib=4096, free_mib=1500),
    ]
    made = planned(*rows)
    assert [(one.name, one.card.card.index) for one in made.instances if one.card] == [
        *(("gpu0", 2), ("gpu1", 1), ("gpu2", 0)),
    ]


@pytest.mark.parametrize(
    ("cores", "flags", "known"),
    [(2, True, True), (8, True, True), (1, True, False), (None, True, False), (2, False, False)],
)
def test_a_speed_is_told_for_processors_like_the_one_it_was_measured_on(
    cores: int | None, flags: bool, known: bool
) -> None:
    usual = host().flags
    given = [*usual, "avx512_vnni"] if flags else [flag for flag in usual if flag != "avx512_vnni"]
    (one,) = planned(cpu={"cores": cores, "flags": given}).instances
    assert one.speed.rtf == (0.024 if known else None)
    assert ("measured on another machine" in one.speed.basis) == known


def test_a_speed_of_a_processor_is_not_told_for_a_card() -> None:
    (one,) = planned(card(), cpu={"cores": 8, "flags": [*host().flags, "avx512_vnni"]}).instances
    assert one.speed.rtf is None


@pytest.mark.parametrize(
    ("total", "swap", "warned"), [(2047, 0, True), (2048, 0, False), (2047, 1, False), (2047, None, True)]
)
def test_small_hosts_without_swap_are_warned(total: int, swap: int | None, warned: bool) -> None:
    made = planned(memory={"total_mib": total, "swap_mib": swap})
    assert bool(said(made, "no swap")) == warned


def test_memory_that_others_hold_now_is_warned_of() -> None:
    needed = sum(one.ram for one in planned().instances)
    assert said(planned(memory={"available_mib": needed - 1}), f"{needed} MiB will be needed")
    assert not said(planned(memory={"available_mib": needed}), "will be needed")
    assert not said(planned(memory={"available_mib": None}), "will be needed")


@pytest.mark.parametrize(
    ("toolkit", "runtime", "words"),
    [
        (None, False, "toolkit is missing"),
        (None, True, "no CDI description"),
        ("1.17.0", False, "no CDI description"),
    ],
)
def test_one_way_to_the_card_is_enough_to_be_told_of_the_better_one(
    toolkit: str | None, runtime: bool, words: str
) -> None:
    made = planned(card(), containers={"cdi": False, "nvidia_toolkit": toolkit, "nvidia_runtime": runtime})
    assert [warning for warning in made.warnings if "toolkit" in warning or "CDI" in warning] == said(
        made, words
    )
    assert said(made, words)


def test_a_host_that_runs_nothing_is_warned_of_nothing() -> None:
    made = planned(memory={"total_mib": 400, "swap_mib": 0}, cgroup=None)
    assert (made.verdict, made.warnings) == ("none", ())


def test_every_instance_has_punctuation_and_the_page_where_memory_holds_them() -> None:
    made = planned(card(index=0, uuid="GPU-0"), card(index=1, uuid="GPU-1"))
    extras = TABLE.memory["punctuation_ram_mib"] + TABLE.memory["page_ram_mib"]
    assert [one.ram for one in made.instances] == [GPU_RAM + extras] * 2
    assert not [one for one in made.instances if "off" in one.environment.values()]


@pytest.mark.parametrize(
    ("free", "precision"), [(1388, "fp32"), (1387, STORAGE), (973, STORAGE), (972, "int8")]
)
def test_weights_are_held_as_wide_as_the_card_has_room(free: int, precision: str) -> None:
    """A GTX 1050 Ti computes in single precision; to the MiB of docs/variants.md."""
    (one,) = planned(card(total_mib=4096, free_mib=free)).instances
    assert one.precision == precision


def test_a_card_that_is_busy_is_told_from_one_that_is_small() -> None:
    [busy] = planned(card(total_mib=4096, free_mib=900)).changes
    assert "With 973 MiB of" in busy.text and "other programs hold 3196 MiB now" in busy.text
    [small] = planned(card(total_mib=900, free_mib=900)).changes
    assert small.text == "A card with 973 MiB or more would change this."


def test_the_module_is_told_where_a_card_has_no_choice() -> None:
    """Pascal has no open module; Ada works with either."""
    reasons = [reason.text for reason in planned(card()).driver.reasons]
    assert "Pascal works with the proprietary kernel module only" in reasons
    ada = planned(card(pci_id="28a1", capability="8.9")).driver
    assert not [reason for reason in ada.reasons if "kernel module only" in reason.text]
    both = planned(card(index=0, uuid="GPU-0"), card(pci_id="28a1", capability="8.9", index=1, uuid="GPU-1"))
    assert both.driver.modules == "proprietary", "it drives both"


def test_a_branch_is_held_for_those_that_need_it_and_recommended_to_those_without_a_driver() -> None:
    pascal, ada = card(index=0, uuid="GPU-0"), card(pci_id="28a1", capability="8.9", index=1, uuid="GPU-1")
    told = [reason.text for reason in planned(pascal, ada).driver.reasons]
    assert "580 is the last branch for Pascal: hold the packages there" in told
    assert not [text for text in told if TABLE.branch_reason in text], "the driver that is there may stay"
    bare = {"loaded": None, "flavour": None, "installed": None}
    fresh = planned({**ada, "state": "driverless", "kernel_driver": None}, driver=bare).driver
    assert (fresh.action, fresh.branch) == ("install", TABLE.branch)
    assert [reason.text for reason in fresh.reasons if TABLE.branch_reason in reason.text]

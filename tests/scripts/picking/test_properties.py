"""What must hold for every host, tried on hundreds of made-up ones.

More never makes worse, nothing is promised that is not there, and every sentence names the limit that decided.
"""

from __future__ import annotations

import random
import re
from typing import Any

import pytest

from scripts.picking.host import host_of
from scripts.picking.plan import Plan, plan
from scripts.picking.reasons import Reason
from tests.support.hosts import NAMES, TABLE, capture, card, facts

# One device id of each generation, of each quirk, and one that nobody knows.
FIRST = [one.devices[0][0] for one in TABLE.generations] + [one.devices[0][0] for one in TABLE.quirks]
IDS = [*(f"{device:04x}" for device in FIRST), "3fff"]
STATES = ("ready", "ready", "ready", "unreadable", "unlisted", "driverless")
DRIVERS = ("470.256.02", "525.60.13", "535.247.01", "580.95.05", "610.43.02", None)


def _plan(made: dict[str, Any]) -> Plan:
    return plan(host_of(made, "a random host"), TABLE)


def _random_card(rng: random.Random, index: int) -> dict[str, Any]:
    total = rng.choice((1024, 2048, 3911, 4096, 6144, 8192))
    state = rng.choice(STATES)
    made = card(
        index=index,
        uuid=f"GPU-{index}",
        pci_address=f"0000:{index + 1:02x}:00.0",
        pci_id=rng.choice(IDS),
        capability=None,
        state=state,
        total_mib=total,
        free_mib=rng.randint(0, total),
        own_mib=rng.choice((0, 0, 0, 1379)),
        mig=None,
    )
    if state != "ready":
        made.update(total_mib=None, used_mib=None, free_mib=None)
    return made


def _random_facts(seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    cards = [_random_card(rng, index) for index in range(rng.randint(0, 3))]
    driver = rng.choice(DRIVERS)
    made = facts(
        *cards,
        memory={"total_mib": rng.choice((473, 968, 1964, 3903, 7850, 32000))},
        driver={
            "loaded": driver,
            "flavour": rng.choice(("open", "proprietary")) if driver else None,
            "installed": rng.choice((driver, "580.95.05")),
            "smi": rng.choice((None, "absent", "hung", "failed: No devices were found")),
        },
        disk={"free_mib": rng.choice((1000, 6000, 100000))},
    )
    made["system"]["secure_boot"] = rng.choice((True, False, None))
    return made


def _value(made: Plan) -> tuple[int, ...]:
    """How good a plan is: the precisions of its instances, best first; a processor counts least."""
    worth = {"fp16": 4, "fp32": 3, "fp16 storage": 2, "int8": 1}
    return tuple(sorted((worth[one.precision] for one in made.instances), reverse=True))


@pytest.mark.parametrize("device", IDS)
def test_more_memory_on_the_card_never_gives_a_worse_verdict(device: str) -> None:
    worth = {"fp32": 3, "fp16": 3, "fp16 storage": 2, "int8": 1}
    before = 0
    for free in sorted([*range(0, 4000, 37), 972, 973, 1387, 1388]):
        made = _plan(facts(card(pci_id=device, capability=None, total_mib=4096, free_mib=free)))
        now = worth[made.instances[0].precision]
        assert now >= before, f"{free} MiB give less than less did"
        before = now


def test_more_memory_in_the_host_never_gives_a_worse_verdict() -> None:
    for seed in range(120):
        made = _random_facts(seed)
        before: tuple[int, ...] = ()
        for total in (256, 608, 864, 903, 980, 1895, 1896, 2012, 2500, 3536, 6000, 64000):
            made["memory"]["total_mib"] = total
            now = _value(_plan(made))
            assert now >= before, f"seed {seed}: {total} MiB give {now}, less gave {before}"
            before = now


def test_a_further_card_never_takes_anything_away() -> None:
    for seed in range(120):
        made = _random_facts(seed)
        # Cards come as they are: one that needs another module than the loaded one only adds a reason.
        alone = _value(_plan(made))
        made["gpus"].append(_random_card(random.Random(seed + 10_000), 7))
        assert _value(_plan(made)) >= alone, seed


def test_nothing_is_promised_that_the_host_has_not() -> None:
    for seed in range(600):
        made = _random_facts(seed)
        found = _plan(made)
        taken = 0
        for one in found.instances:
            taken += one.ram
            assert one.ram <= one.ram_limit <= made["memory"]["total_mib"] - TABLE.memory["system_ram_mib"]
            if one.card is None:
                assert one.vram == 0
                continue
            there = one.card.card
            assert there.free is not None and there.total is not None and there.state == "ready"
            assert one.vram + TABLE.memory["reserve_mib"] <= there.free <= there.total, seed
        assert taken + TABLE.memory["system_ram_mib"] <= made["memory"]["total_mib"] or not found.instances
        used = [one.card.card.index for one in found.instances if one.card is not None]
        assert len(used) == len(set(used)), "a card got two instances"


@pytest.mark.parametrize("device", IDS)
def test_a_card_that_is_just_large_enough_is_promised_no_more_than_it_has(device: str) -> None:
    """Between the least that is needed and room for full batches, the promise follows what is free."""
    reserve, context = TABLE.memory["reserve_mib"], TABLE.memory["context_mib"]
    for free in [*range(970, 1040), *range(1380, 1460), 9000]:
        (one,) = _plan(facts(card(pci_id=device, capability=None, total_mib=9000, free_mib=free))).instances
        if one.card is not None:
            weights = TABLE.memory["weights_mib"]["fp32" if one.precision == "fp32" else "fp16"]
            working = one.vram - context - weights
            assert working == min(TABLE.memory["working_mib"], free - reserve - context - weights)
            assert working >= TABLE.memory["working_mib"] // 2


def _all_reasons(made: Plan) -> tuple[Reason, ...]:
    return (*made.reasons, *made.changes, *made.driver.reasons)


def _limits() -> set[str]:
    """Everything in the table that can decide, as sentences write it, and the few properties that are no numbers."""
    known = {one.capability for one in TABLE.generations} | {
        "10de",
        "MIG",
        "Secure Boot",
        "vfio-pci",
        "mismatch",
    }
    known |= {"nvidia-smi", "nvidia-smi -L", "compute capability", "memory.free", "open", "proprietary"}
    known |= {version for one in TABLE.wheels for version in one.minimum_driver.values() if version}
    known |= {
        str(number) for one in TABLE.generations for number in (one.first_branch, one.last_branch) if number
    }
    known |= {str(TABLE.branch), "linux/amd64", "linux/amd64 and linux/arm64"}
    known |= {flag for row in TABLE.cpu.values() for flag in row["required_flags"]}
    return known


def test_every_reason_names_its_threshold() -> None:
    limits = _limits()
    seen: set[str] = set()
    for made in [*map(_random_facts, range(500)), *map(capture, NAMES)]:
        found = _plan(made)
        assert found.reasons, "a verdict without a reason"
        for reason in _all_reasons(found):
            assert reason.limit in reason.text
            seen.add(reason.limit)
    sizes = {limit for limit in seen if re.fullmatch(r"\d+ MiB", limit)}
    installed = {limit for limit in seen if re.fullmatch(r"\d{3}\.\d+(\.\d+)?", limit)}
    assert not seen - sizes - installed - limits
    assert sizes >= {"973 MiB", "1388 MiB", "608 MiB", "1640 MiB", "12288 MiB", "2048 MiB"}


def test_a_reason_without_its_limit_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="does not name its limit"):
        Reason("the card is too small", "973 MiB")
    with pytest.raises(ValueError, match="does not name its limit"):
        Reason("the card is too small", "")


def test_whoever_gets_less_is_told_what_would_change_it() -> None:
    for seed in range(500):
        made = _random_facts(seed)
        found = _plan(made)
        dropped = [one for one in found.cards if one.way is None]
        assert all(one.changes for one in dropped), seed
        if found.verdict == "none":
            assert found.changes, seed


def test_the_same_facts_give_the_same_plan() -> None:
    for seed in range(50):
        assert _plan(_random_facts(seed)) == _plan(_random_facts(seed))

"""The picker before anything is installed and the engine at run time decide alike, on the same table of cards.

scripts may not import app, so the rules stand in both; here they are held together.
"""

from __future__ import annotations

import math
import re

import pytest

from app.asr import devices, memory
from app.asr.devices import FP16_STORAGE, Card, CudaReport, Wish, candidates
from app.service.settings import PREFIX, Settings
from scripts.picking.cards import STORAGE
from scripts.picking.host import load_host
from scripts.picking.plan import Instance, plan
from scripts.picking.table import Wheels, capability_of, version_of
from tests.support.hosts import CAPTURES, NAMES, TABLE, card, host

MIB = 1 << 20
WEIGHTS = {name: mib * MIB for name, mib in TABLE.memory["weights_mib"].items()}
CU126 = next(one for one in TABLE.wheels if one.name == "cu126")
# PCI ids and the names that drivers give: what the picker reads, and what the engine reads.
CARDS = [
    ("1380", "NVIDIA GeForce GTX 750 Ti", "5.0"),
    ("1401", "NVIDIA GeForce GTX 960", "5.2"),
    ("15f8", "Tesla P100-PCIE-16GB", "6.0"),
    ("1d01", "NVIDIA GeForce GT 1030", "6.1"),
    ("1d13", "NVIDIA GeForce MX250", "6.1"),
    ("1c94", "NVIDIA GeForce MX350", "6.1"),
    ("1c82", "NVIDIA GeForce GTX 1050 Ti", "6.1"),
    ("1cb3", "Quadro P400", "6.1"),
    ("1db1", "Tesla V100-SXM2-16GB", "7.0"),
    ("1eb8", "Tesla T4", "7.5"),
    ("1f08", "NVIDIA GeForce RTX 2060", "7.5"),
    ("1f36", "Quadro RTX 3000", "7.5"),
    ("1f82", "NVIDIA GeForce GTX 1650", "7.5"),
    ("1f83", "NVIDIA GeForce GTX 1630", "7.5"),
    ("1f95", "NVIDIA GeForce GTX 1650 Ti", "7.5"),
    ("1f97", "NVIDIA GeForce MX450", "7.5"),
    ("1f9f", "NVIDIA GeForce MX550", "7.5"),
    ("1fb0", "Quadro T1000", "7.5"),
    ("1fb1", "NVIDIA T600", "7.5"),
    ("1fb2", "NVIDIA T400", "7.5"),
    ("1fb7", "NVIDIA T550 Laptop GPU", "7.5"),
    ("1fb8", "Quadro T2000", "7.5"),
    ("1fbb", "NVIDIA T500", "7.5"),
    ("1fbc", "NVIDIA T1200 Laptop GPU", "7.5"),
    ("1ff2", "NVIDIA T400 4GB", "7.5"),
    ("2182", "NVIDIA GeForce GTX 1660 Ti", "7.5"),
    ("2187", "NVIDIA GeForce GTX 1650 SUPER", "7.5"),
    ("2189", "NVIDIA CMP 30HX", "7.5"),
    ("1f09", "NVIDIA GeForce GTX 1660 SUPER", "7.5"),
    ("20b0", "NVIDIA A100-SXM4-40GB", "8.0"),
    ("25a2", "NVIDIA GeForce RTX 3050 Laptop GPU", "8.6"),
    ("25a9", "NVIDIA GeForce RTX 2050", "8.6"),
    ("2531", "NVIDIA RTX A2000", "8.6"),
    ("28a1", "NVIDIA GeForce RTX 4050 Laptop GPU", "8.9"),
    ("2335", "NVIDIA H200", "9.0"),
    ("128b", "NVIDIA GeForce GT 710", "3.5"),
    ("2d05", "NVIDIA GeForce RTX 5060", "12.0"),
    ("2901", "NVIDIA B200", "10.0"),
]


def _engine_card(name: str, capability: str, free: int) -> Card:
    """The card as the engine sees it: after CUDA has taken its part, and with torch's word on what it has code for."""
    number = capability_of(capability)
    assert number is not None
    left = max(0, free - TABLE.memory["context_mib"]) * MIB
    return Card(0, name, number, left, left, devices.covered(number, CU126.architectures))


def _first(engine: Card, wish: Wish) -> str:
    """Where and how the engine would run first, given both float packs and the int8 one."""
    found, _ = candidates(wish, CudaReport((engine,)), {**WEIGHTS, "int8": 300 * MIB})
    return found[0].precision if found[0].device == "cuda:0" else "cpu"


def _agree(instance: Instance, engine: Card) -> None:
    found = _first(engine, Wish(precision=instance.environment["ASR_PRECISION"]))
    if instance.card is None:
        # Told `auto` on this card the engine would go to the processor as well.
        assert _first(engine, Wish()) == "cpu"
    elif instance.precision == STORAGE and engine.doubtful_half:
        # The engine tries half before storage, and keeps it when its self-check passes; both fit.
        assert found == "fp16"
    else:
        assert found == instance.precision


@pytest.mark.parametrize(("device", "name", "capability"), CARDS)
def test_a_card_is_used_alike_at_any_size(device: str, name: str, capability: str) -> None:
    for free in [*range(0, 1800, 31), 972, 973, 1387, 1388, 4000, 16000]:
        row = card(pci_id=device, name=name, capability=capability, total_mib=16384, free_mib=free)
        modules = next(one.modules for one in TABLE.generations if one.holds(int(device, 16)))
        (instance,) = plan(host(row, driver={"flavour": modules[0]}), TABLE).instances
        _agree(instance, _engine_card(name, capability, free))


@pytest.mark.parametrize("name", NAMES)
def test_every_capture_is_decided_alike(name: str) -> None:
    for instance in plan(load_host(CAPTURES / f"{name}.json"), TABLE).instances:
        if instance.card is None or instance.card.part is not None:
            continue
        there = instance.card.card
        assert there.name is not None and there.free is not None
        capability = there.capability or instance.card.generation.capability  # type: ignore[union-attr]
        _agree(instance, _engine_card(there.name, capability, there.free))


def test_both_count_the_same_memory() -> None:
    assert TABLE.memory["working_mib"] * MIB == memory.WORKING_BYTES
    assert TABLE.memory["reserve_mib"] * MIB == memory.GPU_RESERVE_BYTES
    weights = TABLE.memory["weights_mib"]
    assert weights["fp16"] == math.ceil(weights["fp32"] * devices._SHARE["fp16"])
    assert STORAGE == FP16_STORAGE


@pytest.mark.parametrize("wheels", [one for one in TABLE.wheels if one.cuda], ids=lambda one: one.name)
def test_both_hold_the_same_drivers_to_be_old(wheels: Wheels) -> None:
    assert wheels.cuda is not None and wheels.minimum_driver["linux"] is not None
    oldest = devices.OLDEST_DRIVER[int(wheels.cuda.partition(".")[0])]
    assert version_of(wheels.minimum_driver["linux"]) == version_of(oldest)


@pytest.mark.parametrize("wheels", TABLE.wheels, ids=lambda one: one.name)
def test_both_know_alike_what_a_build_of_torch_runs_on(wheels: Wheels) -> None:
    for major in range(2, 14):
        for minor in range(10):
            expected = devices.covered((major, minor), wheels.architectures)
            assert wheels.covers((major, minor)) == expected, (major, minor)


def test_names_and_ids_tell_the_same_cards_without_tensor_cores() -> None:
    for device, name, capability in CARDS:
        number = int(device, 16)
        quirk, one = TABLE.quirk(number), TABLE.generation(number, None)
        assert one is not None
        half = quirk.half if quirk else one.half
        assert (half == "unproven") == _engine_card(name, capability, 4000).doubtful_half, name


def test_the_settings_of_the_images_are_settings_of_the_service() -> None:
    for variant in TABLE.variants:
        names = {re.sub(f"^{PREFIX}", "", name).lower() for name in variant.environment}
        assert names <= set(Settings.model_fields)
        values = {name[len(PREFIX) :].lower(): value for name, value in variant.environment.items()}
        assert Settings(**values).precision in {"auto", "fp32", "int8"}  # type: ignore[arg-type]


def test_what_the_picker_switches_off_the_service_can_switch_off() -> None:
    (one,) = plan(host(memory={"total_mib": 864}), TABLE).instances
    read = Settings(**{name[len(PREFIX) :].lower(): value for name, value in one.environment.items()})  # type: ignore[arg-type]
    assert (read.page, read.punctuation, read.variant) == ("off", "off", "cpu")

"""From a verdict to instances: packs, ports, cards, and what an operator's override may say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.playbooks import ROOT, module

fleet = module("filter_plugins/fleet.py")
TABLE = json.loads((ROOT / "images" / "variants.json").read_text(encoding="utf-8"))
PACKS = {"int8": "app/demo/packs/int8", "fp16": "app/demo/packs/fp16"}


def instance(variant: str, pack: str, device: str | None) -> dict[str, Any]:
    return {
        "name": variant,
        "variant": variant,
        "precision": pack,
        "pack": pack,
        "device": {"cdi": device} if device else None,
        "environment": {"ASR_DEVICE": "auto"},
        "memory_limit_mib": 700,
    }


CARDS = [instance("cuda-fp16", "fp16", "nvidia.com/gpu=0"), instance("cuda-fp32", "fp32", "nvidia.com/gpu=1")]
CPU = [instance("cpu", "int8", None)]


def instances(picked: list[dict[str, Any]], **settings: Any) -> list[dict[str, Any]]:
    given = {"table": TABLE, "override": "", "packs": PACKS, "clone": str(ROOT), "port": 8000, **settings}
    made: list[dict[str, Any]] = fleet.fleet_instances({"instances": picked}, given)
    return made


def test_each_card_gets_an_instance_a_port_and_its_pack() -> None:
    first, second = instances(CARDS)
    assert [first["port"], second["port"]] == [8000, 8001]
    assert [first["device"], second["device"]] == ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]
    assert first["pack_id"].startswith("demo-fp16-")
    assert second["pack_id"] == first["pack_id"], "without an fp32 pack the fp16 one serves"


def test_the_id_of_a_pack_changes_with_its_content(tmp_path: Path) -> None:
    manifest = {"name": "my model", "precision": "int8", "files": {}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    first = fleet.pack_id(str(tmp_path))
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "files": {"a": 1}}))
    assert first.startswith("my-model-int8-") and first != fleet.pack_id(str(tmp_path))


def test_a_pack_that_is_not_there_is_told_with_what_to_do() -> None:
    with pytest.raises(fleet.FleetError, match="fleet_packs names no int8 pack"):
        instances(CPU, packs={})
    with pytest.raises(fleet.FleetError, match="make model"):
        instances(CPU, packs={"int8": "nowhere"})


def test_the_processor_in_place_of_cards() -> None:
    (only,) = instances(CARDS, override="cpu")
    assert only["variant"] == "cpu" and only["device"] == "" and only["environment"]["ASR_DEVICE"] == "cpu"


def test_another_variant_on_the_same_cards() -> None:
    made = instances(CARDS, override="cuda-fp32")
    assert [one["variant"] for one in made] == ["cuda-fp32"] * 2
    assert [one["environment"]["ASR_PRECISION"] for one in made] == ["fp32"] * 2


def test_overrides_that_cannot_be() -> None:
    with pytest.raises(fleet.FleetError, match="there are cpu, cuda-fp16, cuda-fp32"):
        instances(CPU, override="tpu")
    with pytest.raises(fleet.FleetError, match="found no card"):
        instances(CPU, override="cuda-fp16")

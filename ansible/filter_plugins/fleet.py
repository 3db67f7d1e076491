"""From the picker's verdict to the instances of a host: which image, which pack, which port, which card.

Here: what every role that deals with instances agrees on. The verdict is scripts/pick_variant.py's, the table
images/variants.json's; nothing is decided here but what an override says.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"


class FleetError(ValueError):
    """What is wrong with the settings of the fleet, and what to do; Ansible shows it as it is."""


def pack_id(folder: str) -> str:
    """Name of a pack on hosts: name, precision and the first digits of the manifest's SHA-256, which covers all files.

    Raises:
        FleetError: there is no pack in this folder of the controller.
    """
    manifest = Path(folder) / MANIFEST
    try:
        raw = manifest.read_bytes()
        told = json.loads(raw)
        words = f"{told['name']}-{told['precision']}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FleetError(
            f"{manifest} is not the manifest of a model pack ({error}). Make the pack: make model"
        ) from None
    return f"{re.sub(r'[^A-Za-z0-9.]+', '-', words)}-{hashlib.sha256(raw).hexdigest()[:12]}"


def source_of(precision: str, packs: dict[str, str], clone: str) -> str:
    """The folder of the pack for a precision. Without one in fp32 the fp16 pack serves: it is computed with in fp32.

    Raises:
        FleetError: fleet_packs has none.
    """
    given = packs.get(precision) or (packs.get("fp16") if precision == "fp32" else None)
    if not given:
        raise FleetError(
            f"fleet_packs names no {precision} pack, and a host needs one. Make it, and name it there."
        )
    return str(Path(clone) / Path(given).expanduser())


def overridden(instances: list[dict[str, Any]], table: dict[str, Any], override: str) -> list[dict[str, Any]]:
    """The instances with a variant of the operator's choice: on the processor one, on cards as many as were picked.

    Raises:
        FleetError: there is no such variant, or no card for it.
    """
    variants = {variant["name"]: variant for variant in table["variants"]}
    if override not in variants:
        raise FleetError(f"variant_override is {override!r}; there are {', '.join(sorted(variants))}.")
    variant = variants[override]
    chosen = {"variant": override, "precision": variant["precision"], "pack": variant["pack"]}
    chosen["environment"] = dict(variant["environment"])
    if variant["device"] == "cpu":
        return [{"name": "cpu", "device": None, "memory_limit_mib": 0, **chosen}]
    on_cards = [one for one in instances if one["device"]]
    if not on_cards:
        raise FleetError(
            f"variant_override is {override}, and the picker found no card that could run it. Leave it out to see why."
        )
    return [{**one, **chosen} for one in on_cards]


def fleet_instances(verdict: dict[str, Any], settings: dict[str, Any]) -> list[dict[str, Any]]:
    """What runs on a host: index, variant, precision, pack (id and folder on the controller), CDI device, port, limits.

    Args:
        verdict: of pick_variant.py.
        settings: table, override ("" for none), packs, clone, port.
    """
    picked = verdict["instances"]
    if settings["override"]:
        picked = overridden(picked, settings["table"], settings["override"])
    made = []
    for index, one in enumerate(picked):
        source = source_of(one["pack"], settings["packs"], settings["clone"])
        made.append(
            {
                "index": index,
                "variant": one["variant"],
                "precision": one["precision"],
                "pack_id": pack_id(source),
                "pack_source": source,
                "device": one["device"]["cdi"] if one["device"] else "",
                "environment": dict(one["environment"]),
                "memory_mib": one["memory_limit_mib"],
                "port": settings["port"] + index,
            }
        )
    return made


class FilterModule:
    """The entry that Ansible looks for."""

    def filters(self) -> dict[str, object]:
        return {"fleet_instances": fleet_instances}

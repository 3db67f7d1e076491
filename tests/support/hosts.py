"""Facts of hosts for the tests of the picker: the captures, and made-up hosts with one card each."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from scripts.picking.host import Host, host_of
from scripts.picking.table import PATH, Table, load_table

CAPTURES = Path(__file__).resolve().parent.parent / "captures"
NAMES = sorted(path.stem for path in CAPTURES.glob("*.json"))
TABLE: Table = load_table()
DRIVER = {"loaded": "580.95.05", "flavour": "proprietary", "installed": "580.95.05"}


def capture(name: str) -> dict[str, Any]:
    """The facts of a capture."""
    facts: dict[str, Any] = json.loads(_text(CAPTURES / f"{name}.json"))
    return facts


@cache
def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def table_data() -> dict[str, Any]:
    """The table as it stands in the file, free to be changed."""
    data: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))
    return data


def card(**changes: Any) -> dict[str, Any]:
    """A card that is ready: a GTX 1050 Ti unless something else is said."""
    (made,) = capture("gtx1050ti-4g")["gpus"]
    made.update(changes)
    if "total_mib" in changes or "free_mib" in changes:
        made["used_mib"] = made["total_mib"] - made["free_mib"]
    return dict(made)


def facts(*cards: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A roomy x86-64 host with a driver that serves every card, and these cards."""
    made = capture("gtx1050ti-4g")
    made["gpus"] = list(cards)
    made["memory"].update({"total_mib": 32000, "available_mib": 30000})
    for name, value in changes.items():
        if isinstance(value, dict):
            made[name].update(value)
        else:
            made[name] = value
    return made


def host(*cards: dict[str, Any], **changes: Any) -> Host:
    """The same as a checked host."""
    return host_of(facts(*cards, **changes), "a made-up host")

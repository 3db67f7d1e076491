"""Writes docs/variants.md, the table of variants for people: `python3 -m scripts.picking.page`.

Everything on the page comes from images/variants.json; a test fails when the page is older than the table.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Iterable, Sequence

from scripts.picking.errors import InputError
from scripts.picking.table import Generation, Quirk, Table, Variant, Wheels, load_table

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "variants.md"
_HEAD = """# Variants

Made by `python3 -m scripts.picking.page` from [images/variants.json](../images/variants.json); do not edit.
How a host gets one of these is told in [picking.md](picking.md).
"""


_CARDS = """Driver to install: branch {branch}, {why}.
Cards are told apart by PCI device id before there is a driver; then what the driver tells of them wins."""
_MEMORY = """Free memory needed on a card = weights + half of `working_mib` + `reserve_mib` + `context_mib`. Weights in
half, computed in single precision, need as much as half precision."""


def page(table: Table) -> str:
    """The page as Markdown."""
    images = (
        "variant|for|computes in|pack|torch|oldest driver|free on the card, MiB|RAM, MiB|disk, MiB|platforms"
    )
    cards = (
        "generation|compute capability|runs|half precision|kernel module|driver branches|PCI ids (10de:...)"
    )
    wheels = "build|CUDA|holds code for|driver on Linux|driver of Windows (WSL)|used by"
    speed = [
        (row["device"], _list(row["flags"]), row["cores"], row["rtf"], row["origin"]) for row in table.speed
    ]
    sources = [
        (f"`{name}`", f"`{row['default']}`" if row["default"] else "", row["meaning"])
        for name, row in table.sources.items()
    ]
    processors = [
        (name, _list(row["required_flags"]), _list(row["wanted_flags"]), row["reason"])
        for name, row in table.cpu.items()
    ]
    parts = [
        _HEAD,
        "## Images\n",
        _rows(images, map(_variant, table.variants)),
        "## Cards\n",
        _CARDS.format(branch=table.branch, why=table.branch_reason) + "\n",
        _rows(cards, (_generation(table, one) for one in table.generations)),
        "".join(_quirk(one) for one in table.quirks),
        "".join(f"- **{name}**: {half.reason}.\n" for name, half in table.halves.items()),
        "## Builds of torch\n",
        _rows(wheels, (_wheels(table, one) for one in table.wheels)),
        "## Processors\n",
        _rows("architecture|needed|wanted|why", processors),
        "## Memory plan\n",
        _rows("figure|value|where it is from", _memory(table)),
        _MEMORY + "\n",
        "## Speed\n",
        _rows("on|with|cores|RTF|measured", speed),
        "What is not in this table was not measured.\n",
        "## Sources\n",
        _rows("variable|default|meaning", sources),
    ]
    return "\n".join(parts)


def _rows(head: str, rows: Iterable[Sequence[object]]) -> str:
    columns = head.split("|")
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join(lines) + "\n"


def _list(names: Iterable[str]) -> str:
    return ", ".join(names) or "-"


def _variant(one: Variant) -> Sequence[object]:
    wheels = one.wheels
    driver = wheels.minimum_driver["linux"] if wheels is not None else None
    return (
        f"`{one.name}`",
        one.title,
        one.precision,
        one.pack,
        wheels.torch if wheels is not None else "none",
        driver or "-",
        one.vram_mib or "-",
        one.ram_mib,
        one.disk_mib,
        _list(one.platforms),
    )


def _generation(table: Table, one: Generation) -> Sequence[object]:
    branches = f"{one.first_branch or '...'} to {one.last_branch or '...'}"
    precision = table.halves[one.half].precision
    runs = next((v for v in table.variants if v.device == "cuda" and v.precision == precision), None)
    number = tuple(map(int, one.capability.replace("x", "0").split(".")))
    covered = runs is not None and runs.wheels is not None and runs.wheels.covers((number[0], number[1]))
    return (
        one.name,
        one.capability,
        f"`{runs.name}`" if covered and runs is not None else f"`{table.cpu_variant.name}`",
        one.half,
        " or ".join(one.modules),
        "any" if branches == "... to ..." else branches,
        ", ".join(
            f"{first:04x}-{last:04x}" if first != last else f"{first:04x}" for first, last in one.devices
        ),
    )


def _quirk(one: Quirk) -> str:
    ids = ", ".join(f"{first:04x}-{last:04x}" for first, last in one.devices)
    return f"Exception: {one.name} ({ids}; {one.reason}): half precision is {one.half}.\n"


def _wheels(table: Table, one: Wheels) -> Sequence[object]:
    users = [v.name for v in table.variants if v.wheels is not None and v.wheels.name == one.name]
    return (
        one.torch,
        one.cuda or "-",
        one.span or "-",
        one.minimum_driver["linux"] or "-",
        one.minimum_driver["windows"] or "-",
        _list(f"`{user}`" for user in users),
    )


def _memory(table: Table) -> Iterable[Sequence[object]]:
    for name, value in table.memory.items():
        if name == "origin":
            continue
        shown = (
            ", ".join(f"{kind} {mib}" for kind, mib in value.items()) if isinstance(value, dict) else value
        )
        yield f"`{name}`", shown, table.memory["origin"][name]


def main() -> int:
    """Writes the page; returns the exit status."""
    try:
        PAGE.write_text(page(load_table()), encoding="utf-8")
    except InputError as error:
        print(f"{error.problem}.\n{error.fix}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A dry capacity plan: what a list of hosts would run, and whether that is enough for the audio expected.

A fleet file names hosts with a facts file each, how many of that kind there are, and, where it was measured there, the
RTF of an instance. Nothing is fetched and no host is asked. Where the speed of an instance is not known it adds nothing
to the sum, and the plan says for how many that is so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.picking import shapes
from scripts.picking.errors import InputError
from scripts.picking.host import Host, load_host
from scripts.picking.plan import Plan, plan
from scripts.picking.shapes import Choice, Fields, check, read_json
from scripts.picking.table import Table

FLEET_VERSION = 1
# Part of the time that a host computes; the rest is for peaks, restarts and updates.
USE = 0.6
_HOST = Fields({"name": str, "facts": str, "count": int, "rtf": shapes.Optional(float)})
_SHAPE = Fields(
    {
        "fleet_version": Choice((FLEET_VERSION,)),
        "audio_hours_per_day": shapes.Optional(float),
        "hosts": [_HOST],
    }
)


@dataclass(frozen=True)
class Row:
    """Hosts of one kind. `hours`: audio a day of all of them, None where the speed is not known. `rtfs`: of the
    instances of one of them."""

    name: str
    count: int
    host: Host
    plan: Plan
    hours: float | None
    basis: str
    rtfs: tuple[float | None, ...]


@dataclass(frozen=True)
class FleetPlan:
    """All rows, the demand in hours of audio a day, and whether it is met (None: cannot be told)."""

    rows: tuple[Row, ...]
    demand: float | None

    @property
    def capacity(self) -> float:
        """Hours of audio a day of the instances whose speed is known."""
        return sum(row.hours or 0.0 for row in self.rows)

    @property
    def unknown(self) -> int:
        """Instances whose speed is not known."""
        return sum(row.count * len(row.plan.instances) for row in self.rows if row.hours is None)

    @property
    def enough(self) -> bool | None:
        """Whether the known capacity meets the demand; None without a demand, or when the unknown ones decide."""
        if self.demand is None:
            return None
        if self.capacity >= self.demand:
            return True
        return None if self.unknown else False


def load_fleet(path: Path, table: Table) -> FleetPlan:
    """Reads a fleet file and the facts it names (relative to it), and plans for each.

    Raises:
        InputError: a file that cannot be used.
    """
    data = read_json(path, "the fleet file")
    if isinstance(data, dict):
        data.setdefault("audio_hours_per_day", None)
        hosts = data.get("hosts")
        for row in hosts if isinstance(hosts, list) else []:
            if isinstance(row, dict):
                row.setdefault("count", 1)
                row.setdefault("rtf", None)
    check(data, _SHAPE, str(path))
    _check_hosts(data, path)
    return FleetPlan(
        tuple(_row(row, path.parent, table) for row in data["hosts"]), data["audio_hours_per_day"]
    )


def _check_hosts(data: Mapping[str, Any], path: Path) -> None:
    names = [row["name"] for row in data["hosts"]]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or twice:
        what = f"names {', '.join(twice)} twice" if twice else "names no host"
        raise InputError(f"{path} {what}", "Name each kind of host once, with a count.")
    for row in data["hosts"]:
        if row["count"] < 1 or (row["rtf"] is not None and row["rtf"] <= 0):
            raise InputError(
                f"{path}: {row['name']} has a count or an rtf that is not above 0", "Correct it."
            )
    if data["audio_hours_per_day"] is not None and data["audio_hours_per_day"] < 0:
        raise InputError(f"{path}: audio_hours_per_day is below 0", "Correct it.")


def _row(row: Mapping[str, Any], folder: Path, table: Table) -> Row:
    host = load_host(folder / row["facts"])
    return row_of(row["name"], row["count"], host, plan(host, table), row["rtf"])


def row_of(name: str, count: int, host: Host, made: Plan, measured: float | None) -> Row:
    """So many hosts alike. `measured`: the RTF of an instance there, in place of what the table knows."""
    rtfs = tuple(one.speed.rtf if measured is None else measured for one in made.instances)
    basis = "nothing can run there" if not made.instances else "measured there"
    if made.instances and measured is None:
        basis = made.instances[-1].speed.basis
    known = [24 * USE / rtf for rtf in rtfs if rtf is not None]
    hours = sum(known) * count if len(known) == len(rtfs) else None
    return Row(name, count, host, made, hours, basis, rtfs)


def as_json(fleet: FleetPlan) -> dict[str, Any]:
    """The plan as an object of JSON."""
    return {
        "fleet_version": FLEET_VERSION,
        "hosts": [
            {
                "name": row.name,
                "count": row.count,
                "verdict": row.plan.verdict,
                "variants": [one.variant.name for one in row.plan.instances],
                "driver": row.plan.driver.action,
                "hours_per_day": None if row.hours is None else round(row.hours, 1),
                "basis": row.basis,
            }
            for row in fleet.rows
        ],
        "instances": _instances(fleet),
        "packs": sorted({one.pack for row in fleet.rows for one in row.plan.instances}),
        "hours_per_day": round(fleet.capacity, 1),
        "instances_of_unknown_speed": fleet.unknown,
        "demand_hours_per_day": fleet.demand,
        "enough": fleet.enough,
    }


def _instances(fleet: FleetPlan) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in fleet.rows:
        for one in row.plan.instances:
            counts[one.variant.name] = counts.get(one.variant.name, 0) + row.count
    return counts


def as_text(fleet: FleetPlan) -> str:
    """The plan as a table and three sentences."""
    cells = [("host", "count", "runs", "driver", "audio hours a day")]
    for row in fleet.rows:
        runs = ", ".join(one.variant.name for one in row.plan.instances) or "nothing"
        hours = "not known" if row.hours is None else f"{row.hours:.0f}"
        cells.append((row.name, str(row.count), runs, row.plan.driver.action, hours))
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in cells]
    return "\n".join([*lines, "", *_sentences(fleet)]) + "\n"


def _sentences(fleet: FleetPlan) -> list[str]:
    counts = ", ".join(f"{number} x {name}" for name, number in sorted(_instances(fleet).items())) or "none"
    said = [f"Instances: {counts}."]
    said.append(
        f"Hosts computing {USE:.0%} of the time manage {fleet.capacity:.0f} hours of audio a day, not counting "
        f"{fleet.unknown} instances whose speed is not known (measure one, and give its rtf in the fleet file)."
    )
    if fleet.demand is not None:
        answer = {
            True: "That is enough",
            False: "That is not enough",
            None: "Whether that is enough cannot be told",
        }
        said.append(f"{answer[fleet.enough]} for {fleet.demand:g} hours a day.")
    broken = [row.name for row in fleet.rows if not row.plan.instances]
    if broken:
        said.append(f"Nothing can run on: {', '.join(broken)}.")
    waiting = [row.name for row in fleet.rows if row.plan.driver.action not in {"none", "keep"}]
    if waiting:
        said.append(f"With another driver these may do more: {', '.join(waiting)}.")
    return said

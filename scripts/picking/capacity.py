"""How many hours of audio a day a fleet transcribes, at what wait, and what is in the way: speeds in, an answer out.

The most it can do is a sum; the waits are simulated (simulation.py) at a few loads below it and at the one asked for.
What is assumed, and how it compares with the real service, is told in docs/capacity.md.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scripts.picking.errors import InputError
from scripts.picking.fleet import FleetPlan
from scripts.picking.load import Files, poisson
from scripts.picking.simulation import Outcome, Rules, Server, simulate

CAPACITY_VERSION = 1
SEED = 1
# Parts of the most that is possible at which waits are told.
LEVELS = (0.5, 0.8, 0.95)
# A file costs as much as so many seconds of audio beside its own: 2 in docs/benchmarks/service-full-int8.md, 6 in
# cpu.md (10 s alone, against the speed of longer files). Taken for hosts on which nobody measured it, too.
PER_FILE_AUDIO = 5.0
MOST_INSTANCES = 20_000
# A run: files, files for each instance, and segments in all at most; the first part, from an empty fleet, is left out.
_COUNT, _COUNT_EACH, _MOST_SEGMENTS, _SKIPPED = 100_000, 15, 1_000_000, 0.2
_BLOCKS = 20
_CONNECTIONS = "gateway_max_connections"
_DAY = 86400.0


@dataclass(frozen=True)
class _Instances:
    """Every instance of known speed, and the kind of host of each."""

    servers: Sequence[Server]
    names: Sequence[str]


@dataclass(frozen=True)
class Times:
    """Seconds: the mean, its standard error (of means over parts of the run), and what 95 % stay within."""

    mean: float
    error: float
    p95: float


@dataclass(frozen=True)
class Level:
    """One load.

    Attributes:
        hours: of audio a day that arrive; `load` is their part of the most possible.
        asked: somebody asked for this load.
        wait, answer: what others' work adds to an answer, and all the time to it; None when saturated.
        refused: part of the audio that instances refuse; of a saturated fleet, what is not done in the long run.
        busy: part of the time that each kind of host computes; empty when saturated.
        connections: requests inside the gateway, on average; None when saturated.
    """

    hours: float
    load: float
    asked: bool
    wait: Times | None
    answer: Times | None
    refused: float
    busy: dict[str, float]
    connections: float | None

    @property
    def saturated(self) -> bool:
        """More arrives than can be done: queues fill until requests are refused."""
        return self.wait is None


@dataclass(frozen=True)
class Capacity:
    """The answer for a fleet. `most`: hours of audio a day when nothing ever idles; `at_gateway`: its connections are
    what limits that, not the instances' computing."""

    most: float
    at_gateway: bool
    instances: int
    unknown: int
    files: Files
    rules: Rules
    levels: tuple[Level, ...]
    bases: tuple[str, ...]

    @property
    def busiest(self) -> str:
        """The kind of host that computes most of the time at the highest load that was simulated."""
        busy = max((one for one in self.levels if not one.saturated), key=lambda one: one.load).busy
        return max(busy, key=lambda name: busy[name])


def capacity_of(fleet: FleetPlan, files: Files, load: float | None, rules: Rules) -> Capacity:
    """Answers for the instances of a fleet whose speed is known.

    Args:
        load: hours of audio a day to answer for, beside the usual ones; None: the fleet file's.

    Raises:
        InputError: no speed is known, there are more instances than can be simulated, or no such load.
    """
    load = fleet.demand or None if load is None else load
    if load is not None and not 0 < load < math.inf:
        raise InputError(
            f"a load of {load:g} hours a day is not above 0", "Give hours of audio, such as 200."
        )
    instances = _instances(fleet)
    most, at_gateway = _most(instances.servers, files, rules)
    parts = [(part, False) for part in LEVELS] + ([] if load is None else [(load / most, True)])
    levels = []
    for part, asked in sorted(parts):
        found = None if part >= 1 else _simulated(part * most, instances, files, rules)
        levels.append(_level(part * most, part, asked, found))
    known = [row for row in fleet.rows if None not in row.rtfs and row.rtfs]
    bases = tuple(f"{row.name}: RTF {row.rtfs[0]:g}, {row.basis}" for row in known)
    number = len(instances.servers)
    return Capacity(most, at_gateway, number, fleet.unknown, files, rules, tuple(levels), bases)


def _instances(fleet: FleetPlan) -> _Instances:
    servers: list[Server] = []
    names: list[str] = []
    for row in fleet.rows:
        if row.hours is None:
            continue
        for rtf in row.rtfs:
            if rtf is not None:
                servers += [Server(rtf, PER_FILE_AUDIO * rtf)] * row.count
                names += [row.name] * row.count
    if not servers and fleet.unknown:
        raise InputError(
            "the speed of no instance is known, so no capacity can be told",
            "Measure it there (python -m app doctor --capacity --model PACK, or python -m app bench) and give it: rtf "
            "in the fleet file, or --rtf for one host.",
        )
    if not servers:
        raise InputError(
            "nothing can run on any host", "See why, and what would change it: leave --capacity out."
        )
    if len(servers) > MOST_INSTANCES:
        raise InputError(
            f"{len(servers)} instances are more than the {MOST_INSTANCES} that can be simulated",
            "Lower the counts: the answer of a tenth of the fleet, with a tenth of the load, is nearly the same.",
        )
    return _Instances(servers, names)


def _most(servers: Sequence[Server], files: Files, rules: Rules) -> tuple[float, bool]:
    """Hours of audio a day at most, and whether it is the gateway that limits them."""
    alone = [
        sum(share * one.alone(length) for length, share in zip(files.seconds, files.shares))
        for one in servers
    ]
    computing = sum(1 / seconds for seconds in alone)
    # As long as an instance idles it gets the next file, a slow one as often as a fast one.
    limit = rules.connections
    gateway = limit / statistics.fmean(alone) if limit is not None and limit < len(servers) else math.inf
    return min(computing, gateway) * files.mean * _DAY / 3600, gateway < computing


@dataclass(frozen=True)
class _Simulated:
    outcome: Outcome
    busy: dict[str, float]
    refused: float


def _simulated(hours: float, instances: _Instances, files: Files, rules: Rules) -> _Simulated:
    """A run at so many hours of audio a day."""
    segments = sum(share * math.ceil(one / rules.segment) for one, share in zip(files.seconds, files.shares))
    count = int(max(_COUNT_EACH * len(instances.servers), min(_COUNT, _MOST_SEGMENTS / segments)))
    arrivals = list(poisson(files, hours * 3600 / _DAY / files.mean, count, SEED))
    found = simulate(instances.servers, arrivals, rules)
    computed: dict[str, list[float]] = {}
    for name, seconds in zip(instances.names, found.computed):
        computed.setdefault(name, []).append(seconds)
    busy = {name: min(1.0, statistics.fmean(all_) / found.seconds) for name, all_ in computed.items()}
    return _Simulated(found, busy, found.refused_audio / sum(audio for _, audio in arrivals))


def _level(hours: float, part: float, asked: bool, found: _Simulated | None) -> Level:
    if found is None:
        return Level(hours, part, asked, None, None, 1 - 1 / part, {}, None)
    wait, answer = _times(found.outcome.waits), _times(found.outcome.answers)
    return Level(hours, part, asked, wait, answer, found.refused, found.busy, found.outcome.connections)


def _times(values: Sequence[float]) -> Times:
    settled = values[int(_SKIPPED * len(values)) :]
    size = len(settled) // _BLOCKS
    means = [statistics.fmean(settled[at * size : (at + 1) * size]) for at in range(_BLOCKS)]
    return Times(
        mean=statistics.fmean(settled),
        error=statistics.stdev(means) / math.sqrt(_BLOCKS),
        p95=sorted(settled)[int(0.95 * len(settled))],
    )


def as_json(found: Capacity) -> dict[str, Any]:
    """The answer as an object of JSON; told in docs/capacity.md."""
    return {
        "capacity_version": CAPACITY_VERSION,
        "simulated": True,
        "seed": SEED,
        "most_hours_per_day": round(found.most, 1),
        "bottleneck": "gateway connections" if found.at_gateway else "computing",
        "busiest_host": found.busiest,
        "instances": found.instances,
        "instances_of_unknown_speed": found.unknown,
        "gateway_connections": found.rules.connections,
        "speeds": list(found.bases),
        "files": [
            {"seconds": seconds, "share": round(share, 4)}
            for seconds, share in zip(found.files.seconds, found.files.shares)
        ],
        "levels": [_level_json(one) for one in found.levels],
    }


def _level_json(one: Level) -> dict[str, Any]:
    return {
        "hours_per_day": round(one.hours, 1),
        "load": round(one.load, 4),
        "asked": one.asked,
        "saturated": one.saturated,
        "wait_seconds": _times_json(one.wait),
        "answer_seconds": _times_json(one.answer),
        "refused": round(one.refused, 4),
        "busy": {name: round(part, 3) for name, part in one.busy.items()},
        "connections": None if one.connections is None else round(one.connections, 1),
    }


def _times_json(times: Times | None) -> dict[str, float] | None:
    if times is None:
        return None
    return {
        "mean": round(times.mean, 3),
        "standard_error": round(times.error, 3),
        "within_95_percent": round(times.p95, 3),
    }


def as_text(found: Capacity) -> str:
    """The answer as a table and sentences."""
    files, kinds = found.files, f"{min(found.files.seconds):g} to {max(found.files.seconds):g}"
    number = f"{found.instances} instance{'s' if found.instances > 1 else ''}"
    lines = [
        f"At most {found.most:,.0f} hours of audio a day: {number}, files of {kinds} s, {files.mean:.0f} s on average.",
        "",
        *_table(found.levels),
        "",
        "Wait is what others' work adds to an answer (mean, its standard error, and what 95 % stay within).",
        _bottleneck(found),
        *(_asked(one, found) for one in found.levels if one.asked),
    ]
    if found.unknown:
        lines.append(f"Not counted: {found.unknown} instances whose speed is not known.")
    lines += [f"Speed of {basis}." for basis in found.bases]
    lines.append("Simulated, not measured: docs/capacity.md says what is assumed.")
    return "\n".join(lines) + "\n"


def _table(levels: Sequence[Level]) -> list[str]:
    cells = [("hours a day", "load", "wait s", "95 %", "answer s", "95 %", "refused", "")]
    for one in levels:
        wait, answer = ("grows", ""), ("", "")
        if one.wait is not None and one.answer is not None:
            wait = (f"{one.wait.mean:.2f} ± {one.wait.error:.2f}", f"{one.wait.p95:.1f}")
            answer = (f"{one.answer.mean:.2f}", f"{one.answer.p95:.1f}")
        asked = "asked" if one.asked else ""
        cells.append((f"{one.hours:,.0f}", f"{one.load:.0%}", *wait, *answer, f"{one.refused:.1%}", asked))
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths)).rstrip() for row in cells]


def _bottleneck(found: Capacity) -> str:
    if found.at_gateway:
        return (
            f"Bottleneck: the gateway takes {found.rules.connections} requests at once, and {found.instances} "
            f"instances could compute as many; raise {_CONNECTIONS}."
        )
    if len(found.bases) == 1:
        return "Bottleneck: the computing of the instances."
    return f"Bottleneck: the computing of the instances; those of {found.busiest} are busy most of the time."


def _asked(one: Level, found: Capacity) -> str:
    if not one.saturated:
        return f"{one.hours:,.0f} hours a day are {one.load:.0%} of the most."
    saturated = f"{one.hours:,.0f} hours a day saturate it: {one.load:.0%} of the most."
    if found.at_gateway:
        return (
            f"{saturated} Requests wait before the gateway until clients give up; in the long run {one.refused:.0%} "
            f"of the audio is not done. Raise {_CONNECTIONS}."
        )
    return (
        f"{saturated} Queues fill until requests are refused; in the long run {one.refused:.0%} of the audio is not "
        "done. Add hosts, or faster ones."
    )

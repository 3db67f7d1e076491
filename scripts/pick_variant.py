#!/usr/bin/env python3
"""Which image this host should run, with reasons: facts of probe_host.py and images/variants.json in, a verdict out.

    pick_variant.py                     probe this host and decide
    pick_variant.py --facts FILE        decide for recorded facts; "-" reads them from standard input
    pick_variant.py --fleet FILE        a capacity plan for many hosts (docs/picking.md)
    --capacity, --load HOURS            how much audio a day, at what wait; with --fleet or without (docs/capacity.md)
    --json                              for programs
    --table FILE                        another table of variants

Exit status: 0 with a verdict, 3 when nothing can run on the host, 2 when the input cannot be used. The rules are in
scripts/picking; standard library only, Python 3.8.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:
    # Started as a file, Python sees the folder of this file only.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.picking import capacity, fleet, report
from scripts.picking.errors import InputError
from scripts.picking.host import Host, host_of, load_host
from scripts.picking.load import DEFAULT_FILES, files_of
from scripts.picking.plan import plan
from scripts.picking.simulation import Rules
from scripts.picking.table import PATH, Table, load_table
from scripts.probe_host import SECONDS, Probe


def main(arguments: Sequence[str] | None = None) -> int:
    """Decides and prints; returns the exit status."""
    chosen = _parser().parse_args(arguments)
    try:
        table = load_table(chosen.table)
        if chosen.capacity or chosen.load is not None:
            return _tell_capacity(chosen, table)
        if chosen.fleet is not None:
            return _plan_fleet(chosen.fleet, table, as_json=chosen.json)
        host = _host(chosen.facts)
    except InputError as error:
        print(f"{error.problem}.\n{error.fix}", file=sys.stderr)
        return 2
    made = plan(host, table)
    print(
        json.dumps(report.as_json(made, host), indent=2) if chosen.json else report.as_text(made, host),
        end="",
    )
    if chosen.json:
        print()
    return 0 if made.instances else 3


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Picks the image that a host should run, and says why.")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--facts", metavar="FILE", help="facts of probe_host.py; - reads standard input")
    source.add_argument("--fleet", metavar="FILE", type=Path, help="plan for the hosts of this file")
    parser.add_argument("--table", metavar="FILE", type=Path, default=PATH, help="table of variants")
    parser.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.add_argument_group("capacity")
    asked.add_argument("--capacity", action="store_true", help="how many hours of audio a day, at what wait")
    asked.add_argument(
        "--load", metavar="HOURS", type=float, help="the same, for so many hours of audio a day"
    )
    asked.add_argument(
        "--files",
        metavar="LENGTH:WEIGHT,...",
        default=DEFAULT_FILES,
        help="lengths of the files in seconds, and how many of each (default: %(default)s)",
    )
    asked.add_argument(
        "--connections",
        metavar="N",
        type=int,
        default=Rules.connections,
        help="requests that the gateway of a fleet takes at once (gateway_max_connections; default: %(default)s)",
    )
    asked.add_argument("--rtf", type=float, help="measured RTF of an instance of this host; not with --fleet")
    return parser


def _host(facts: str | None) -> Host:
    if facts is None:
        return host_of(Probe(Path("/"), SECONDS).facts(), "this host")
    if facts != "-":
        return load_host(Path(facts))
    try:
        return host_of(json.loads(sys.stdin.read()), "standard input")
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"standard input is not JSON ({error})", "Pipe the output of probe_host.py."
        ) from None


def _plan_fleet(path: Path, table: Table, *, as_json: bool) -> int:
    made = fleet.load_fleet(path, table)
    print(json.dumps(fleet.as_json(made), indent=2) + "\n" if as_json else fleet.as_text(made), end="")
    return 0 if any(row.plan.instances for row in made.rows) else 3


def _tell_capacity(chosen: argparse.Namespace, table: Table) -> int:
    files = files_of(chosen.files)
    if chosen.rtf is not None and (chosen.fleet is not None or not 0 < chosen.rtf < math.inf):
        raise InputError(
            "--rtf is the speed of one host, a number above 0",
            "In a fleet file, give each kind of host its rtf.",
        )
    if chosen.connections < 1:
        raise InputError("--connections is below 1", "Give the gateway's gateway_max_connections.")
    rules = Rules(connections=chosen.connections if chosen.fleet is not None else None)
    if chosen.fleet is not None:
        planned = fleet.load_fleet(chosen.fleet, table)
    else:
        host = _host(chosen.facts)
        row = fleet.row_of("this host", 1, host, plan(host, table), chosen.rtf)
        planned = fleet.FleetPlan((row,), None)
    found = capacity.capacity_of(planned, files, chosen.load, rules)
    if chosen.json:
        print(json.dumps(capacity.as_json(found), indent=2))
    else:
        print(capacity.as_text(found), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())

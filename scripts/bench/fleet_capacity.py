"""`make bench-fleet`: the simulated wait beside that of a fleet that runs, asked through its gateway.

The same as scripts/bench/capacity.py, with several instances behind HAProxy. Writes DIR/fleet-capacity.md and .json.

    python -m scripts.bench.fleet_capacity --url http://GATEWAY:8080 --instances 2 --keys FILE --output DIR
        [--seconds 60] [--files 5:4,20:3,60:2] [--note TEXT]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from scripts.bench.capacity import (
    FILES,
    LOADS,
    SEED,
    Asked,
    Pace,
    Spread,
    arriving,
    between,
    fitted,
    mean_alone,
    mix_of,
    pace_rows,
    paced,
    sent,
    spread,
)
from scripts.bench.machine import describe
from scripts.bench.materials import make_audio
from scripts.bench.measure import BenchError
from scripts.bench.service import PYTHON, WORK, Answer, ask
from scripts.picking.errors import InputError
from scripts.picking.load import Files, files_of
from scripts.picking.simulation import Rules, Server, simulate

# The service's own queue and the gateway's own limit (scripts/picking/simulation.py).
RULES = Rules()
_TIMEOUT = 600.0


class Gateway:
    """The gateway of a fleet, with a key for its services."""

    def __init__(self, url: str, key: str) -> None:
        self._client = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=_TIMEOUT, trust_env=False
        )

    def ask(self, audio: Path, seconds: int) -> Answer:
        """Sends one file and waits for its text."""
        return ask(self._client, audio, seconds)


@dataclass(frozen=True)
class Round:
    """One load: measured and simulated waits in seconds, each instance as it was simulated, and how many failed."""

    load: float
    server: Server
    measured: Spread
    simulated: Spread
    files: int
    failures: int
    load_average: float = 0.0


def measure(gateway: Asked, instances: int, files: Files, seconds: float) -> tuple[list[Pace], list[Round]]:
    """Raises BenchError when a file fails alone, or all of a round."""
    for length in files.seconds:
        make_audio(WORK, int(length))
    paces, rounds = [paced(gateway, files)], list[Round]()
    for number, load in enumerate(LOADS):
        arrivals = arriving(files, load * paces[-1].per_second, seconds, SEED + number)
        answers = sent(gateway, arrivals)
        average = round(os.getloadavg()[0], 2)
        paces.append(paced(gateway, files))
        found = compared(load, arrivals, answers, between(*paces[-2:]), files, instances)
        rounds.append(replace(found, load_average=average))
    return paces, rounds


def compared(
    load: float,
    arrivals: Sequence[tuple[float, float]],
    answers: Sequence[float],
    pace: Pace,
    files: Files,
    instances: int,
) -> Round:
    """Waits beside simulated ones, for the same arrivals; what failed is not counted.

    Raises:
        BenchError: all failed.
    """
    counted = [answer < math.inf for answer in answers]
    if not any(counted):
        raise BenchError("Every file failed; the logs of the services say why.")
    server = fitted(pace.alone, instances / pace.per_second / mean_alone(pace.alone, files))
    simulated = simulate([server] * instances, arrivals, RULES).waits
    rows = (
        [answer - pace.alone[int(audio)] for (_, audio), answer in zip(arrivals, answers, strict=True)],
        simulated,
    )
    measured, foretold = (
        spread([wait for wait, good in zip(row, counted, strict=True) if good]) for row in rows
    )
    return Round(load, server, measured, foretold, len(arrivals), counted.count(False))


def page(
    machine: dict[str, Any],
    instances: int,
    files: Files,
    paces: Sequence[Pace],
    rounds: Sequence[Round],
    note: str,
) -> str:
    """The results as tables."""
    lines = [
        "# The capacity model beside a real fleet",
        "",
        f"Written by `make bench-fleet` on {machine['date']}; do not edit. {instances} instances of the demo model",
        f"behind the gateway, provisioned by the playbooks. {note}".rstrip(),
        f"Machine: {machine['processor']}, {machine['cores']} cores granted, load average",
        f"{machine['load_average_at_start']} before the start; hosts, gateway and clients share it.",
        "",
        f"Files: {mix_of(files)}. Between the rounds the fleet was measured alone and with clients that never pause.",
        "",
        *pace_rows(paces),
        "",
        "Fleet and simulation saw the same arrivals. Wait is an answer's time less that of such a file alone. Ratios",
        "are measured over simulated: above 1 the model promises too much.",
        "",
        "| load | files | failed | wait | measured s | simulated s | ratio | load average |",
        "|---:|---:|---:|---|---:|---:|---:|---:|",
    ]
    for one in rounds:
        start = f"| {one.load:.0%} | {one.files} | {one.failures}"
        for what, measured, simulated in (
            ("mean", one.measured.mean, one.simulated.mean),
            ("95 % within", one.measured.p95, one.simulated.p95),
        ):
            ratio = f"{measured / simulated:.2f}" if simulated else "-"
            lines.append(
                f"{start} | {what} | {measured:.3f} | {simulated:.3f} | {ratio} | {one.load_average} |"
            )
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.bench.fleet_capacity", description="The simulated wait beside a fleet's."
    )
    parser.add_argument("--url", required=True, help="the gateway")
    parser.add_argument("--instances", type=int, required=True, help="how many are behind it")
    parser.add_argument(
        "--keys", type=Path, required=True, help="file whose first line is a key of the services"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the page")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each load (default: 60)")
    parser.add_argument("--files", default=FILES, help="lengths and weights (default: %(default)s)")
    parser.add_argument("--note", default="", help="a sentence about the fleet for the page")
    options = parser.parse_args(arguments)
    machine = describe({"ours": PYTHON})
    WORK.mkdir(parents=True, exist_ok=True)
    try:
        files = files_of(options.files)
        gateway = Gateway(options.url, options.keys.read_text(encoding="utf-8").split()[0])
        paces, rounds = measure(gateway, options.instances, files, options.seconds)
    except (BenchError, InputError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    options.output.mkdir(parents=True, exist_ok=True)
    raw = {"machine": machine, "instances": options.instances, "files": options.files}
    raw |= {"paces": [asdict(one) for one in paces], "rounds": [asdict(one) for one in rounds]}
    (options.output / "fleet-capacity.json").write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
    text = page(machine, options.instances, files, paces, rounds, options.note)
    (options.output / "fleet-capacity.md").write_text(text, encoding="utf-8")
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

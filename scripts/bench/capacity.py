"""`make bench-capacity`: the simulated wait beside that of the real service, for the same arrivals.

The service is a process of its own; each file's time alone and the most that it does of a mix are measured first. Then
files come at moments of chance, at two loads, and the simulation of scripts/picking plays the same moments through.
Writes docs/benchmarks/capacity.md and .json.

    python -m scripts.bench.capacity [--model demo|PACK] [--seconds 90] [--files 5:4,20:3,60:2]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from scripts.bench.machine import describe
from scripts.bench.materials import ROOT, make_audio
from scripts.bench.measure import BenchError
from scripts.bench.service import PYTHON, WORK, Answer, Service, running
from scripts.picking.errors import InputError
from scripts.picking.load import Files, files_of, poisson
from scripts.picking.simulation import Rules, Server, simulate

LOADS = (0.5, 0.8)
FILES = "5:4,20:3,60:2"
SEED = 1
_ALONE_RUNS, _CLIENTS, _CAPACITY_SECONDS = 5, 8, 15.0
# The service under test lets everything in (scripts/bench/service.py), and no gateway is before it.
RULES = Rules(queue=86400.0, connections=None)


class Asked(Protocol):
    """What files are sent to: a service, or the gateway of several."""

    def ask(self, audio: Path, seconds: int) -> Answer:
        """Sends one file and waits for its text."""


@dataclass(frozen=True)
class Pace:
    """What the service can do: seconds of one file alone, by its length, and files a second of the mix at most."""

    alone: dict[int, float]
    per_second: float


@dataclass(frozen=True)
class Spread:
    """Seconds: the mean, and what 95 % stay within."""

    mean: float
    p95: float


@dataclass(frozen=True)
class Compared:
    """The same of the service, of the simulation with the speed before and after (`foretold`), and of the simulation
    with the speed that the service had meanwhile (`meanwhile`)."""

    measured: Spread
    foretold: Spread
    meanwhile: Spread


@dataclass(frozen=True)
class Round:
    """One load.

    Attributes:
        foretold, meanwhile: the instances that were simulated.
        others: part of all processors that went to programs which are no part of this.
        trace: (moment, seconds of audio, seconds to the answer) of each file; infinite where it failed.
    """

    load: float
    foretold: Server
    meanwhile: Server
    wait: Compared
    answer: Compared
    others: float
    load_average: float
    trace: list[tuple[float, float, float]]

    @property
    def failures(self) -> int:
        return sum(answer == math.inf for _, _, answer in self.trace)


def paced(service: Asked, files: Files) -> Pace:
    """Measures both."""
    alone = alone_times(service, sorted({int(length) for length in files.seconds}))
    return Pace(alone, capacity(service, files, alone))


def alone_times(service: Asked, lengths: Sequence[int]) -> dict[int, float]:
    """The median of some runs in turns, nothing beside."""
    runs: dict[int, list[float]] = {length: [] for length in lengths}
    for _ in range(_ALONE_RUNS):
        for length in lengths:
            runs[length].append(_asked(service, length))
    return {length: statistics.median(seconds) for length, seconds in runs.items()}


def _asked(service: Asked, length: int) -> float:
    answer = service.ask(make_audio(WORK, length), length)
    if not answer.good:
        raise BenchError(f"A file of {length} s was not recognised; the log of the service says why.")
    return answer.seconds


def capacity(service: Asked, files: Files, alone: dict[int, float]) -> float:
    """Files a second of the mix, when some clients send one after another.

    What they got done is counted in time alone, so that it matters little which lengths chance dealt them.
    """
    until = time.monotonic() + _CAPACITY_SECONDS

    def client(number: int) -> float:
        chance, done = random.Random(number), 0.0
        while time.monotonic() < until:
            length = int(chance.choices(files.seconds, files.weights)[0])
            _asked(service, length)
            done += alone[length]
        return done

    begun = time.monotonic()
    done = sum(_together([partial(client, number) for number in range(_CLIENTS)]))
    return done / (time.monotonic() - begun) / mean_alone(alone, files)


def mean_alone(alone: dict[int, float], files: Files) -> float:
    """Seconds that a file of the mix takes alone, on average."""
    return sum(alone[int(length)] * share for length, share in zip(files.seconds, files.shares, strict=True))


def _together(tasks: Sequence[Callable[[], float]]) -> list[float]:
    with ThreadPoolExecutor(len(tasks)) as pool:
        return [started.result() for started in [pool.submit(task) for task in tasks]]


def arriving(files: Files, per_second: float, seconds: float, seed: int) -> list[tuple[float, float]]:
    """Moments of chance and lengths, for about so many seconds; at least two files."""
    return list(poisson(files, per_second, max(2, round(per_second * seconds)), seed))


def fitted(alone: dict[int, float], scale: float) -> Server:
    """A line through the times alone, times `scale`: of the time alone, some is spent beside the worker's (decoding,
    answering), and overlaps with other requests' when there are any."""
    slope, base = statistics.linear_regression(list(alone), list(alone.values()))
    return Server(rtf=slope * scale, per_file=max(0.0, base) * scale)


def scale_meanwhile(trace: Sequence[tuple[float, float, float]], alone: dict[int, float]) -> float:
    """Computing beside time alone, from a round itself: what never idles while there is work has computed for as long
    as anything was there, whoever's turn it was."""
    busy = until = 0.0
    for moment, _, answer in trace:
        if answer < math.inf:
            busy += max(0.0, moment + answer - max(moment, until))
            until = max(until, moment + answer)
    return busy / sum(alone[int(audio)] for _, audio, answer in trace if answer < math.inf)


def between(before: Pace, after: Pace) -> Pace:
    """The mean of both: what else runs on the machine changes with time."""
    alone = {length: (seconds + after.alone[length]) / 2 for length, seconds in before.alone.items()}
    return Pace(alone, (before.per_second + after.per_second) / 2)


def sent(service: Asked, arrivals: Sequence[tuple[float, float]]) -> list[float]:
    """Sends each file at its moment; the seconds to each answer, infinite for one that failed."""
    begun = time.monotonic()

    def client(moment: float, length: int) -> float:
        time.sleep(max(0.0, begun + moment - time.monotonic()))
        answer = service.ask(make_audio(WORK, length), length)
        return answer.seconds if answer.good else math.inf

    return _together([partial(client, moment, int(audio)) for moment, audio in arrivals])


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.fmean(values), sorted(values)[int(0.95 * len(values))])


def measure(model: str, files: Files, seconds: float) -> tuple[list[Pace], list[Round]]:
    """Raises BenchError when the service does not start, or fails alone."""
    for length in files.seconds:
        make_audio(WORK, int(length))
    rounds: list[Round] = []
    with tempfile.TemporaryDirectory() as name:
        with running(model, Path(name), page="off"):
            pass  # measures what batches cost, once for this machine
        with running(model, Path(name), page="off") as service:
            paces = [paced(service, files)]
            for number, load in enumerate(LOADS):
                arrivals = arriving(files, load * paces[-1].per_second, seconds, SEED + number)
                others = Others(service)
                answers = sent(service, arrivals)
                share, average = others.share, round(os.getloadavg()[0], 2)
                paces.append(paced(service, files))
                trace = [
                    (moment, audio, answer) for (moment, audio), answer in zip(arrivals, answers, strict=True)
                ]
                rounds.append(compared(load, trace, between(*paces[-2:]), files, (share, average)))
    return paces, rounds


def compared(
    load: float,
    trace: list[tuple[float, float, float]],
    pace: Pace,
    files: Files,
    around: tuple[float, float],
) -> Round:
    """Waits and answers, measured and simulated; what failed is not counted.

    Args:
        around: what others took of the processors, and the load average.
    """
    counted = [answer < math.inf for _, _, answer in trace]
    if not any(counted):
        raise BenchError("Every file failed; the log of the service says why.")
    alone = [pace.alone[int(audio)] for _, audio, _ in trace]
    foretold = fitted(pace.alone, 1 / pace.per_second / mean_alone(pace.alone, files))
    meanwhile = fitted(pace.alone, scale_meanwhile(trace, pace.alone))
    arrivals = [(moment, audio) for moment, audio, _ in trace]
    waits = [
        [answer - own for (_, _, answer), own in zip(trace, alone, strict=True)],
        *(simulate([server], arrivals, RULES).waits for server in (foretold, meanwhile)),
    ]
    answers = [[wait + own for wait, own in zip(row, alone, strict=True)] for row in waits]
    wait, answer = (
        Compared(*(spread([one for one, good in zip(row, counted, strict=True) if good]) for row in rows))
        for rows in (waits, answers)
    )
    return Round(load, foretold, meanwhile, wait, answer, *around, trace)


class Others:
    """How much of the machine's processors goes to programs that are no part of this, from now on."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._begun, self._before = time.monotonic(), self._foreign()

    @property
    def share(self) -> float:
        passed = (time.monotonic() - self._begun) * (os.cpu_count() or 1)
        return round(max(0.0, self._foreign() - self._before) / passed, 3)

    def _foreign(self) -> float:
        """Seconds of all processors at work, less our own and the service's."""
        ticks = os.sysconf("SC_CLK_TCK")
        first = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]
        user, nice, system, _, _, irq, softirq, steal = map(int, first)
        ours = sum(os.times()[:2]) + self._service.processor_seconds()
        return (user + nice + system + irq + softirq + steal) / ticks - ours


def mix_of(files: Files) -> str:
    """The lengths with their shares."""
    parts = zip(files.seconds, files.shares, strict=True)
    return ", ".join(f"{length:g} s ({part:.0%})" for length, part in parts)


def pace_rows(paces: Sequence[Pace]) -> list[str]:
    """What was measured between the rounds, as a table."""
    lengths = " | ".join(f"{length} s alone" for length in paces[0].alone)
    lines = [
        f"| measured | {lengths} | files a second at most |",
        f"|---|{'---:|' * (len(paces[0].alone) + 1)}",
    ]
    for number, pace in enumerate(paces):
        alone = " | ".join(f"{seconds:.3f} s" for seconds in pace.alone.values())
        when = f"{'after' if number else 'before'} round {max(1, number)}"
        lines.append(f"| {when} | {alone} | {pace.per_second:.2f} |")
    return lines


def page(
    model: str, machine: dict[str, Any], files: Files, paces: Sequence[Pace], rounds: Sequence[Round]
) -> str:
    """The results as tables."""
    load = machine["load_average_at_start"]
    lines = [
        "# The capacity model beside the real service",
        "",
        f"Written by `make bench-capacity` on {machine['date']}; do not edit. Model: {model}. Machine:",
        f"{machine['processor']}, {machine['cores']} cores granted, load average {load} before the start. Clients,",
        "service and whatever else ran share these cores.",
        "",
        f"Files: {mix_of(files)}. Between the rounds the service was measured alone and at",
        f"capacity ({_CLIENTS} clients without a pause).",
        "",
        *pace_rows(paces),
        "",
        "Service and simulation saw the same arrivals. Wait is an answer's time less that of such a file alone.",
        "Simulated twice: with the speed of before and after, and with the speed that the service had meanwhile, which",
        "is the time that anything was there, over the work. Ratios are measured over simulated: above 1 the model",
        "promises too much.",
        "",
        "| round | load | | measured s | simulated s, before and after | ratio | simulated s, meanwhile | ratio |",
        "|---:|---:|---|---:|---:|---:|---:|---:|",
    ]
    for number, one in enumerate(rounds, 1):
        for what, found in (("wait", one.wait), ("answer", one.answer)):
            start = f"| {number} | {one.load:.0%} | {what}"
            means = found.measured.mean, found.foretold.mean, found.meanwhile.mean
            lines.append(f"{start}, mean {_cells(*means)}")
            lines.append(
                f"{start}, 95 % within {_cells(found.measured.p95, found.foretold.p95, found.meanwhile.p95)}"
            )
    lines += ["", *(_told(number, one) for number, one in enumerate(rounds, 1))]
    return "\n".join(lines) + "\n"


def _cells(measured: float, *simulated: float) -> str:
    cells = [f"{one:.3f} | {measured / one if one else math.inf:.2f}" for one in simulated]
    return f"| {measured:.3f} | {' | '.join(cells)} |"


def _told(number: int, one: Round) -> str:
    slower = one.meanwhile.rtf / one.foretold.rtf
    return (
        f"- Round {number}: {len(one.trace)} files, {one.failures} failed; other programs took {one.others:.0%} of the "
        f"processors, load average {one.load_average} after it. Simulated with RTF {one.foretold.rtf:.4f} and "
        f"{one.foretold.per_file:.3f} s a file; meanwhile each took {slower:.2f} times as long."
    )


def _raw(one: Round) -> dict[str, Any]:
    """A round for the JSON file; a line for each file of its trace."""
    rows = [f"{moment:.4f} {audio:g} {answer:.4f}" for moment, audio, answer in one.trace]
    return {
        **asdict(one),
        "trace": {"fields": "moment, seconds of audio, seconds to the answer", "rows": rows},
    }


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.bench.capacity", description="The simulated wait beside the real one."
    )
    parser.add_argument("--model", default="demo", help="model name or pack directory (default: demo)")
    parser.add_argument("--seconds", type=float, default=90.0, help="of each load (default: 90)")
    parser.add_argument(
        "--files", default=FILES, help="lengths in whole seconds and weights (default: %(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="a rehearsal, written below build/")
    options = parser.parse_args(arguments)
    machine = describe({"ours": PYTHON})
    WORK.mkdir(parents=True, exist_ok=True)
    try:
        files = files_of(options.files)
        paces, rounds = measure(options.model, files, 10.0 if options.quick else options.seconds)
    except (BenchError, InputError) as error:
        print(error, file=sys.stderr)
        return 1
    folder = WORK / "quick" if options.quick else ROOT / "docs" / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    name = Path(options.model).name
    raw = {"machine": machine, "model": name, "files": options.files}
    raw |= {"paces": [asdict(one) for one in paces], "rounds": [_raw(one) for one in rounds]}
    (folder / "capacity.json").write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
    (folder / "capacity.md").write_text(page(name, machine, files, paces, rounds), encoding="utf-8")
    print(page(name, machine, files, paces, rounds), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What the exporter costs: memory of its processes, time of a scrape. Writes docs/benchmarks/exporter.md and .json.

    scripts/make_venv.sh exporter && .venv-dev/bin/python -m scripts.bench.exporter [--scrapes N] [--quick]

Three hosts: this one without GPU, Docker and service; the same with two GPUs, which are a stand-in for NVML
(tests/fakes/nvml, compiled here with cc; a real library adds its own memory); and all of it with Docker, where it runs,
and a service's page of 300 lines passed on.
"""

from __future__ import annotations

import argparse
import http.client
import http.server
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scripts.bench.machine import describe
from scripts.bench.measure import BenchError
from scripts.bench.report import MIB

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-exporter" / "bin" / "python"
FAKES = ROOT / "tests" / "fakes" / "nvml" / "nvml.c"
CAPTURE = ROOT / "tests" / "captures" / "nvml" / "two-cards.txt"
_TICK = os.sysconf("SC_CLK_TCK")
_SERVICE_LINES = 300


@dataclass(frozen=True)
class Cost:
    """One kind of host: bytes resident (the exporter, its NVML process, both with shared pages divided), seconds."""

    host: str
    series: int
    rss: int
    nvml_rss: int
    pss: int
    median_seconds: float
    slowest_of_20_seconds: float
    cpu_seconds: float


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Memory and time of the exporter.")
    parser.add_argument("--scrapes", type=int, default=400, help="of each host, after 20 that do not count")
    parser.add_argument("--quick", action="store_true", help="few scrapes, written below build/")
    told = parser.parse_args(arguments)
    folder = ROOT / ("build/bench" if told.quick else "docs/benchmarks")
    try:
        if not PYTHON.exists():
            raise BenchError("There is no .venv-exporter. Make it: scripts/make_venv.sh exporter")
        machine = describe({})
        subprocess.run([PYTHON, "-m", "compileall", "-q", PYTHON.parents[1], ROOT / "monitoring"], check=True)
        costs = measure_all(20 if told.quick else told.scrapes)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    raw = {"machine": machine, "hosts": [asdict(cost) for cost in costs]}
    (folder / "exporter.json").write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
    (folder / "exporter.md").write_text(table(machine, costs), encoding="utf-8")
    print(table(machine, costs), end="")
    return 0


def measure_all(scrapes: int) -> list[Cost]:
    """All hosts, one after the other.

    Raises:
        BenchError: an exporter or the compiler failed.
    """
    bare = ("--docker", "off", "--disk", "/")
    with tempfile.TemporaryDirectory() as folder, service_page() as url:
        library = {"LD_LIBRARY_PATH": build_stand_in(Path(folder)), "FAKE_NVML": str(CAPTURE)}
        return [
            measure("no GPU, no Docker, no service", (*bare, "--gpu", "off"), {}, scrapes),
            measure("two GPUs", (*bare, "--gpu", "on"), library, scrapes),
            measure(
                "two GPUs, Docker, a service's page",
                ("--gpu", "on", "--disk", "/", "--relay", url, "--state", f"{folder}/state.json"),
                library,
                scrapes,
            ),
        ]


def build_stand_in(folder: Path) -> str:
    """The folder of a library that stands in for NVML.

    Raises:
        BenchError: there is no compiler.
    """
    command = ["cc", "-O1", "-shared", "-fPIC", "-o", str(folder / "libnvidia-ml.so.1"), str(FAKES)]
    try:
        subprocess.run(command, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise BenchError(f"The stand-in for NVML could not be compiled ({error}); install gcc.") from None
    return str(folder)


@contextmanager
def service_page() -> Iterator[str]:
    """The address of a page as long as a busy service's."""
    lines = (f'asr_page_total{{route="/{number}"}} {number}\n' for number in range(_SERVICE_LINES))
    page = ("# TYPE asr_page_total counter\n" + "".join(lines)).encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            """Silent."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/metrics"
    server.shutdown()
    server.server_close()


def measure(host: str, arguments: Sequence[str], environment: dict[str, str], scrapes: int) -> Cost:
    """Starts an exporter, scrapes it, reads what the kernel says of it.

    Raises:
        BenchError: it ended by itself.
    """
    command = [str(PYTHON), "-m", "monitoring.exporter", "--listen", "127.0.0.1:0", *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    ) as process:
        try:
            port = _port_of(process)
            for _ in range(20):
                page = _scrape(port)
            pids = [process.pid, *_children(process.pid)]
            before = sum(map(_cpu_seconds, pids))
            took = sorted(_timed(port) for _ in range(scrapes))
            used = (sum(map(_cpu_seconds, pids)) - before) / scrapes
            resident = [_resident(pid) for pid in pids]
        finally:
            process.terminate()
    return Cost(
        host=host,
        series=sum(not line.startswith("#") for line in page.splitlines()),
        rss=resident[0][0],
        nvml_rss=sum(rss for rss, _ in resident[1:]),
        pss=sum(pss for _, pss in resident),
        median_seconds=took[len(took) // 2],
        slowest_of_20_seconds=took[len(took) * 19 // 20],
        cpu_seconds=used,
    )


def _port_of(process: subprocess.Popen[str]) -> int:
    for line in process.stderr or ():
        found = re.search(r":(\d+)/metrics", line)
        if found:
            return int(found[1])
    raise BenchError("The exporter ended before it served; start it by hand to see why.")


def _scrape(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def _timed(port: int) -> float:
    began = time.perf_counter()
    _scrape(port)
    return time.perf_counter() - began


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(word) for task in tasks for word in (task / "children").read_text().split()]


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def _resident(pid: int) -> tuple[int, int]:
    """Resident bytes; and the same with pages that others hold, too, divided among them."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = {
        name: int(value) * 1024 for name, value in re.findall(r"^(Rss|Pss): +(\d+) kB", text, re.MULTILINE)
    }
    return found["Rss"], found["Pss"]


def table(machine: dict[str, Any], costs: Sequence[Cost]) -> str:
    """Write the page."""
    load, python = machine["load_average_at_start"], machine["python"]
    lines = [
        "# What the exporter costs",
        "",
        f"Written by `python -m scripts.bench.exporter` on {machine['date']}; do not edit.",
        f"Machine: {machine['processor']}, {machine['cores']} cores, Linux {machine['kernel']}, Python {python}; load",
        f"average {load} before the start: where it is above the cores, processor time tells more than time does.",
        "",
        "| host | series | exporter, RSS MiB | NVML process | both, PSS MiB | scrape ms | slowest of 20 | CPU ms |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {cost.host} | {cost.series} | {cost.rss / MIB:.1f} | {cost.nvml_rss / MIB:.1f} | {cost.pss / MIB:.1f}"
        f" | {cost.median_seconds * 1000:.1f} | {cost.slowest_of_20_seconds * 1000:.1f}"
        f" | {cost.cpu_seconds * 1000:.1f} |"
        for cost in costs
    ]
    lines += [
        "",
        "The goals are 45 MB resident and 50 ms a scrape. GPUs are a stand-in for NVIDIA's library here, whose own",
        "memory comes on top. RSS counts what both processes share twice, PSS once. Between scrapes the exporter looks",
        "at cgroups once a second (v1), or when the kernel tells of a change (v2).",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())

"""Names, kinds and labels: names.py, what is rendered, and docs/exporter.md say the same."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from monitoring.exporter import render as render_module
from monitoring.exporter.arguments import parser
from monitoring.exporter.canary import CanaryResult
from monitoring.exporter.collector import Health, Reading
from monitoring.exporter.gpu import Gpu, GpuProcess, GpuReading
from monitoring.exporter.host import Disk, HostReading, Instance
from monitoring.exporter.names import COLLECTORS, METRICS, NVML_ERRORS, THROTTLE_REASONS
from monitoring.exporter.nvml_client import _CODES, _FIXES
from monitoring.exporter.oom import OomReading
from tests.support.nvml import CAPTURE_NAMES

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "exporter.md").read_text(encoding="utf-8")
GPU = Gpu(
    index=0,
    uuid="GPU-1",
    info={"name": "card", "driver_version": "580", "compute_capability": "6.1", "pci_bus_id": "1"},
    memory={"total": 4, "used": 1, "free": 2, "reserved": 1},
    numbers=dict.fromkeys(
        ("utilization", "temperature", "power", "power_limit", "pcie_generation", "pcie_width"), 1.0
    ),
    clocks={"sm": 1e9},
    throttled=dict.fromkeys(THROTTLE_REASONS, False),
    ecc={"corrected": 0},
)
VALUES = {
    "gpu": GpuReading((GPU,), {0: True}, {("GPU-1", 79): (1, 1.7e9)}),
    "gpu_processes": [GpuProcess("GPU-1", 7, "python3", "asr", 1)],
    "host": HostReading(1, 1, 1, 1, 1, 1, {("cpu", "some"): 1.0}),
    "oom": OomReading(3, 1, {"asr": 2}),
    "disk": {"/": Disk(2, 1)},
    "variant": [Instance("cpu", ""), Instance("cpu", "")],
    "relay http://127.0.0.1/metrics": [],
}


def everything() -> str:
    health = {name: Health(0.01, 1.7e9, None) for name in [*COLLECTORS, "relay http://127.0.0.1/metrics"]}
    canary = CanaryResult(True, 1.0, 1.7e9, 0.25, True)
    relays = ("http://127.0.0.1/metrics",)
    return render_module.render(Reading(VALUES, health), canary, relays=relays, each_process=True).decode()


def test_what_is_rendered_is_what_is_named() -> None:
    families = list(text_string_to_metric_families(everything()))
    there = {
        family.name + ("_total" if family.type == "counter" else ""): (
            family.type,
            {label for sample in family.samples for label in sample.labels},
            family.documentation,
        )
        for family in families
    }
    wanted = {
        name: (metric.kind, set(metric.labels), metric.meaning)
        for name, metric in METRICS.items()
        if name != "asr_gpu_nvml_error"  # only where there is no reading
    }
    assert there == wanted
    assert len(families) == len(there)


def test_names_follow_prometheus_conventions() -> None:
    for name, metric in METRICS.items():
        assert re.fullmatch(r"asr_[a-z_]+", name)
        assert metric.kind in {"gauge", "counter"}
        assert (metric.kind == "counter") == name.endswith("_total")
        assert not re.search(r"_(percent|mib|mb|ms|milli\w*|mhz)(_|$)", name)
        assert metric.meaning
        assert "|" not in metric.meaning


def test_docs_tell_every_metric() -> None:
    rows = re.findall(r"^\| `(asr_\w+)` \| (\w+) \| (.*?) \|", PAGE, re.MULTILINE)
    told = {name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    assert told == {name: (metric.kind, metric.labels) for name, metric in METRICS.items()}
    assert len(rows) == len(told)


def test_docs_tell_every_collector_error_and_option() -> None:
    for name in (*COLLECTORS, *NVML_ERRORS):
        assert f"| `{name}` |" in PAGE, name
    for action in parser()._actions:
        for option in action.option_strings:
            if option.startswith("--") and option != "--help":
                assert f"| `{option}" in PAGE, option


def test_every_error_has_a_remedy() -> None:
    assert set(_FIXES) == set(NVML_ERRORS)
    assert set(_CODES.values()) <= set(NVML_ERRORS)


def test_the_version_is_the_projects() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'\nversion = "{render_module.VERSION}"\n' in text


def test_the_process_that_asks_nvml_stays_small() -> None:
    """It is the second of two processes; prometheus_client and HTTP stay in the first."""
    code = "import sys, monitoring.exporter.nvml_process; print({'prometheus_client', 'http'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_exporter_itself_loads_no_nvml() -> None:
    code = "import sys, monitoring.exporter.main; print('pynvml' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_captures_are_described() -> None:
    text = (ROOT / "tests" / "captures" / "nvml" / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}.txt`" in text for name in CAPTURE_NAMES)

"""A reading -> Prometheus's text. Names, kinds and labels are those of names.py; what was not read has no series.

Nothing is read here, and nothing remembered.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from monitoring.exporter.canary import CanaryResult
from monitoring.exporter.collector import Health, Reading
from monitoring.exporter.errors import NvmlError
from monitoring.exporter.gpu import Gpu, GpuProcess, GpuReading
from monitoring.exporter.host import Disk, HostReading, Instance
from monitoring.exporter.names import COLLECTORS, METRICS
from monitoring.exporter.oom import OomReading
from monitoring.exporter.relay import join

CONTENT_TYPE = CONTENT_TYPE_LATEST
VERSION = "0.1.0"


class _Page:
    """Samples by metric, in the order of names.py."""

    def __init__(self) -> None:
        self._samples: dict[str, list[tuple[tuple[str, ...], float]]] = {}

    def add(self, name: str, value: float | None, *labels: str) -> None:
        """One sample; None is none."""
        if value is not None:
            self._samples.setdefault(name, []).append((labels, value))

    def families(self) -> Iterator[Metric]:
        """What Prometheus's client writes."""
        for name, metric in METRICS.items():
            if name not in self._samples:
                continue
            kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            family = kind(name, metric.meaning, labels=metric.labels)
            for labels, value in self._samples[name]:
                family.add_metric(list(labels), value)
            yield family


class _Families(Collector):
    """Families as something that prometheus_client can write."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def render(
    reading: Reading,
    canary: CanaryResult | None = None,
    *,
    relays: Sequence[str] = (),
    each_process: bool = False,
) -> bytes:
    """All series of a reading. `relays`: the URLs whose metrics are among its values, as `relay URL`."""
    page = _Page()
    page.add("asr_exporter_build_info", 1, VERSION, platform.python_version())
    values = reading.values
    if "gpu" in values:
        _add_gpus(page, values["gpu"])
    if "gpu_processes" in values:
        _add_processes(page, values["gpu_processes"], each_process=each_process)
    if "oom" in values:
        _add_kills(page, values["oom"])
    if "host" in values:
        _add_host(page, values["host"])
    if "disk" in values:
        _add_disks(page, values["disk"])
    if "variant" in values:
        _add_variant(page, values["variant"])
    if canary is not None:
        _add_canary(page, canary)
    _add_health(page, reading.health, relays)
    relayed = {url: values[f"relay {url}"] for url in relays if f"relay {url}" in values}
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families([*page.families(), *join(relayed, several=len(relays) > 1)]))
    return generate_latest(registry)


def _add_gpus(page: _Page, reading: GpuReading) -> None:
    page.add("asr_gpus", len(reading.gpus))
    for index, up in reading.up.items():
        page.add("asr_gpu_up", up, str(index))
    for gpu in reading.gpus:
        _add_gpu(page, gpu)
    for (uuid, xid), (count, when) in reading.xids.items():
        page.add("asr_gpu_xid_errors_total", count, uuid, str(xid))
        page.add("asr_gpu_xid_last_timestamp_seconds", when, uuid, str(xid))


def _add_gpu(page: _Page, gpu: Gpu) -> None:
    told = gpu.info
    labels = (told["name"], told["driver_version"], told["compute_capability"], told["pci_bus_id"])
    page.add("asr_gpu_info", 1, gpu.uuid, str(gpu.index), *labels)
    for name in ("total", "used", "free", "reserved"):
        page.add(f"asr_gpu_memory_{name}_bytes", gpu.memory.get(name), gpu.uuid)
    for name, number in {
        "asr_gpu_utilization_ratio": "utilization",
        "asr_gpu_temperature_celsius": "temperature",
        "asr_gpu_power_watts": "power",
        "asr_gpu_power_limit_watts": "power_limit",
        "asr_gpu_pcie_link_generation": "pcie_generation",
        "asr_gpu_pcie_link_width": "pcie_width",
    }.items():
        page.add(name, gpu.numbers.get(number), gpu.uuid)
    for clock, hertz in gpu.clocks.items():
        page.add("asr_gpu_clock_hertz", hertz, gpu.uuid, clock)
    for reason, holds in gpu.throttled.items():
        page.add("asr_gpu_throttled", holds, gpu.uuid, reason)
    for kind, count in gpu.ecc.items():
        page.add("asr_gpu_ecc_errors_total", count, gpu.uuid, kind)


def _add_processes(page: _Page, processes: Sequence[GpuProcess], *, each_process: bool) -> None:
    sums: dict[tuple[str, str], int] = {}
    for process in processes:
        key = process.uuid, process.container
        sums[key] = sums.get(key, 0) + process.memory
        if each_process:
            labels = (process.uuid, str(process.pid), process.name, process.container)
            page.add("asr_gpu_process_memory_used_bytes", process.memory, *labels)
    for (uuid, container), memory in sums.items():
        page.add("asr_gpu_container_memory_used_bytes", memory, uuid, container)


def _add_kills(page: _Page, reading: OomReading) -> None:
    page.add("asr_host_oom_kills_total", reading.host)
    page.add("asr_host_oom_kills_unattributed_total", reading.unattributed)
    for container, kills in reading.containers.items():
        page.add("asr_container_oom_kills_total", kills, container)


def _add_host(page: _Page, reading: HostReading) -> None:
    page.add("asr_host_memory_total_bytes", reading.memory_total)
    page.add("asr_host_memory_available_bytes", reading.memory_available)
    page.add("asr_host_swap_total_bytes", reading.swap_total)
    page.add("asr_host_swap_free_bytes", reading.swap_free)
    page.add("asr_host_swap_in_bytes_total", reading.swap_in)
    page.add("asr_host_swap_out_bytes_total", reading.swap_out)
    for (resource, kind), seconds in reading.pressure.items():
        page.add("asr_host_pressure_seconds_total", seconds, resource, kind)


def _add_disks(page: _Page, disks: Mapping[str, Disk]) -> None:
    for path, disk in disks.items():
        page.add("asr_host_disk_total_bytes", disk.total, path)
        page.add("asr_host_disk_free_bytes", disk.free, path)


def _add_variant(page: _Page, instances: Sequence[Instance]) -> None:
    for instance in dict.fromkeys(instances):
        page.add("asr_host_variant_info", 1, instance.variant, instance.gpu)


def _add_canary(page: _Page, result: CanaryResult) -> None:
    page.add("asr_canary_success", result.success)
    page.add("asr_canary_text_correct", result.correct)
    page.add("asr_canary_rtf", result.rtf)
    page.add("asr_canary_duration_seconds", result.seconds)
    page.add("asr_canary_last_run_timestamp_seconds", result.ended)


def _add_health(page: _Page, health: Mapping[str, Health], relays: Sequence[str]) -> None:
    for name, told in health.items():
        if name in COLLECTORS:
            page.add("asr_exporter_collector_success", told.good, name)
            page.add("asr_exporter_collector_duration_seconds", told.seconds, name)
            page.add("asr_exporter_collector_last_success_timestamp_seconds", told.last_success, name)
    failure = health["gpu"].failure if "gpu" in health else None
    if failure is not None:
        page.add("asr_gpu_nvml_error", 1, failure.code if isinstance(failure, NvmlError) else "hang")
    for url in relays:
        if f"relay {url}" in health:
            page.add("asr_relay_success", health[f"relay {url}"].good, url)

"""Host: its cards, its memory, its disks, and how well the exporter sees them."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from monitoring.dashboards.panels import (
    HOSTS,
    Figure,
    Graph,
    Table,
    figure,
    graph,
    hosts_variable,
    new_dashboard,
    row,
    rows,
)

_NAMED = f"* on (instance, uuid) group_left (index, name) asr_gpu_info{{{HOSTS}}}"
_CARD = "GPU {{index}} {{name}}"
_GOOD = ((None, "red"), (1, "green"))


def host() -> Dashboard:
    """The dashboard."""
    made = new_dashboard(
        "ASR host", "asr-host", "One host: GPUs, memory, disks, and the exporter's own health."
    )
    made.with_variable(hosts_variable(several=False))
    for title, figures, graphs in (
        ("Now", _NOW, ()),
        ("GPU memory", (), _VRAM),
        ("GPU", (), _GPU),
        ("Memory and disk of the host", (), _MEMORY),
        ("Exporter", (), _EXPORTER),
    ):
        made.with_row(row(title))
        for told in figures:
            made.with_panel(figure(told))
        if title == "Now":
            made.with_panel(rows(_CARDS))
        for drawn in graphs:
            made.with_panel(graph(drawn))
    return made


_NOW = (
    Figure(
        "Running",
        "What really computes",
        "string",
        f"asr_engine_info{{{HOSTS}}}",
        alerts=("AsrVariantDrift",),
        width=6,
        legend="{{variant}} {{model}}",
    ),
    Figure(
        "Picked",
        "What was picked for this host's hardware",
        "string",
        f"asr_host_variant_info{{{HOSTS}}}",
        alerts=("AsrVariantDrift",),
        width=6,
        legend="{{picked}}",
    ),
    Figure("GPUs", "GPUs that answer", "short", f"asr_gpus{{{HOSTS}}}", alerts=("AsrGpuMissing",)),
    Figure(
        "Takes work",
        "1 when work is taken at once",
        "short",
        f"asr_engine_ready{{{HOSTS}}}",
        _GOOD,
        ("AsrServiceNotReady",),
    ),
    Figure(
        "Canary",
        "1 when the golden clip came back",
        "short",
        f"asr_canary_success{{{HOSTS}}}",
        _GOOD,
        ("AsrCanaryFailing",),
    ),
)

_CARDS = Table(
    "GPUs",
    "What each card is, and what it has.",
    {
        "": f"max by (uuid, index, name, driver_version, compute_capability) (asr_gpu_info{{{HOSTS}}})",
        "total": f"max by (uuid) (asr_gpu_memory_total_bytes{{{HOSTS}}})",
        "free": f"max by (uuid) (asr_gpu_memory_free_bytes{{{HOSTS}}})",
    },
    key="uuid",
    labels=("index", "name", "driver_version", "compute_capability"),
    units={"total": "bytes", "free": "bytes"},
    alerts=("AsrGpuMissing", "AsrAllGpusGone"),
    height=5,
)

_VRAM = (
    Graph(
        "VRAM by use",
        "Used by programs, kept by the driver where that is known, free.",
        "bytes",
        [
            (f"asr_gpu_memory_used_bytes{{{HOSTS}}} {_NAMED}", f"used, {_CARD}"),
            (f"asr_gpu_memory_reserved_bytes{{{HOSTS}}} {_NAMED}", f"driver, {_CARD}"),
            (f"asr_gpu_memory_free_bytes{{{HOSTS}}} {_NAMED}", f"free, {_CARD}"),
        ],
        alerts=("AsrVramHeadroomLow",),
        stacked=True,
    ),
    Graph(
        "VRAM by container",
        "Who holds it; (host) is everything outside of containers.",
        "bytes",
        [(f"sum by (container) (asr_gpu_container_memory_used_bytes{{{HOSTS}}})", "{{container}}")],
        alerts=("AsrVramHeadroomLow", "AsrCudaOutOfMemory"),
        stacked=True,
    ),
    Graph(
        "Plan against what was taken",
        "The engine plans before it takes. Above the prediction, the plan cannot be trusted.",
        "bytes",
        [
            (f"asr_device_memory_predicted_bytes{{{HOSTS}}}", "planned at most"),
            (f"asr_device_memory_peak_bytes{{{HOSTS}}}", "taken at most"),
            (f"asr_device_memory_budget_bytes{{{HOSTS}}}", "allowed to the newest batch"),
        ],
        alerts=("AsrVramPlanExceeded",),
    ),
    Graph(
        "Least free VRAM",
        "Of 5 minutes. Below the limit the engine makes its batches smaller.",
        "bytes",
        [(f"gpu:asr_vram_headroom_bytes:min5m{{{HOSTS}}}", _CARD)],
        limit="threshold:asr_vram_headroom_bytes:min",
        alerts=("AsrVramHeadroomLow",),
    ),
)

_GPU = (
    Graph(
        "Utilisation",
        "Part of the time in which a kernel ran.",
        "percentunit",
        [(f"asr_gpu_utilization_ratio{{{HOSTS}}} {_NAMED}", _CARD)],
        most=1.0,
        width=8,
    ),
    Graph(
        "Temperature",
        "Of the card's core.",
        "celsius",
        [(f"asr_gpu_temperature_celsius{{{HOSTS}}} {_NAMED}", _CARD)],
        alerts=("AsrGpuThrottled",),
        width=8,
    ),
    Graph("Power", "Drawn now.", "watt", [(f"asr_gpu_power_watts{{{HOSTS}}} {_NAMED}", _CARD)], width=8),
    Graph(
        "Throttled",
        "1 while the clock is held down, by reason.",
        "short",
        [(f"asr_gpu_throttled{{{HOSTS}}}", "{{reason}}")],
        alerts=("AsrGpuThrottled",),
        bars=True,
    ),
    Graph(
        "Xid errors",
        "What the driver reported. 13, 31 and 43 are a program's fault.",
        "short",
        [(f"asr_gpu_xid_errors_total{{{HOSTS}}}", "Xid {{xid}}")],
        alerts=("AsrXidCritical", "AsrXidWarning"),
        bars=True,
    ),
)

_MEMORY = (
    Graph(
        "Memory",
        "Of the host: what can be had without swapping, and what there is.",
        "bytes",
        [
            (f"asr_host_memory_available_bytes{{{HOSTS}}}", "available"),
            (f"asr_host_memory_total_bytes{{{HOSTS}}}", "total"),
        ],
        alerts=("AsrMemoryLow",),
    ),
    Graph(
        "Swap",
        "Used, of what there is.",
        "bytes",
        [
            (f"asr_host_swap_total_bytes{{{HOSTS}}} - asr_host_swap_free_bytes{{{HOSTS}}}", "used"),
            (f"asr_host_swap_total_bytes{{{HOSTS}}}", "total"),
        ],
        alerts=("AsrMemoryLow",),
    ),
    Graph(
        "Read back from swap",
        "What is read back was missing; above the limit for 10 minutes the host is thrashing.",
        "Bps",
        [(f"instance:asr_swap_in_bytes:rate5m{{{HOSTS}}}", "read back")],
        limit="threshold:asr_swap_in_bytes_per_second:max",
        alerts=("AsrSwapThrashing",),
        width=8,
    ),
    Graph(
        "Pressure",
        "Part of the time in which some tasks, or all (full), waited for cpu, memory or io.",
        "percentunit",
        [(f"instance:asr_pressure:ratio5m{{{HOSTS}}}", "{{resource}} {{kind}}")],
        alerts=("AsrSwapThrashing", "AsrRtfHigh"),
        width=8,
    ),
    Graph(
        "Free disk",
        "Of the file systems that are watched.",
        "bytes",
        [(f"asr_host_disk_free_bytes{{{HOSTS}}}", "{{path}}")],
        limit="threshold:asr_disk_free_bytes:min",
        alerts=("AsrDiskLow",),
        width=8,
    ),
)

_EXPORTER = (
    Graph(
        "Collectors",
        "1 when its last reading was whole; what a host does not have has no line.",
        "short",
        [(f"asr_exporter_collector_success{{{HOSTS}}}", "{{collector}}")],
        alerts=("AsrCollectorFailing", "AsrNvmlFailing"),
        most=1.0,
    ),
    Graph(
        "Age of readings",
        "Since each collector last succeeded.",
        "s",
        [(f"instance:asr_collector_age_seconds:now{{{HOSTS}}}", "{{collector}}")],
        limit="threshold:asr_collector_age_seconds:max",
        alerts=("AsrExporterStale",),
    ),
)

"""Fleet: which host is short of memory, slow, on the wrong variant or dying, in one look."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from monitoring.dashboards.panels import Figure, Graph, Table, figure, graph, new_dashboard, row, rows

_GOOD_OR_NOT = ((None, "green"), (1, "red"))


def fleet() -> Dashboard:
    """The dashboard."""
    made = new_dashboard(
        "ASR fleet", "asr-fleet", "All hosts: what fires, who is slow, who is short of memory."
    )
    made.with_row(row("Now"))
    for told in _FIGURES:
        made.with_panel(figure(told))
    made.with_panel(rows(_HOSTS)).with_panel(rows(_FIRING))
    made.with_row(row("Over time"))
    for drawn in _GRAPHS:
        made.with_panel(graph(drawn))
    return made


_FIGURES = (
    Figure("Hosts", "Hosts that answer Prometheus", "short", 'sum(up{job="asr"})'),
    Figure(
        "Down",
        "Hosts that do not answer",
        "short",
        'count(up{job="asr"} == 0) or vector(0)',
        _GOOD_OR_NOT,
        ("AsrTargetDown",),
    ),
    Figure(
        "Critical alerts",
        "Users are failing now, or words may be wrong",
        "short",
        'count(ALERTS{alertstate="firing", severity="critical"}) or vector(0)',
        _GOOD_OR_NOT,
    ),
    Figure(
        "RTF of the fleet",
        "Seconds of work for a second of audio, over 15 minutes, weighted by audio",
        "none",
        "fleet:asr_rtf:ratio15m",
        alerts=("AsrRtfHigh",),
    ),
    Figure(
        "Audio in 24 hours",
        "Audio recognised by all hosts",
        "s",
        "sum(increase(asr_audio_seconds_total[24h]))",
    ),
    Figure(
        "OOM kills in 24 hours",
        "Processes that the kernel killed for want of memory, on all hosts",
        "short",
        "round(sum(increase(asr_host_oom_kills_total[24h])))",
        _GOOD_OR_NOT,
        ("AsrContainerOomKill", "AsrHostOomKill"),
    ),
)

_HOSTS = Table(
    "Host by host",
    "One row a host. Variant, precision and device are what really computes.",
    {
        "": "max by (instance, variant, precision, device, model) (asr_engine_info)",
        "RTF": "instance:asr_rtf:ratio15m",
        "queue": "sum by (instance) (asr_queue_seconds)",
        "least free VRAM": "min by (instance) (gpu:asr_vram_headroom_bytes:min5m)",
        "memory left": "min by (instance) (instance:asr_memory_available:ratio)",
        "OOM kills 24 h": "round(sum by (instance) (increase(asr_host_oom_kills_total[24h])))",
        "CUDA OOM 24 h": "round(sum by (instance) (increase(asr_cuda_out_of_memory_total[24h])))",
        "worker ends 24 h": "round(sum by (instance) (increase(asr_worker_restarts_total[24h])))",
        "canary": "min by (instance) (asr_canary_success)",
    },
    labels=("variant", "precision", "device", "model"),
    link="/d/asr-host?var-instance=${__value.raw}",
    units={
        "RTF": "none",
        "queue": "s",
        "least free VRAM": "bytes",
        "memory left": "percentunit",
    },
    alerts=("AsrVariantDrift",),
)

_FIRING = Table(
    "Firing alerts",
    "What fires now; the runbook has a section for each.",
    {"": 'max by (alertname, instance, severity, container, uuid) (ALERTS{alertstate="firing"})'},
    key="alertname",
    labels=("instance", "severity", "container", "uuid"),
    link="/d/asr-runbook",
)

_GRAPHS = (
    Graph(
        "RTF by host",
        "Seconds of work for a second of audio, over 15 minutes. Below 1 is faster than speech; above the limit, "
        "with enough audio, somebody is told.",
        "none",
        [("instance:asr_rtf:ratio15m", "{{instance}}")],
        limit="threshold:asr_rtf:max",
        alerts=("AsrRtfHigh",),
    ),
    Graph(
        "Free VRAM by GPU",
        "The least of 5 minutes, without what the driver keeps for itself.",
        "bytes",
        [("gpu:asr_vram_headroom_bytes:min5m", "{{instance}} GPU {{index}} {{name}}")],
        limit="threshold:asr_vram_headroom_bytes:min",
        alerts=("AsrVramHeadroomLow",),
    ),
    Graph(
        "OOM kills by host",
        "Kills within 15 minutes, by the kernel's own count.",
        "short",
        [("instance:asr_host_oom_kills:increase15m", "{{instance}}")],
        alerts=("AsrContainerOomKill", "AsrHostOomKill"),
        bars=True,
    ),
    Graph(
        "Memory left by host",
        "Part of the host's memory that can be had without swapping.",
        "percentunit",
        [("instance:asr_memory_available:ratio", "{{instance}}")],
        limit="threshold:asr_memory_available_ratio:min",
        alerts=("AsrMemoryLow",),
        most=1.0,
    ),
    Graph(
        "Age of the queue by host",
        "How long the oldest unfinished segment has been waiting or at work.",
        "s",
        [("max by (instance) (asr_queue_age_seconds)", "{{instance}}")],
        limit="threshold:asr_queue_age_seconds:max",
        alerts=("AsrQueueOld",),
    ),
    Graph(
        "Canary RTF by host",
        "The golden clip through each service, as a user would send it.",
        "none",
        [("max by (instance) (asr_canary_rtf)", "{{instance}}")],
        alerts=("AsrCanaryFailing", "AsrCanaryWrongText"),
    ),
)

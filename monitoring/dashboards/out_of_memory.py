"""OOM post-mortem: who was killed, of which memory there was none, and what grew before it."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from monitoring.dashboards.panels import HOSTS, Graph, Table, graph, hosts_variable, new_dashboard, row, rows


def out_of_memory() -> Dashboard:
    """The dashboard."""
    made = new_dashboard(
        "ASR OOM post-mortem",
        "asr-oom",
        "Kills by the kernel and CUDA out of memory, above what memory did at that time. Read from top to bottom.",
    )
    made.with_variable(hosts_variable(several=True))
    made.with_row(row("Who"))
    made.with_panel(rows(_KILLED))
    for drawn in _WHO:
        made.with_panel(graph(drawn))
    made.with_row(row("Of which memory there was none"))
    for drawn in _MEMORY:
        made.with_panel(graph(drawn))
    made.with_row(row("What was being done"))
    for drawn in _WORK:
        made.with_panel(graph(drawn))
    return made


_KILLED = Table(
    "Kills by container",
    "Since the exporter began to count; the count outlives the container. What belongs to no container is in the graph "
    "beside it.",
    {"kills": f"sum by (instance, container) (asr_container_oom_kills_total{{{HOSTS}}}) > 0"},
    labels=("container",),
    alerts=("AsrContainerOomKill",),
    width=8,
)

_WHO = (
    Graph(
        "Kills by the kernel",
        "All of the host since boot, and those that belong to no known container.",
        "short",
        [
            (f"asr_host_oom_kills_total{{{HOSTS}}}", "{{instance}}"),
            (f"asr_host_oom_kills_unattributed_total{{{HOSTS}}}", "{{instance}}, of no known container"),
        ],
        alerts=("AsrHostOomKill",),
        width=8,
    ),
    Graph(
        "Out of memory within 15 minutes",
        "Kills of containers, and batches that CUDA had no room for. The latter kill nobody.",
        "short",
        [
            (f"container:asr_oom_kills:new15m{{{HOSTS}}}", "{{instance}} {{container}}"),
            (f"instance:asr_cuda_out_of_memory:increase15m{{{HOSTS}}}", "{{instance}} CUDA"),
        ],
        alerts=("AsrContainerOomKill", "AsrCudaOutOfMemory"),
        width=8,
        bars=True,
    ),
)

_MEMORY = (
    Graph(
        "Memory left",
        "Part of the host's memory that can be had without swapping. A kill with much of it left means a "
        "container's own limit.",
        "percentunit",
        [(f"instance:asr_memory_available:ratio{{{HOSTS}}}", "{{instance}}")],
        limit="threshold:asr_memory_available_ratio:min",
        alerts=("AsrMemoryLow",),
        most=1.0,
    ),
    Graph(
        "Waiting for memory",
        "Part of the time in which some tasks, or all (full), waited for memory.",
        "percentunit",
        [(f'instance:asr_pressure:ratio5m{{{HOSTS}, resource="memory"}}', "{{instance}} {{kind}}")],
        alerts=("AsrSwapThrashing",),
    ),
    Graph(
        "Swap used",
        "A full swap before the kill: the host needs more memory. An empty one: a limit struck.",
        "bytes",
        [(f"asr_host_swap_total_bytes{{{HOSTS}}} - asr_host_swap_free_bytes{{{HOSTS}}}", "{{instance}}")],
        alerts=("AsrSwapThrashing",),
    ),
    Graph(
        "VRAM by container",
        "Who held GPU memory at that time.",
        "bytes",
        [
            (
                f"sum by (instance, container) (asr_gpu_container_memory_used_bytes{{{HOSTS}}})",
                "{{instance}} {{container}}",
            )
        ],
        alerts=("AsrCudaOutOfMemory", "AsrVramHeadroomLow"),
        stacked=True,
    ),
)

_WORK = (
    Graph(
        "Ends of the worker",
        "By cause; killed is the kernel, or somebody.",
        "short",
        [(f"sum by (instance, cause) (asr_worker_restarts_total{{{HOSTS}}})", "{{instance}} {{cause}}")],
        alerts=("AsrWorkerRestarting",),
    ),
    Graph(
        "Waiting audio",
        "Accepted and not yet recognised. Memory does not grow with it; if it does, that is a fault.",
        "s",
        [(f"asr_queue_seconds{{{HOSTS}}}", "{{instance}}")],
        alerts=("AsrQueueOld",),
    ),
)

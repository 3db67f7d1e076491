"""Every metric of the exporter: this module owns the names. docs/exporter.md tells them to people; a test compares.

Here: name, kind, labels and meaning of each, and the collectors that report on their own health. Which readings fill
them is render.py. The service's own metrics are not here: they are passed on as they are (relay.py, docs/metrics.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["gauge", "counter"]


@dataclass(frozen=True)
class MetricName:
    """One metric: `name` as Prometheus stores it (counters end in _total), base units, `labels` in order."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    meaning: str


_TABLE: Final = (
    # GPUs. Everything that never changes is in asr_gpu_info; the rest is joined to it by uuid.
    ("asr_gpus", "gauge", "", "GPUs that answer"),
    (
        "asr_gpu_up",
        "gauge",
        "index",
        "1 when the GPU of this number answers, 0 when NVML lists it and cannot read it",
    ),
    (
        "asr_gpu_nvml_error",
        "gauge",
        "error",
        "1 while NVML gives no reading, with the reason, as in NVML_ERRORS",
    ),
    (
        "asr_gpu_info",
        "gauge",
        "uuid index name driver_version compute_capability pci_bus_id",
        "1; what each GPU is, as labels",
    ),
    ("asr_gpu_memory_total_bytes", "gauge", "uuid", "Memory of the GPU"),
    (
        "asr_gpu_memory_used_bytes",
        "gauge",
        "uuid",
        "Memory in use; without the driver's share where that is known",
    ),
    ("asr_gpu_memory_free_bytes", "gauge", "uuid", "Memory that can still be taken"),
    (
        "asr_gpu_memory_reserved_bytes",
        "gauge",
        "uuid",
        "Memory the driver keeps for itself; absent where not known",
    ),
    ("asr_gpu_utilization_ratio", "gauge", "uuid", "Part of the last moment in which a kernel ran, 0 to 1"),
    ("asr_gpu_temperature_celsius", "gauge", "uuid", "Temperature of the GPU's core"),
    ("asr_gpu_power_watts", "gauge", "uuid", "Power drawn now"),
    ("asr_gpu_power_limit_watts", "gauge", "uuid", "Power limit in force"),
    ("asr_gpu_clock_hertz", "gauge", "uuid clock", "Clock now: graphics, sm, memory or video"),
    ("asr_gpu_throttled", "gauge", "uuid reason", "1 while the clock is held down for this reason"),
    (
        "asr_gpu_ecc_errors_total",
        "counter",
        "uuid kind",
        "Memory errors over the GPU's life: corrected, uncorrected",
    ),
    ("asr_gpu_pcie_link_generation", "gauge", "uuid", "PCIe generation of the link now"),
    ("asr_gpu_pcie_link_width", "gauge", "uuid", "PCIe lanes of the link now"),
    (
        "asr_gpu_xid_errors_total",
        "counter",
        "uuid xid",
        "Xid errors that the driver reported since the exporter's start",
    ),
    ("asr_gpu_xid_last_timestamp_seconds", "gauge", "uuid xid", "When this Xid was last seen, Unix time"),
    (
        "asr_gpu_container_memory_used_bytes",
        "gauge",
        "uuid container",
        "GPU memory of a container's processes; (host) outside of containers, (unknown) for processes not visible",
    ),
    (
        "asr_gpu_process_memory_used_bytes",
        "gauge",
        "uuid pid process container",
        "GPU memory of one process; only with --processes",
    ),
    # Out of memory: processes that the kernel killed. A CUDA out-of-memory kills nothing and is the service's to tell.
    (
        "asr_host_oom_kills_total",
        "counter",
        "",
        "Processes that the kernel killed for want of memory since boot",
    ),
    (
        "asr_host_oom_kills_unattributed_total",
        "counter",
        "",
        "Those since boot that belong to no container known here",
    ),
    (
        "asr_container_oom_kills_total",
        "counter",
        "container",
        "Processes of this container that the kernel killed; keeps counting when the container is gone or comes again",
    ),
    # The host.
    ("asr_host_memory_total_bytes", "gauge", "", "Memory of the host"),
    ("asr_host_memory_available_bytes", "gauge", "", "Memory that can be had without swapping"),
    ("asr_host_swap_total_bytes", "gauge", "", "Size of swap"),
    ("asr_host_swap_free_bytes", "gauge", "", "Swap that is free"),
    ("asr_host_swap_in_bytes_total", "counter", "", "Read back from swap since boot"),
    ("asr_host_swap_out_bytes_total", "counter", "", "Written to swap since boot"),
    (
        "asr_host_pressure_seconds_total",
        "counter",
        "resource kind",
        "Time in which some or all (full) tasks waited for cpu, memory or io, since boot",
    ),
    ("asr_host_disk_total_bytes", "gauge", "path", "Size of the file system that holds this path"),
    ("asr_host_disk_free_bytes", "gauge", "path", "Space on it that users may still take"),
    (
        "asr_host_variant_info",
        "gauge",
        "picked gpu",
        "1; the variant that was picked for this host, one series an instance; gpu is empty for the CPU",
    ),
    # The exporter itself.
    ("asr_exporter_build_info", "gauge", "version python_version", "1; which exporter runs"),
    (
        "asr_exporter_collector_success",
        "gauge",
        "collector",
        "1 when this collector's last reading was whole",
    ),
    ("asr_exporter_collector_duration_seconds", "gauge", "collector", "How long its last reading took"),
    (
        "asr_exporter_collector_last_success_timestamp_seconds",
        "gauge",
        "collector",
        "When it last succeeded, Unix time",
    ),
    ("asr_relay_success", "gauge", "url", "1 when the service's own metrics could be passed on"),
    # The canary: the golden clip through the service, as a user would send it.
    ("asr_canary_success", "gauge", "", "1 when the last clip was transcribed"),
    ("asr_canary_text_correct", "gauge", "", "1 when its text was the expected one"),
    ("asr_canary_rtf", "gauge", "", "Time it took, divided by the clip's length"),
    ("asr_canary_duration_seconds", "gauge", "", "Time the last try took, failed or not"),
    ("asr_canary_last_run_timestamp_seconds", "gauge", "", "When the last try ended, Unix time"),
)

METRICS: Final = {
    name: MetricName(name, kind, tuple(labels.split()), meaning)  # type: ignore[arg-type]  # a test reads the kinds
    for name, kind, labels, meaning in _TABLE
}

# Values of the label `collector`. One that a host does not offer (no GPU, no kernel log, no Docker) has no series.
COLLECTORS: Final = {
    "host": "memory, swap, pressure: /proc",
    "disk": "the file systems of --disk",
    "oom": "kills by container: cgroup files and /proc/vmstat",
    "kernel_log": "kills by container: /dev/kmsg",
    "docker": "names of containers and their out-of-memory events: the Docker or Podman socket",
    "state": "the file in which counts outlive the exporter",
    "gpu": "NVML",
    "gpu_processes": "GPU memory of processes and containers",
    "variant": "the picked variant, --variant-file",
}

# Values of `container` that no container can have.
HOST_CONTAINER: Final = "(host)"
UNKNOWN_CONTAINER: Final = "(unknown)"
OTHER_CONTAINERS: Final = "(others)"

# Values of `error`: what NVML answered when it gave no reading at all, and reasons of our own.
NVML_ERRORS: Final = {
    "library_not_found": "there is a card, and no libnvidia-ml.so.1: no driver, or none in this container",
    "driver_not_loaded": "the kernel module is not loaded",
    "lib_rm_version_mismatch": "kernel module and library are of different versions: the driver was updated under way",
    "no_permission": "this user may not ask the driver",
    "gpu_is_lost": "the card does not answer any more",
    "no_gpu_answers": "NVML lists cards and can read none of them",
    "starting": "the driver is waking up",
    "hang": "no answer in time; the process that asked was killed",
    "died": "the process that asked ended by itself",
    "other": "any other failure; the exporter's log has NVML's words",
}

# Values of `reason` of asr_gpu_throttled.
THROTTLE_REASONS: Final = (
    "sw_power_cap",
    "hw_slowdown",
    "sync_boost",
    "sw_thermal_slowdown",
    "hw_thermal_slowdown",
    "hw_power_brake_slowdown",
)

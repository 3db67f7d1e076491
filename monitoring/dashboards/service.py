"""Service: what is asked of it, how fast it answers, what waits, what failed."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from monitoring.dashboards.panels import (
    HOSTS,
    Figure,
    Graph,
    figure,
    graph,
    hosts_variable,
    new_dashboard,
    row,
)

_WAITS = f"sum by (instance, le) (rate(asr_wait_seconds_bucket{{{HOSTS}}}[$__rate_interval]))"
_GOOD = ((None, "red"), (1, "green"))


def service() -> Dashboard:
    """The dashboard."""
    made = new_dashboard(
        "ASR service", "asr-service", "Requests, speed, queue, jobs and words of the chosen hosts."
    )
    made.with_variable(hosts_variable(several=True))
    for title, figures, graphs in (
        ("Now", _NOW, ()),
        ("Speed", (), _SPEED),
        ("Queue and jobs", (), _QUEUE),
        ("Failures", (), _FAILURES),
        ("Words", (), _WORDS),
    ):
        made.with_row(row(title))
        for told in figures:
            made.with_panel(figure(told))
        for drawn in graphs:
            made.with_panel(graph(drawn))
    return made


_NOW = (
    Figure("RTF", "Weighted by audio, over 15 minutes", "none", f"avg(instance:asr_rtf:ratio15m{{{HOSTS}}})"),
    Figure(
        "Waiting audio",
        "Accepted and not yet recognised",
        "s",
        f"sum(asr_queue_seconds{{{HOSTS}}})",
        alerts=("AsrQueueOld",),
    ),
    Figure(
        "Time to empty",
        "The longest queue at its host's speed of the last quarter of an hour",
        "s",
        f"max(instance:asr_queue_drain_seconds:estimate{{{HOSTS}}})",
        alerts=("AsrQueueOld",),
    ),
    Figure(
        "Taking work",
        "Services that take work",
        "short",
        f"sum(asr_engine_ready{{{HOSTS}}})",
        _GOOD,
        ("AsrServiceNotReady",),
    ),
    Figure(
        "Self-check",
        "1 when all models recognised their golden clip at start",
        "short",
        f"min(asr_self_check_passed{{{HOSTS}}})",
        _GOOD,
        ("AsrSelfCheckFailed",),
    ),
    Figure(
        "Canary's text",
        "1 when all canaries got the right words",
        "short",
        f"min(asr_canary_text_correct{{{HOSTS}}})",
        _GOOD,
        ("AsrCanaryWrongText",),
    ),
)

_SPEED = (
    Graph(
        "RTF",
        "Seconds of work for a second of audio: all audio, and the slowest twentieth of the files.",
        "none",
        [
            (f"instance:asr_rtf:ratio15m{{{HOSTS}}}", "{{instance}}"),
            (f"instance:asr_rtf:p95_15m{{{HOSTS}}}", "{{instance}}, 95th percentile of files"),
        ],
        limit="threshold:asr_rtf:max",
        alerts=("AsrRtfHigh",),
    ),
    Graph(
        "Audio recognised in a second",
        "How many times faster than speech the host works, all requests together.",
        "none",
        [(f"sum by (instance) (rate(asr_audio_seconds_total{{{HOSTS}}}[$__rate_interval]))", "{{instance}}")],
        stacked=True,
    ),
    Graph(
        "Wait until work begins",
        "Until the first segment was at work, of files that were not jobs.",
        "s",
        [
            (
                f"histogram_quantile(0.5, {_WAITS})",
                "{{instance}}, half of the files",
            ),
            (
                f"histogram_quantile(0.95, {_WAITS})",
                "{{instance}}, 95 of 100",
            ),
        ],
        alerts=("AsrQueueOld",),
    ),
    Graph(
        "Padding",
        "Part of the frames computed for nothing; on a CPU nothing is padded.",
        "percentunit",
        [(f"asr_batch_padding_ratio{{{HOSTS}}}", "{{instance}}")],
        alerts=("AsrRtfHigh",),
    ),
)

_QUEUE = (
    Graph(
        "Waiting audio",
        "Accepted and not yet recognised.",
        "s",
        [(f"asr_queue_seconds{{{HOSTS}}}", "{{instance}}")],
        width=8,
        stacked=True,
    ),
    Graph(
        "Age of the queue",
        "How long the oldest unfinished segment has been waiting or at work.",
        "s",
        [(f"asr_queue_age_seconds{{{HOSTS}}}", "{{instance}}")],
        limit="threshold:asr_queue_age_seconds:max",
        alerts=("AsrQueueOld",),
        width=8,
    ),
    Graph(
        "Jobs",
        "On the disk, by state; those that ended stay until they are forgotten.",
        "short",
        [(f"sum by (state) (asr_jobs{{{HOSTS}}})", "{{state}}")],
        width=8,
        stacked=True,
    ),
)

_FAILURES = (
    Graph(
        "Requests",
        "Answers a second by status. 429 is a promise (come again), 5xx is our fault.",
        "reqps",
        [(f"sum by (code) (rate(asr_http_requests_total{{{HOSTS}}}[$__rate_interval]))", "{{code}}")],
        alerts=("AsrRequestsFailing",),
        stacked=True,
    ),
    Graph(
        "Failed requests",
        "Answers of 5xx within 15 minutes, readiness left out.",
        "short",
        [(f"instance:asr_failed_requests:increase15m{{{HOSTS}}}", "{{instance}}")],
        limit="threshold:asr_failed_requests:max",
        alerts=("AsrRequestsFailing",),
        bars=True,
    ),
    Graph(
        "Ends of the worker",
        "Within 30 minutes, by cause. Its segments are run again: time is lost and no word.",
        "short",
        [
            (
                f"sum by (instance, cause) (increase(asr_worker_restarts_total{{{HOSTS}}}[30m]))",
                "{{instance}} {{cause}}",
            )
        ],
        limit="threshold:asr_worker_restarts:max",
        alerts=("AsrWorkerRestarting",),
        bars=True,
    ),
    Graph(
        "Refusals of the job database",
        "Readings and changes of jobs that the disk refused within 5 minutes.",
        "short",
        [(f"instance:asr_job_database_errors:increase5m{{{HOSTS}}}", "{{instance}}")],
        alerts=("AsrJobDatabaseFailing",),
        bars=True,
    ),
    Graph(
        "Job databases set aside",
        "Damaged ones that lie in the data directory; what they held is not known any more.",
        "short",
        [(f"asr_job_databases_set_aside{{{HOSTS}}}", "{{instance}}")],
        alerts=("AsrJobDatabaseSetAside",),
    ),
    Graph(
        "CUDA out of memory",
        "Batches that were split within 15 minutes.",
        "short",
        [(f"instance:asr_cuda_out_of_memory:increase15m{{{HOSTS}}}", "{{instance}}")],
        alerts=("AsrCudaOutOfMemory",),
        bars=True,
    ),
)

_WORDS = (
    Graph(
        "Canary",
        "Time for the golden clip by its length, as a user would see it.",
        "none",
        [(f"asr_canary_rtf{{{HOSTS}}}", "{{instance}}")],
        alerts=("AsrCanaryFailing",),
    ),
    Graph(
        "Canary's age",
        "Since the golden clip was last sent.",
        "s",
        [(f"instance:asr_canary_age_seconds:now{{{HOSTS}}}", "{{instance}}")],
        limit="threshold:asr_canary_age_seconds:max",
        alerts=("AsrCanaryStale",),
    ),
)

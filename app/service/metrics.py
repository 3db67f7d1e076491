"""The metrics at /metrics: this module owns every name. docs/metrics.md tells them to people; a test compares.

Counters of requests are moved by logs.py when a response ends; what the engine knows is read when somebody scrapes.
A reading that is not there has no series: zero would be a claim.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from app.service.job_records import STATES, JobCounts
from app.service.recognising import EngineStatus
from app.service.worker import CAUSES

RTF_BUCKETS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0)
WAIT_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
CONTENT_TYPE = CONTENT_TYPE_LATEST
# What the worker tells of a device's memory: its word for it, the metric, the meaning.
DEVICE_MEMORY = (
    ("device_peak_bytes", "asr_device_memory_peak_bytes", "Most GPU memory held at once"),
    ("device_budget_bytes", "asr_device_memory_budget_bytes", "GPU memory the newest batch was allowed"),
    (
        "device_predicted_bytes",
        "asr_device_memory_predicted_bytes",
        "Most GPU memory planned to be held at once",
    ),
)


class Metrics:
    """All metrics of one service.

    `count_jobs` tells of the jobs, as far as they can be read; it may take its time, since it is asked in a thread.
    """

    def __init__(self, status: Callable[[], EngineStatus], *, image: str, version: str) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, of no use to Prometheus
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "asr_http_requests", "Answered HTTP requests", ["route", "code"], registry=self.registry
        )
        self.rtf = Histogram(
            "asr_rtf",
            "Time from the start of recognition to its end, by the audio's length, of each file",
            buckets=RTF_BUCKETS,
            registry=self.registry,
        )
        self.audio_seconds = Counter("asr_audio_seconds", "Audio recognised", registry=self.registry)
        self.processing_seconds = Counter(
            "asr_processing_seconds", "Time spent on recognition, of all files", registry=self.registry
        )
        self.wait_seconds = Histogram(
            "asr_wait_seconds",
            "Time from acceptance to the first segment at work, of each file",
            buckets=WAIT_BUCKETS,
            registry=self.registry,
        )
        self.jobs = Gauge("asr_jobs", "Jobs on the disk, by state", ["state"], registry=self.registry)
        self.job_database_errors = Counter(
            "asr_job_database_errors",
            "Readings and changes of jobs that the disk refused",
            registry=self.registry,
        )
        self.job_databases_set_aside = Gauge(
            "asr_job_databases_set_aside",
            "Damaged job databases that lie in the data directory",
            registry=self.registry,
        )
        self.count_jobs: Callable[[], JobCounts] | None = None
        self.registry.register(_EngineCollector(status, image, version))

    def recognised(
        self, audio_seconds: float, elapsed_seconds: float, queue_seconds: float | None = None
    ) -> None:
        """A file is done. Jobs have no time of waiting: that is their nature."""
        self.audio_seconds.inc(audio_seconds)
        self.processing_seconds.inc(elapsed_seconds)
        if queue_seconds is not None:
            self.wait_seconds.observe(queue_seconds)
        if audio_seconds > 0:
            self.rtf.observe(elapsed_seconds / audio_seconds)

    async def answer(self) -> bytes:
        """What a scrape gets."""
        if self.count_jobs is not None:
            counted = await asyncio.to_thread(self.count_jobs)
            if counted.by_state is None:
                self.jobs.clear()
            else:
                for state in STATES:
                    self.jobs.labels(state).set(counted.by_state.get(state, 0))
            if counted.set_aside is not None:
                self.job_databases_set_aside.set(counted.set_aside)
        return self.render()

    def render(self) -> bytes:
        """Prometheus's text format."""
        return generate_latest(self.registry)


class _EngineCollector(Collector):
    """What the engine says of itself at the moment of a scrape."""

    def __init__(self, status: Callable[[], EngineStatus], image: str, version: str) -> None:
        self._status, self._image, self._version = status, image, version

    def describe(self) -> Iterator[Metric]:
        """Nothing: asking the engine at registration would be too early."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        status = self._status()
        yield _gauge("asr_queue_seconds", "Audio accepted and not yet recognised", status.waiting_seconds)
        meaning = "How long the oldest unfinished segment has been waiting or at work"
        yield _gauge("asr_queue_age_seconds", meaning, status.oldest_seconds)
        yield _gauge(
            "asr_engine_ready", "1 when work is taken at once", float(status.state in {"ready", "asleep"})
        )
        restarts = CounterMetricFamily(
            "asr_worker_restarts", "Worker processes that were started again, by cause", labels=["cause"]
        )
        # Zeros are true here, and without them nobody would see the first restart of a kind as an increase.
        for cause, count in {**dict.fromkeys(CAUSES, 0), **status.restarts}.items():
            restarts.add_metric([cause], count)
        yield restarts
        info = GaugeMetricFamily(
            "asr_engine_info",
            "1; what serves, as labels",
            labels=["variant", "model", "precision", "device", "image", "version"],
        )
        variant = running_variant(status.device, status.precision)
        labels = [variant, status.model, status.precision, status.device, self._image, self._version]
        info.add_metric(labels, 1.0)
        yield info
        yield from self._measured(status.statistics)

    def _measured(self, statistics: Mapping[str, Any]) -> Iterator[Metric]:
        passed = statistics.get("self_check_passed")
        if passed is not None:
            meaning = "1 when the model recognised its own golden clip at start"
            yield _gauge("asr_self_check_passed", meaning, float(bool(passed)))
        splits = _number(statistics.get("out_of_memory"))
        if splits is not None:
            meaning = "Batches that did not fit into GPU memory and were split"
            yield CounterMetricFamily("asr_cuda_out_of_memory", meaning, value=splits)
        frames, padded = _number(statistics.get("frames")), _number(statistics.get("padded_frames"))
        if frames is not None and padded:
            meaning = "Part of the frames computed that was padding, 0 to 1, since the worker's start"
            yield _gauge("asr_batch_padding_ratio", meaning, max(0.0, 1.0 - frames / padded))
        for key, name, meaning in DEVICE_MEMORY:
            value = _number(statistics.get(key))
            if value is not None:
                yield _gauge(name, meaning, value)


def running_variant(device: str, precision: str) -> str:
    """What really computes, in the words of the images: cpu, cuda-fp16 or cuda-fp32; empty while not decided."""
    kind = device.partition(":")[0]
    if kind == "cuda":
        return "" if precision == "auto" else f"cuda-{precision}"
    return "" if kind == "auto" else kind


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(name, meaning, value=value)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None

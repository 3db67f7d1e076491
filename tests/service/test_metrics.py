"""Metrics: what is counted, and that the page about them is true."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.service.job_records import STATES
from app.service.metrics import Metrics, running_variant
from tests.fakes.recogniser import READY, FakeRecogniser, spoken
from tests.support.service import app_in, ask, get, transcribe, wav

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
EVERYTHING = {
    "frames": 90,
    "padded_frames": 120,
    "out_of_memory": 2,
    "device_peak_bytes": 7,
    "device_budget_bytes": 5,
    "device_predicted_bytes": 8,
    "self_check_passed": True,
}


def samples(text: str) -> dict[str, float]:
    """Name and labels of each sample -> its value."""
    return {
        sample.name + "".join(f" {value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def metrics_of(recogniser: FakeRecogniser) -> Metrics:
    return Metrics(recogniser.status, image="cuda-fp16", version="1")


def test_the_page_names_exactly_the_metrics_there_are() -> None:
    recogniser = FakeRecogniser()
    recogniser.becomes(statistics=EVERYTHING, restarts={"killed": 1})
    families = text_string_to_metric_families(metrics_of(recogniser).render().decode())
    there = {(f.name + ("_total" if f.type == "counter" else ""), f.type) for f in families}
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(rows) == there
    assert len(rows) == len(there)


def test_the_page_names_the_labels(tmp_path: Path) -> None:
    app = app_in(tmp_path)
    app.state.service.recogniser.becomes(statistics=EVERYTHING, restarts={"killed": 1})
    get(app, "/metrics")
    families = text_string_to_metric_families(app.state.service.metrics.render().decode())
    labels = {name for f in families for sample in f.samples for name in sample.labels} - {"le"}
    rows = re.findall(r"^\| `asr_\w+` \| \w+ \| (.*?) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert labels == {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_what_a_request_leaves(tmp_path: Path) -> None:
    app = app_in(tmp_path, FakeRecogniser([spoken(9.5, "今", "天")]))
    transcribe(app)
    transcribe(app, {"model": "other"})
    get(app, "/nothing/4711")
    get(app, "/docs")
    counted = samples(get(app, "/metrics").text)
    assert counted["asr_http_requests_total 200 /v1/audio/transcriptions"] == 1
    assert counted["asr_http_requests_total 404 /v1/audio/transcriptions"] == 1
    assert counted["asr_http_requests_total 404 other"] == 1
    assert counted["asr_http_requests_total 200 /docs"] == 1
    assert counted["asr_audio_seconds_total"] == 10
    assert counted["asr_processing_seconds_total"] == 1
    assert counted["asr_rtf_bucket 0.1"] == counted["asr_rtf_count"] == 1
    assert counted["asr_rtf_bucket 0.075"] == 0
    assert counted["asr_wait_seconds_count"] == 1


def test_what_the_engine_tells() -> None:
    recogniser = FakeRecogniser()
    recogniser.becomes(
        statistics=EVERYTHING, restarts={"killed": 3}, waiting_seconds=12.5, oldest_seconds=4.5
    )
    counted = samples(metrics_of(recogniser).render().decode())
    assert counted["asr_queue_seconds"] == 12.5
    assert counted["asr_queue_age_seconds"] == 4.5
    assert counted["asr_worker_restarts_total killed"] == 3
    assert counted["asr_batch_padding_ratio"] == 0.25
    assert counted["asr_cuda_out_of_memory_total"] == 2
    assert counted["asr_self_check_passed"] == 1
    kinds = ("budget", "predicted", "peak")
    assert [counted[f"asr_device_memory_{kind}_bytes"] for kind in kinds] == [5, 8, 7]
    assert counted["asr_engine_info cpu cuda-fp16 fake fp32 cpu 1"] == 1


def test_what_is_not_known_has_no_series() -> None:
    counted = samples(metrics_of(FakeRecogniser()).render().decode())
    absent = ("asr_self_check", "asr_batch", "asr_cuda", "asr_device", "asr_jobs")
    assert not [name for name in counted if name.startswith(absent)]


def test_the_first_restart_of_a_kind_is_an_increase() -> None:
    counted = samples(metrics_of(FakeRecogniser()).render().decode())
    assert {name: value for name, value in counted.items() if "restarts" in name} == {
        f"asr_worker_restarts_total {cause}": 0 for cause in ("killed", "hung", "device lost")
    }


@pytest.mark.parametrize(
    ("device", "precision", "variant"),
    [
        ("cpu", "int8", "cpu"),
        ("cuda:1", "fp16", "cuda-fp16"),
        ("cuda", "fp32", "cuda-fp32"),
        ("cuda", "auto", ""),
        ("auto", "auto", ""),
    ],
)
def test_the_variant_is_what_computes_and_not_what_was_wished(
    device: str, precision: str, variant: str
) -> None:
    assert running_variant(device, precision) == variant


def test_jobs_are_counted_by_state(tmp_path: Path) -> None:
    app = app_in(tmp_path)

    async def scene(client: httpx.AsyncClient) -> httpx.Response:
        await client.post("/v1/jobs", files={"file": ("talk.wav", wav())})
        while True:
            answer = await client.get("/metrics")
            if samples(answer.text)["asr_jobs done"]:
                return answer
            await asyncio.sleep(0.01)

    counted = samples(ask(app, scene).text)
    assert [counted[f"asr_jobs {state}"] for state in STATES] == [0, 0, 1, 0, 0]


@pytest.mark.parametrize(("state", "ready"), [("ready", 1), ("asleep", 1), ("starting", 0), ("failed", 0)])
def test_ready_is_when_work_is_taken(state: str, ready: int) -> None:
    recogniser = FakeRecogniser(state=READY)
    recogniser.becomes(state=state)
    assert samples(metrics_of(recogniser).render().decode())["asr_engine_ready"] == ready

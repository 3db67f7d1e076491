"""Passing on a service's metrics: names untouched, broken services seen, nothing else spoilt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from app.service.metrics import Metrics
from monitoring.exporter import relay
from monitoring.exporter.collector import Collector, Source
from monitoring.exporter.errors import ReadingError
from monitoring.exporter.names import METRICS
from monitoring.exporter.relay import Relay, parse
from monitoring.exporter.render import render
from tests.fakes.recogniser import FakeRecogniser
from tests.monitoring.conftest import FakeService
from tests.support.page import samples

RawService = Callable[[bytes, bool], str]
HOST = Source("host", lambda: (_ for _ in ()).throw(ReadingError("none", fix="none")))


def service_page() -> bytes:
    """The real service's metrics, after some work."""
    recogniser = FakeRecogniser()
    recogniser.becomes(
        statistics={"frames": 90, "padded_frames": 120, "out_of_memory": 2}, restarts={"killed": 1}
    )
    metrics = Metrics(recogniser.status, image="cpu", version="1")
    metrics.requests.labels("/v1/audio/transcriptions", "200").inc()
    metrics.recognised(10.0, 1.25, 0.5)
    return metrics.render()


def page_of(*relays: Relay) -> dict[str, float]:
    sources = [HOST, *(Source(each.name, each.read) for each in relays)]
    reading = Collector(sources, 60.0).collect()
    return samples(render(reading, relays=[each.url for each in relays]))


def test_every_series_of_the_service_comes_through_untouched(service: FakeService) -> None:
    service.answer = lambda: (200, service_page())
    page = page_of(Relay(f"{service.url}/metrics"))
    there = samples(service_page())
    assert len(there) > 40
    assert there.items() <= page.items()
    assert page[f'asr_relay_success{{url="{service.url}/metrics"}}'] == 1
    assert service.asked[0][:2] == ("/metrics", "")


def test_a_key_is_sent(service: FakeService) -> None:
    service.answer = lambda: (200, b"")
    Relay(f"{service.url}/metrics?x=1", "secret-key").read()
    assert service.asked[0][:2] == ("/metrics?x=1", "Bearer secret-key")


def test_services_side_by_side_are_told_apart(service: FakeService) -> None:
    service.answer = lambda: (200, service_page())
    where = service.url.removeprefix("http://")
    page = page_of(
        Relay(f"{service.url}/metrics"),
        Relay(f"{service.url}/b/metrics"),
        Relay("http://127.0.0.1:1/metrics"),
    )
    assert page[f'asr_queue_seconds{{relay="{where}"}}'] == 0
    assert "asr_queue_seconds" not in page
    assert page['asr_relay_success{url="http://127.0.0.1:1/metrics"}'] == 0


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (500, b"", "answered 500"),
        (302, b"", "answered 302"),
        (401, b"", "wants a key"),
        (200, b"<html>hello</html>\n", "not Prometheus's text format"),
        (200, b"asr_rtf_count{ 1\n", "not Prometheus's text format"),
        (200, b"asr_queue_seconds abc\n", "not Prometheus's text format"),
        (200, b"asr_queue_seconds 1", "cut off"),
        (200, b"\xff\xfe 1\n", "not Prometheus's text format"),
        (200, b"# HELP\n# TYPE x\n", "not Prometheus's text format"),
        (200, b"x 1\n" * 200_000, "more than 512 KiB"),
    ],
)  # fmt: skip
def test_a_broken_service_is_seen_and_spoils_nothing(
    service: FakeService, status: int, body: bytes, words: str
) -> None:
    service.answer = lambda: (status, body)
    made = Relay(f"{service.url}/metrics")
    with pytest.raises(ReadingError, match=words):
        made.read()
    page = page_of(made)
    assert page[f'asr_relay_success{{url="{service.url}/metrics"}}'] == 0
    assert [name for name in page if name.startswith("asr_exporter_build_info")]


def test_nobody_listens() -> None:
    with pytest.raises(ReadingError, match="does not answer"):
        Relay("http://127.0.0.1:1/metrics").read()


@pytest.mark.parametrize(
    "begin", [b"", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx 1\n"]
)
def test_a_service_that_never_ends_its_answer(
    raw_service: RawService, monkeypatch: pytest.MonkeyPatch, begin: bytes
) -> None:
    monkeypatch.setattr(relay, "_SECONDS", 0.2)
    with pytest.raises(ReadingError, match=r"within 0\.2 s"):
        Relay(raw_service(begin, False)).read()


@pytest.mark.parametrize(
    "nonsense",
    [
        b"garbage\r\n\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\nx 1",
        b"HTTP/1.1 200 OK\r\n\r\n\x00",
    ],
)
def test_something_else_listens(raw_service: RawService, nonsense: bytes) -> None:
    with pytest.raises(ReadingError):
        Relay(raw_service(nonsense, True)).read()


def test_names_of_ours_are_left_out() -> None:
    text = "asr_gpu_up 9\n# TYPE asr_container_oom_kills_total counter\nasr_container_oom_kills_total 5\nasr_rtf 1\n"
    assert [family.name for family in parse(text)] == ["asr_rtf"]


def test_the_services_names_and_ours_do_not_meet() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert not [name for name in METRICS if f"`{name}`" in page]

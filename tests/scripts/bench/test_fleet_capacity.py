"""The comparison of the capacity model with a fleet, from times that nobody measured."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from scripts.bench.capacity import Pace
from scripts.bench.fleet_capacity import RULES, Gateway, compared, page
from scripts.bench.measure import BenchError
from scripts.picking.load import Files
from scripts.picking.simulation import Server, simulate

MACHINE = {"date": "2026-01-01", "processor": "Toy", "cores": 2, "load_average_at_start": 0.5}
FILES = Files((10.0, 60.0), (1.0, 1.0))
ALONE = {10: 0.2, 60: 0.7}  # 0.1 s a file and 0.01 s a second
SENT = [(0.0, 60.0), (0.1, 10.0), (0.2, 60.0), (0.3, 60.0), (5.0, 10.0)]


def test_a_fleet_like_the_simulated_one_has_its_waits() -> None:
    """Two instances that manage 0.45 s of work each: 2 / 0.45 files a second together."""
    answers = simulate([Server(0.01, 0.1)] * 2, SENT, RULES).answers
    found = compared(0.5, SENT, answers, Pace(ALONE, 2 / 0.45), FILES, 2)
    assert (found.server.rtf, found.server.per_file) == pytest.approx((0.01, 0.1))
    assert found.measured.mean == pytest.approx(found.simulated.mean) and found.simulated.mean > 0
    row = next(
        line
        for line in page(MACHINE, 2, FILES, [Pace(ALONE, 4.0)], [found], "").splitlines()
        if "| mean |" in line
    )
    assert "| 1.00 |" in row


def test_fewer_instances_wait_longer() -> None:
    answers = [1.0] * len(SENT)
    one, two = (compared(0.5, SENT, answers, Pace(ALONE, count / 0.45), FILES, count) for count in (1, 2))
    assert one.simulated.mean > two.simulated.mean


def test_what_failed_is_told_and_not_counted() -> None:
    found = compared(0.5, SENT[:2], [math.inf, 0.2], Pace(ALONE, 2.0), FILES, 2)
    assert (found.failures, found.files, found.measured.mean) == (1, 2, 0.0)
    with pytest.raises(BenchError, match="Every file failed"):
        compared(0.5, SENT[:1], [math.inf], Pace(ALONE, 2.0), FILES, 2)


class FakeGateway(BaseHTTPRequestHandler):
    """Knows one key, and gives its text."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        good = self.headers["Authorization"] == "Bearer right"
        body = b'{"text": "words"}' if good else b'{"error": {}}'
        self.send_response(200 if good else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Silent."""


@pytest.fixture
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), FakeGateway) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_only_words_are_a_good_answer(address: str, tmp_path: Path) -> None:
    audio = tmp_path / "a.wav"
    audio.write_bytes(b"sound")
    assert Gateway(address, "right").ask(audio, 10).good
    assert not Gateway(address, "wrong").ask(audio, 10).good
    assert not Gateway("http://127.0.0.1:9", "right").ask(audio, 10).good

"""The oracle itself: what it excuses, what it does not, and the page that tells."""

from __future__ import annotations

import http.client
import json
import sqlite3
import threading
from collections import Counter
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from app.service.job_store import JobStore
from tests.chaos.campaign import Outcome
from tests.chaos.faults import FAULTS
from tests.chaos.ledger import Ledger, SentJob
from tests.chaos.network import BadNetwork, Line
from tests.chaos.report import write
from tests.chaos.timepiece import Timepiece
from tests.chaos.watching import Absence, lies_in
from tests.chaos.world import ENDED
from tests.service.test_job_store import accepted, done
from tests.support.witness import endings, watch

MACHINE = {
    "date": "2026-01-01",
    "processor": "a processor",
    "cores": 2,
    "kernel": "6.1",
    "python": "3.11",
    "load_average_at_start": 0.5,
}


def test_a_request_may_come_to_nothing_only_while_something_is_wrong() -> None:
    ledger, now = Ledger(), 0.0
    with ledger.disturbance():
        ledger.missed("no answer: cut", now)
    assert ledger.unexplained() == []
    ledger.missed("refused: 503", began=float("inf"))
    assert [attempt.what for attempt in ledger.unexplained()] == ["refused: 503"]
    assert ledger.counts == {"no answer": 1, "refused": 1}
    ledger.excuse(0.0)
    assert [attempt.what for attempt in ledger.unexplained()] == ["refused: 503"]
    ledger.missed("refused: 502", began=1.0)
    ledger.excuse(0.0)
    assert [attempt.what for attempt in ledger.unexplained()] == ["refused: 503"]


def test_a_job_is_forgotten_with_its_database_and_not_before() -> None:
    ledger = Ledger()
    before = SentJob("a", "x.wav", ["job_a"], epoch=ledger.epoch)
    ledger.add(before)
    assert ledger.known() == [before]
    ledger.forget_all()
    after = SentJob("b", "x.wav", ["job_b"], epoch=ledger.epoch)
    ledger.add(after)
    assert ledger.is_forgotten(before)
    assert ledger.known() == [after]


def test_the_witness_sees_a_second_end(tmp_path: Path) -> None:
    store, path = JobStore(tmp_path / "jobs"), tmp_path / "jobs" / "jobs.sqlite3"
    watch(path)
    once, twice = accepted(store), accepted(store)
    for _ in (once, twice):
        store.claim()
    for job in (once, twice):
        store.end(job.id, done())
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("UPDATE jobs SET state = 'failed' WHERE id = ?", (twice.id,))
    assert endings(path)[once.id] == 1
    assert endings(path)[twice.id] > 1
    store.close()


def test_a_watcher_must_tell_of_what_is_away_and_of_nothing_else() -> None:
    away = [Absence("service", 100.0, 110.0, long=True)]
    quick = dict.fromkeys(map(float, range(90, 130)), 0.01)
    right = {when: float(not 102 <= when <= 111) for when in map(float, range(90, 130))}
    assert lies_in(right, quick, away) == []
    silent = dict.fromkeys(right, 1.0)
    assert [lie for lie in lies_in(silent, quick, away) if "not told" in lie]
    assert lies_in({99.9: 0.0}, quick, away) == []  # by a scrape during which it went away
    assert lies_in({98.0: 0.0}, quick, away) != []
    assert lies_in(silent, quick, [Absence("service", 100.0, 100.5, long=False)]) == []
    false = right | {125.0: 0.0}
    assert [lie for lie in lies_in(false, quick, away) if "told to be away at 125.0" in lie]
    assert lies_in(false, quick | {124.0: 1.0}, away) == []  # the machine was busy


def test_a_clock_is_set_for_programs_that_look_at_it(tmp_path: Path) -> None:
    timepiece = Timepiece(tmp_path / "clock")
    timepiece.step_to(-3600)
    assert (tmp_path / "clock").read_text() == "-3600\n"
    timepiece.step_to(0)
    assert (tmp_path / "clock").read_text() == "+0\n"


def test_a_bad_line_breaks_connections_and_a_good_one_does_not() -> None:
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"x" * 100_000)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            """Says nothing."""

    with (
        HTTPServer(("127.0.0.1", 0), Answers) as server,
        closing(BadNetwork(server.server_port, 1)) as network,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host, port = network.address.removeprefix("http://").split(":")
        assert len(_fetch(host, int(port))) == 100_000
        network.line = Line(break_chance=1.0)
        with pytest.raises((http.client.HTTPException, OSError)):
            _fetch(host, int(port))
        assert network.broken >= 1
        server.shutdown()


def _fetch(host: str, port: int) -> bytes:
    connection = http.client.HTTPConnection(host, port, timeout=10)
    with closing(connection):
        connection.request("GET", "/")
        return connection.getresponse().read()


def test_the_page_tells_what_was_done_and_what_went_wrong(tmp_path: Path) -> None:
    first, second, *_ = FAULTS
    outcome = Outcome(
        7,
        90.0,
        faults=Counter({first: 12}),
        not_here={second: "there is no mkfs.ext4"},
        alerts=Counter({"AsrTargetDown": 5}),
        counts=Counter({"jobs accepted": 34, "jobs lost": 1, ENDED + "worker": 19, ENDED + "service": 2}),
        violations=["jobs lost: job_x"],
    )
    page = write(outcome, MACHINE, 100.0, tmp_path)
    assert (tmp_path / "chaos.md").read_text(encoding="utf-8") == page
    for part in (
        f"| {first} | 12 |",
        f"| {second} | not possible here: there is no mkfs.ext4 |",
        "| jobs lost | 1 |",
        "| AsrTargetDown | 5 |",
        "started again (service 2, worker 19) | 21 |",
        "**1** |",
        "- jobs lost: job_x",
        "Seed 7",
        "1.5 minutes",
    ):
        assert part in page
    raw = json.loads((tmp_path / "chaos.json").read_text(encoding="utf-8"))
    assert raw["faults"] == {first: 12}
    assert raw["machine"] == MACHINE

"""The disk of the jobs refuses: every address of them says so, and everything else of the service goes on."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.asr.errors import ResourceError
from app.service import job_runner, main
from app.service.job_store import JobStore
from app.service.jobs import Jobs
from tests.fakes.recogniser import FakeRecogniser, segment
from tests.service.test_jobs import code_of, ended, play, running, send
from tests.service.test_metrics import samples
from tests.support.service import app_in, transcribe, wav

FOREVER = 3600.0
LONG = "".join(random.Random(1).choices([chr(0x4E00 + number) for number in range(9000)], k=4000))
WHOLE, REFUSED = "asr_job_database_errors_total", (503, "jobs_unavailable")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Jobs]:
    """The jobs of the applications that are made."""
    found: list[Jobs] = []

    def make(*given: Any, **named: Any) -> Jobs:
        found.append(Jobs(*given, **named))
        return found[-1]

    monkeypatch.setattr(main, "Jobs", make)
    return found


def connection_of(jobs: Jobs) -> sqlite3.Connection:
    return jobs.store._database.connection


def fill(jobs: Jobs) -> None:
    """No page more than there is, as on a full disk; what fits into the pages is taken still."""
    connection_of(jobs).execute("PRAGMA max_page_count = 1")


def make_read_only(jobs: Jobs) -> None:
    connection_of(jobs).execute("PRAGMA query_only = 1")


def make_busy(jobs: Jobs) -> None:
    connection_of(jobs).execute("PRAGMA busy_timeout = 1")
    other = sqlite3.connect(jobs.settings.data_dir / "jobs" / "jobs.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    jobs.other = other  # type: ignore[attr-defined]  # kept open with them


def damage(jobs: Jobs) -> None:
    connection = connection_of(jobs)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.execute("PRAGMA cache_size = 0")
    path = jobs.settings.data_dir / "jobs" / "jobs.sqlite3"
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))
    connection.execute("PRAGMA shrink_memory")


CHANGES = [(make_read_only, False), (make_busy, True), (damage, False)]


@pytest.mark.parametrize(("fault", "may_pass"), CHANGES)
def test_what_changes_jobs_answers_503(
    tmp_path: Path, made: list[Jobs], fault: Callable[[Jobs], None], may_pass: bool
) -> None:
    app = app_in(tmp_path, FakeRecogniser([segment(0, "今天"), FOREVER]))

    async def scene(client: httpx.AsyncClient) -> None:
        job = (await send(client)).json()
        await running(client, job["id"])
        fault(made[0])
        for answer in (
            await send(client),
            await send(client, headers={"Idempotency-Key": "k"}),
            await client.post(f"/v1/jobs/{job['id']}/cancel"),
            await client.delete(f"/v1/jobs/{job['id']}"),
        ):
            assert code_of(answer) == REFUSED
            assert ("retry-after" in answer.headers) == may_pass
            assert answer.json()["error"]["type"] == "server_error"
            assert str(tmp_path) not in answer.text
        assert not list((tmp_path / "data" / "jobs" / "incoming").iterdir())
        counted = samples((await client.get("/metrics")).text)
        assert counted[WHOLE] >= 4

    play(app, scene)


def test_a_full_disk_takes_no_job(tmp_path: Path, made: list[Jobs]) -> None:
    async def scene(client: httpx.AsyncClient) -> None:
        fill(made[0])
        answer = await send(client, data={"hotwords": LONG})
        assert code_of(answer) == REFUSED
        assert "full" in answer.json()["error"]["message"]
        assert answer.headers["retry-after"] == "30"
        for folder in ("incoming", "uploads"):
            assert not list((tmp_path / "data" / "jobs" / folder).iterdir())

    play(app_in(tmp_path), scene)


def test_what_reads_jobs_answers_503_and_everything_else_goes_on(tmp_path: Path, made: list[Jobs]) -> None:
    app = app_in(tmp_path, FakeRecogniser([segment(0, "今天")]))

    async def scene(client: httpx.AsyncClient) -> None:
        job = (await send(client)).json()
        await ended(client, job["id"])
        before = samples((await client.get("/metrics")).text)
        assert before["asr_jobs done"] == 1
        assert before[WHOLE] == before["asr_job_databases_set_aside"] == 0
        damage(made[0])
        for path in ("", f"/{job['id']}", f"/{job['id']}/result"):
            answer = await client.get(f"/v1/jobs{path}")
            assert code_of(answer) == REFUSED, path
            assert "retry-after" not in answer.headers
            assert "start it again" in answer.json()["error"]["message"]
        answer = await client.get("/metrics")
        assert answer.status_code == 200
        after = samples(answer.text)
        assert not [name for name in after if name.startswith("asr_jobs")]
        assert after[WHOLE] == 4
        kept = {name for name in before if not name.startswith("asr_jobs ")}
        assert kept <= set(after)
        assert (await client.get("/healthz")).status_code == 200
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (200, "ready")
        spoken = await client.post(
            "/v1/audio/transcriptions", data={"model": "whisper-1"}, files={"file": ("a.wav", wav())}
        )
        assert (spoken.status_code, spoken.json()["text"]) == (200, "今天")

    play(app, scene)


def test_metrics_are_there_when_the_store_is_not(tmp_path: Path, made: list[Jobs]) -> None:
    async def scene(client: httpx.AsyncClient) -> None:
        await made[0].close()
        answer = await client.get("/metrics")
        assert answer.status_code == 200
        assert not [name for name in samples(answer.text) if name.startswith("asr_jobs ")]

    play(app_in(tmp_path), scene)


@pytest.mark.parametrize("fault", [fill, make_read_only, make_busy])
def test_a_job_that_meets_a_refusing_disk_ends_when_it_takes_things_again(
    tmp_path: Path, made: list[Jobs], monkeypatch: pytest.MonkeyPatch, fault: Callable[[Jobs], None]
) -> None:
    monkeypatch.setattr(job_runner, "_RETRY_SECONDS", 0.02)
    told = asyncio.Event()
    app = app_in(tmp_path, FakeRecogniser([segment(0, "今天"), told.wait, segment(1, LONG)]))

    async def scene(client: httpx.AsyncClient) -> None:
        job = (await send(client)).json()
        await running(client, job["id"])
        fault(made[0])
        told.set()
        for _ in range(100):
            await asyncio.sleep(0.02)
            if samples((await client.get("/metrics")).text)[WHOLE] >= 3:
                break
        assert (await client.get(f"/v1/jobs/{job['id']}")).json()["state"] == "running"
        _mend(made[0])
        assert (await ended(client, job["id"]))["state"] == "done"
        text = (await client.get(f"/v1/jobs/{job['id']}/result?format=text")).text
        assert text == f"今天\n{LONG}\n"

    play(app, scene)


def test_a_job_that_cannot_be_read_when_it_is_taken_is_not_left_running(
    tmp_path: Path, made: list[Jobs], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_runner, "_RETRY_SECONDS", 0.02)
    get = JobStore.get
    failed: list[str] = []

    def once(store: JobStore, job_id: str) -> Any:
        if not failed and "running" in str(get(store, job_id)):
            failed.append(job_id)
            raise sqlite3.OperationalError("database is locked")
        return get(store, job_id)

    app = app_in(tmp_path, FakeRecogniser([segment(0, "今天")]))

    async def scene(client: httpx.AsyncClient) -> None:
        monkeypatch.setattr(JobStore, "get", once)
        job = (await send(client)).json()
        limit = time.monotonic() + 10
        while not failed:
            assert time.monotonic() < limit
            await asyncio.sleep(0.01)
        assert (await ended(client, job["id"]))["state"] == "done"

    play(app, scene)


@pytest.mark.parametrize(
    "error",
    [sqlite3.OperationalError("disk I/O error"), sqlite3.DatabaseError("database disk image is malformed")],
)
def test_a_job_whose_segments_cannot_be_read_waits(
    tmp_path: Path, made: list[Jobs], monkeypatch: pytest.MonkeyPatch, error: sqlite3.Error
) -> None:
    monkeypatch.setattr(job_runner, "_RETRY_SECONDS", 0.02)
    segments, failed = JobStore.segments, [error, error]

    def twice(store: JobStore, job_id: str) -> Any:
        if failed:
            raise failed.pop()
        return segments(store, job_id)

    monkeypatch.setattr(JobStore, "segments", twice)

    async def scene(client: httpx.AsyncClient) -> None:
        job = (await send(client)).json()
        assert (await ended(client, job["id"]))["state"] == "done"

    play(app_in(tmp_path, FakeRecogniser([segment(0, "今天")])), scene)


def _mend(jobs: Jobs) -> None:
    connection = connection_of(jobs)
    connection.execute("PRAGMA max_page_count = 1000000")
    connection.execute("PRAGMA query_only = 0")
    other = getattr(jobs, "other", None)
    if other is not None:
        other.close()


def test_a_fault_of_ours_is_not_blamed_on_the_disk(
    tmp_path: Path, made: list[Jobs], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_: Any, **__: Any) -> None:
        raise sqlite3.ProgrammingError("incorrect number of bindings")

    async def scene(client: httpx.AsyncClient) -> None:
        monkeypatch.setattr(made[0].store, "newest", wrong)
        assert code_of(await client.get("/v1/jobs")) == (500, "internal_error")

    play(app_in(tmp_path), scene)


def test_an_upload_that_cannot_be_moved_is_told(
    tmp_path: Path, made: list[Jobs], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "x"))

    async def scene(client: httpx.AsyncClient) -> None:
        monkeypatch.setattr("app.service.job_store.sync", full)
        answer = await send(client)
        assert code_of(answer) == REFUSED
        assert "No space left" in answer.json()["error"]["message"]
        assert str(tmp_path) not in answer.text
        assert answer.headers["retry-after"] == "30"

    play(app_in(tmp_path), scene)


def test_an_upload_that_cannot_be_removed_does_not_stop_the_work(
    tmp_path: Path, made: list[Jobs], monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.parent.name == "uploads" and path.name.startswith("job_"):
            raise OSError(30, "Read-only file system", str(path))
        unlink(path, missing_ok=missing_ok)

    async def scene(client: httpx.AsyncClient) -> None:
        monkeypatch.setattr(Path, "unlink", refuse)
        for _ in range(2):
            job = (await send(client)).json()
            assert (await ended(client, job["id"]))["state"] == "done"
            assert (await client.delete(f"/v1/jobs/{job['id']}")).status_code == 200

    play(app_in(tmp_path, FakeRecogniser([segment(0, "今天")])), scene)


def test_a_disk_that_refuses_at_the_start_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(JobStore, "recover", refuse)

    async def nothing(_: httpx.AsyncClient) -> None:
        raise AssertionError("it started")

    with pytest.raises(ResourceError, match="disk is full"):
        play(app_in(tmp_path), nothing)
    monkeypatch.undo()
    transcribed: FastAPI = app_in(tmp_path, FakeRecogniser([segment(0, "今天")]))
    assert transcribe(transcribed).status_code == 200  # and lets go of the directory

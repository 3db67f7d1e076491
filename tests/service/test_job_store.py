"""What is kept of jobs: durable when accepted, ended once, taken in turn, forgotten in time."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.asr.errors import InputError, ResourceError
from app.asr.hotwords import UnusableWord
from app.asr.subtitles import ResultDetails
from app.asr.transcript import Transcript
from app.service.errors import JobsUnavailable
from app.service.job_database import DEATH
from app.service.job_records import Ending, Job, KeyReusedError, NewJob, result_of, transcript_of
from app.service.job_store import JobStore
from tests.fakes.clock import FakeClock
from tests.fakes.engine import marked
from tests.fakes.recogniser import segment, spoken


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    store = JobStore(tmp_path / "jobs")
    yield store
    store.close()


def new(store: JobStore, data: bytes = b"sound", owner: str = "", client: str = "a") -> NewJob:
    upload = store.incoming / secrets.token_hex(8)
    upload.write_bytes(data)
    return NewJob(upload, name="talk.wav", owner=owner, client=client, hotwords="阿里巴巴", formats=("srt",))


def accepted(store: JobStore, client: str = "a", data: bytes = b"sound", owner: str = "") -> Job:
    (job,), is_new = store.accept([new(store, data, owner, client)])
    assert is_new
    return job


def reopened(store: JobStore, directory: Path, deaths: int = 3) -> tuple[JobStore, list[Job]]:
    store.close()
    again = JobStore(directory)
    return again, again.recover(deaths)


def done(text: str = "今天") -> Ending:
    transcript = Transcript()
    transcript.add(spoken(0.0, *text))
    return Ending("done", result_of(transcript, ResultDetails(1.0, "m", "int8")), audio_seconds=1.0)


def test_an_accepted_job_is_there_after_a_restart(store: JobStore, tmp_path: Path) -> None:
    job = accepted(store)
    again, ended = reopened(store, tmp_path / "jobs")
    assert again.get(job.id) == job
    assert again.upload(job.id).read_bytes() == b"sound"
    assert not ended
    assert (job.state, job.bytes, job.hotwords, job.formats) == ("queued", 5, "阿里巴巴", ("srt",))
    again.close()


def test_an_upload_is_on_the_disk_before_its_job_is(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr("app.service.job_store.sync", lambda path: order.append(f"sync {path.name}"))
    insert = store._insert

    def note_and_insert(*values: Any) -> None:
        order.append("row")
        insert(*values)

    monkeypatch.setattr(store, "_insert", note_and_insert)
    draft = new(store)
    store.accept([draft])
    assert order == [f"sync {draft.upload.name}", "sync uploads", "row"]
    assert store._database.connection.execute("PRAGMA synchronous").fetchone()[0] == 2
    assert store._database.connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_a_request_of_several_files_is_taken_in_whole_or_not_at_all(store: JobStore) -> None:
    first, second = new(store), new(store)
    second.upload.unlink()
    with pytest.raises(JobsUnavailable):
        store.accept([first, second])
    assert store.newest("", 10) == []
    assert not [*store._uploads.iterdir(), *store._incoming.iterdir()]
    jobs, _ = store.accept([new(store), new(store)])
    assert len({job.batch for job in jobs}) == 1
    assert len({job.id for job in jobs}) == 2


def test_what_was_cut_off_is_removed_at_start(store: JobStore, tmp_path: Path) -> None:
    job = accepted(store)
    (store.incoming / "half").write_bytes(b"half")
    (store._uploads / "job_unknown").write_bytes(b"stray")
    again, _ = reopened(store, tmp_path / "jobs")
    assert [path.name for path in again._uploads.iterdir()] == [job.id]
    assert not list(again._incoming.iterdir())
    again.close()


def test_an_idempotency_key_gives_the_jobs_of_the_first_time(store: JobStore) -> None:
    (job,), _ = store.accept([new(store)], key="k", fingerprint="f")
    jobs, is_new = store.accept([new(store)], key="k", fingerprint="f")
    assert (list(jobs), is_new) == ([job], False)
    assert not list(store._incoming.iterdir())
    with pytest.raises(KeyReusedError):
        store.accept([new(store)], key="k", fingerprint="other")
    assert store.accept([new(store, owner="somebody else")], key="k", fingerprint="other")[1]
    store.delete(job.id)
    with pytest.raises(KeyReusedError):
        store.known("", "k", "f")


def test_segments_come_back_as_they_were(store: JobStore, tmp_path: Path) -> None:
    job = accepted(store)
    store.claim()
    first, second = segment(0, "今天"), segment(1, "开会")
    store.add_segments(job.id, [second], 8.0)
    store.add_segments(job.id, [first], None)
    again, _ = reopened(store, tmp_path / "jobs")
    kept = again.segments(job.id)
    assert [part.index for part in kept] == [0, 1]
    assert kept[1].start_seconds == second.start_seconds
    assert kept[1].ids.dtype == np.int32
    assert kept[1].starts.dtype == np.float32
    np.testing.assert_array_equal(kept[1].ids, second.ids)
    np.testing.assert_array_equal(kept[1].ends, second.ends)
    row = again.get(job.id)
    assert row is not None
    assert (row.done_seconds, row.total_seconds) == (4.0, 8.0)
    again.close()


def test_a_job_ends_once(store: JobStore) -> None:
    job = accepted(store)
    assert not store.end(job.id, done())  # it is not running
    store.claim()
    store.add_segments(job.id, [segment(0, "今天")], None)
    assert store.end(job.id, done())
    assert not store.end(job.id, Ending("failed"))
    assert not store.end(job.id, Ending("cancelled"), of="queued")
    store.add_segments(job.id, [segment(1, "太晚")], None)
    store.release(job.id)
    ended = store.get(job.id)
    assert ended is not None
    assert ended.state == "done"
    assert not store.segments(job.id)
    assert not store.upload(job.id).exists()
    result = store.result(job.id)
    assert result is not None
    assert transcript_of(result)[0].text == "今天"


def test_clients_take_turns(store: JobStore) -> None:
    busy = [accepted(store, "busy").id for _ in range(3)]
    other = accepted(store, "other").id
    order = []
    for _ in range(4):
        job = store.claim()
        assert job is not None
        order.append(job.id)
    assert order == [busy[0], other, busy[1], busy[2]]
    assert store.claim() is None


def test_a_client_served_longest_ago_comes_first(store: JobStore) -> None:
    for client in ("a", "a", "b"):
        accepted(store, client)
    for expected in ("a", "b", "a"):
        job = store.claim()
        assert job is not None
        assert job.client == expected
        store.end(job.id, done())


def test_a_job_that_was_running_whenever_the_process_died_fails_in_the_end(
    store: JobStore, tmp_path: Path
) -> None:
    job = accepted(store)
    accepted(store)
    for attempt in range(3):
        claimed = store.claim()
        assert claimed is not None
        assert claimed.id == job.id
        store.begin(job.id)
        assert (store.claim() is None) == (attempt > 0)  # one under suspicion runs alone
        store, ended = reopened(store, tmp_path / "jobs")
        assert [one.id for one in ended] == ([job.id] if attempt == 2 else [])
        if attempt == 0:  # both were running; the older one is tried first
            innocent = next(one for one in store.newest("", 9) if one.id != job.id)
    assert ended[0].state == "failed"
    assert "died again and again" in str(ended[0].problem)
    claimed = store.claim()
    assert claimed is not None
    assert claimed.id == innocent.id
    store.close()


def test_progress_and_an_orderly_end_clear_a_job_of_suspicion(store: JobStore, tmp_path: Path) -> None:
    job = accepted(store)
    for place in range(5):
        store.claim()
        store.begin(job.id)
        store.add_segments(job.id, [segment(place, "今")], None)
        store, ended = reopened(store, tmp_path / "jobs")
        assert not ended
    for _ in range(5):
        store.claim()
        store.begin(job.id)
        store.release(job.id)
    for _ in range(5):  # died before anything was done with it
        store.claim()
        store, ended = reopened(store, tmp_path / "jobs")
        assert not ended
    again = store.get(job.id)
    assert again is not None
    assert (again.state, again.suspicion) == ("queued", 0)
    store.close()


def test_work_that_is_begun_again_in_one_life_is_one_death(store: JobStore, tmp_path: Path) -> None:
    """It may wait for memory, or for the disk, and begin anew however often."""
    job = accepted(store)
    store.claim()
    for _ in range(9):
        store.begin(job.id)
    store, ended = reopened(store, tmp_path / "jobs")
    again = store.get(job.id)
    assert not ended
    assert again is not None
    assert (again.state, again.suspicion, again.stake) == ("queued", DEATH, 0)
    store.close()


def test_a_sign_of_life_is_not_taken_back(store: JobStore) -> None:
    job = accepted(store)
    store.claim()
    store.begin(job.id)
    store.add_segments(job.id, [segment(0, "今")], None)
    store.lives(job.id)
    assert [one.stake for one in store.newest("", 9)] == [0]


def test_deaths_weigh_less_once_a_job_has_passed_what_was_kept(store: JobStore, tmp_path: Path) -> None:
    job = accepted(store)
    deaths = 0
    ended: list[Job] = []
    while not ended:
        store.claim()
        store.begin(job.id)
        store.lives(job.id)
        store, ended = reopened(store, tmp_path / "jobs")
        deaths += 1
        assert deaths < 20
    assert deaths == 3 * DEATH
    store.close()


def test_cancelling_outlives_the_process(store: JobStore, tmp_path: Path) -> None:
    running, waiting = accepted(store), accepted(store)
    store.claim()
    assert not store.ask_to_cancel("job_unknown")
    assert not store.ask_to_cancel(running.id)
    assert store.ask_to_cancel(waiting.id)
    assert not store.ask_to_cancel(waiting.id)
    assert [job.state for job in store.newest("", 2)] == ["cancelled", "running"]
    again, ended = reopened(store, tmp_path / "jobs")
    assert [(job.id, job.state) for job in ended] == [(running.id, "cancelled")]
    again.close()


def test_old_jobs_and_large_ones_are_forgotten(tmp_path: Path) -> None:
    clock = FakeClock()
    store = JobStore(tmp_path / "jobs", clock=clock)
    jobs = [accepted(store, data=b"x" * 1000) for _ in range(4)]
    for number in range(3):
        store.claim()
        store.end(jobs[number].id, done())
        clock.goes(1)
    clock.goes(7.5)
    assert store.sweep(keep_seconds=10, keep_bytes=1 << 30) == 1
    held = store.totals()
    assert held.jobs == {"done": 2, "queued": 1}
    assert held.bytes > 1000
    assert store.sweep(keep_seconds=100, keep_bytes=held.bytes - 1) == 1
    assert store.get(jobs[1].id) is None
    assert store.sweep(keep_seconds=100, keep_bytes=0) == 1
    assert store.totals().jobs == {"queued": 1}  # what has not ended is never forgotten
    assert store._database.connection.execute("SELECT count(*) FROM results").fetchone()[0] == 0
    store.close()


def test_a_running_job_is_not_deleted(store: JobStore) -> None:
    job = accepted(store)
    store.claim()
    assert not store.delete(job.id)
    store.release(job.id)
    assert store.delete(job.id)
    assert not store.delete(job.id)
    assert not store.upload(job.id).exists()


def test_the_list_is_of_one_owner_newest_first_in_pages(store: JobStore) -> None:
    mine = [accepted(store, owner="me").id for _ in range(3)]
    accepted(store, owner="you")
    assert [job.id for job in store.newest("me", 2)] == [mine[2], mine[1]]
    assert [job.id for job in store.newest("me", 2, after=mine[1])] == [mine[0]]
    assert store.newest("me", 5, state="done") == []
    assert [store.ahead(job) for job in store.newest("me", 1)] == [(2, 0.0)]


def test_a_deleted_transcript_is_gone_from_the_disk(store: JobStore, tmp_path: Path) -> None:
    job = accepted(store, owner="a name that is found again")
    store.claim()
    store.end(job.id, done())
    assert store.delete(job.id)
    store.close()
    files = [path.read_bytes() for path in (tmp_path / "jobs").glob("jobs.sqlite3*")]
    assert files
    assert not any(b"a name that is found again" in data for data in files)


def test_one_process_at_a_time(store: JobStore, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="another process"):
        JobStore(tmp_path / "jobs")


def test_a_directory_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError):
        JobStore(tmp_path / "file" / "jobs")


def test_jobs_of_a_newer_program_are_left_alone(store: JobStore, tmp_path: Path) -> None:
    store._database.connection.execute("PRAGMA user_version = 99")
    store.close()
    with pytest.raises(InputError, match="newer"):
        JobStore(tmp_path / "jobs")


def test_a_change_that_fails_leaves_nothing_behind(store: JobStore) -> None:
    job = accepted(store)
    store.claim()
    bad = segment(1, "今天")
    bad = replace(bad, ends=bad.ends[:1])
    with pytest.raises(ValueError, match="as many"):
        store.add_segments(job.id, [segment(0, "今"), bad], None)
    assert store.segments(job.id) == []
    with pytest.raises(sqlite3.IntegrityError):
        _spoil(store)
    assert store.get(job.id) is not None


def _spoil(store: JobStore) -> None:
    with store._database.transaction() as database:
        database.execute("DELETE FROM jobs")
        database.execute("INSERT INTO results VALUES (12345, '', '')")


def test_results_are_packed_without_loss() -> None:
    transcript = Transcript()
    for number in range(3000):
        said = spoken(number * 2.0, "今", "new", "york", chr(0x4E00 + number))
        transcript.add(marked(said, {2: ",", 3: "。"}) if number % 2 else said)
    details = ResultDetails(
        duration=6000.0,
        model="m",
        precision="int8",
        hotwords_used=("开会",),
        hotwords_unusable=(UnusableWord("𠮷", "no"),),
    )
    result = result_of(transcript, details)
    again, told = transcript_of(result)
    assert list(again.utterances) == list(transcript.utterances)
    assert told == details
    assert len(result.transcript) < 100_000

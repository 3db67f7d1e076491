"""Running jobs: each ends once, in turn and so many at a time, through errors, cancellation and going down."""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from app.asr.errors import AudioError, MemoryShortageError, ResourceError
from app.service import job_runner
from app.service.errors import Overloaded, ShuttingDown
from app.service.job_database import DEATH, DEATH_AT_WORK
from app.service.job_records import Ending, Job, NewJob, transcript_of
from app.service.job_runner import JobRules, JobRunner
from app.service.job_store import JobStore
from tests.fakes.recogniser import FakeRecogniser, Step, segment, spoken

FOREVER = 3600.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    store = JobStore(tmp_path / "jobs")
    yield store
    store.close()


def accept(store: JobStore, data: str = "sound", client: str = "a", seconds: float | None = None) -> str:
    upload = store.incoming / secrets.token_hex(8)
    upload.write_text(data)
    new = NewJob(upload, name="talk.wav", owner="", client=client, hotwords="开会", total_seconds=seconds)
    jobs, _ = store.accept([new])
    return jobs[0].id


def state(store: JobStore, job: str) -> Job:
    found = store.get(job)
    assert found is not None
    return found


async def until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < limit, "it did not come about"
        await asyncio.sleep(0.005)


def play(
    store: JobStore,
    recogniser: FakeRecogniser,
    act: Callable[[JobRunner], Awaitable[None]],
    rules: JobRules | None = None,
    grace: float = 0.0,
) -> list[str]:
    """Runs a runner while `act` acts; the ids of the jobs that ended, as it told."""
    ended: list[str] = []

    async def scene() -> None:
        runner = JobRunner(store, recogniser, rules, on_end=lambda job: ended.append(job.id))
        await runner.start()
        try:
            await act(runner)
        finally:
            await runner.close(grace)

    asyncio.run(scene())
    return ended


def all_ended(store: JobStore, *jobs: str) -> Callable[[JobRunner], Awaitable[None]]:
    async def wait(runner: JobRunner) -> None:
        await until(lambda: all(state(store, job).is_ended for job in jobs))

    return wait


def test_a_job_is_recognised_and_its_result_kept(store: JobStore) -> None:
    job = accept(store)
    recogniser = FakeRecogniser([segment(0, "今天"), segment(1, "开会")])
    assert play(store, recogniser, all_ended(store, job)) == [job]
    ((request, data),) = recogniser.requests
    assert (data, request.hotwords, request.client, request.request_id) == (b"sound", "开会", "a", job)
    done = state(store, job)
    assert (done.state, done.done_seconds, done.total_seconds) == ("done", 4.0, 4.0)
    result = store.result(job)
    assert result is not None
    transcript, details = transcript_of(result)
    assert transcript.text == "今天开会"
    assert (details.model, details.file, details.duration, details.rtf) == ("fake", "talk.wav", 4.0, 0.1)


def test_the_fault_of_a_file_is_told_in_the_callers_words(store: JobStore) -> None:
    job = accept(store)

    def script(request: object) -> list[Step]:
        path = store.upload(job)
        return [segment(0, "今天"), AudioError(f"'{path}' is damaged", fix="Export it again.")]

    play(store, FakeRecogniser(script), all_ended(store, job))
    failed = state(store, job)
    assert (failed.state, failed.problem, failed.fix) == (
        "failed",
        "'talk.wav' is damaged",
        "Export it again.",
    )
    assert failed.code == "invalid_file"
    assert store.result(job) is None
    assert not store.upload(job).exists()


def test_a_fault_of_ours_ends_the_job_too(store: JobStore, caplog: pytest.LogCaptureFixture) -> None:
    jobs = [accept(store, name) for name in ("bad", "good")]

    def script(request: object) -> list[Step]:
        bad = store.upload(jobs[0]) == getattr(request, "source", None)
        return [RuntimeError("secret")] if bad else [segment(0, "今天")]

    play(store, FakeRecogniser(script), all_ended(store, *jobs))
    assert [state(store, job).state for job in jobs] == ["failed", "done"]
    assert state(store, jobs[0]).code == "internal_error"
    assert "secret" not in str(state(store, jobs[0]).problem)
    assert "secret" in caplog.text


def test_no_more_at_once_than_allowed_and_clients_in_turn(store: JobStore) -> None:
    jobs = [accept(store, client="busy") for _ in range(5)] + [accept(store, client="other")]
    recogniser = FakeRecogniser([0.02, segment(0, "今")])
    play(store, recogniser, all_ended(store, *jobs), JobRules(at_once=2))
    assert recogniser.most_running == 2
    assert {request.client for request, _ in recogniser.requests[:2]} == {"busy", "other"}


def test_a_recording_that_is_too_long_fails(store: JobStore) -> None:
    job = accept(store)
    recogniser = FakeRecogniser([spoken(5.0, "今"), spoken(20.0, "天")])
    play(store, recogniser, all_ended(store, job), JobRules(longest_seconds=10))
    assert state(store, job).code == "audio_too_long"


def test_too_much_to_do_is_waited_out(store: JobStore) -> None:
    job = accept(store)
    refusals = iter([[Overloaded(0.01)], [Overloaded(0.01)], [segment(0, "今天")]])
    recogniser = FakeRecogniser(lambda request: next(refusals))  # type: ignore[arg-type]
    play(store, recogniser, all_ended(store, job))
    assert state(store, job).state == "done"


def test_a_job_waits_for_memory_and_keeps_what_it_has(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_runner, "_RETRY_SECONDS", 0.01)
    job = accept(store)
    short = MemoryShortageError("no room", fix="stop others")
    turns: Iterator[list[Step]] = iter(
        [[segment(0, "今天"), short], [short], [segment(0, "今天"), segment(1, "开会")]]
    )
    recogniser = FakeRecogniser(lambda request: next(turns))
    play(store, recogniser, all_ended(store, job))
    assert state(store, job).state == "done"
    assert [len(request.resume) for request, _ in recogniser.requests] == [0, 1, 1]


def test_a_job_that_got_on_waits_as_long_as_one_that_began(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_runner, "_RETRY_SECONDS", 0.01)
    job = accept(store)
    short = MemoryShortageError("no room", fix="stop others")
    turns: Iterator[list[Step]] = iter([[0.3, segment(0, "今天"), short], [segment(0, "今天")]])
    recogniser = FakeRecogniser(lambda request: next(turns))
    play(store, recogniser, all_ended(store, job), JobRules(shortage_seconds=0.2))
    assert state(store, job).state == "done"


def test_a_job_that_never_finds_memory_fails_with_the_reason(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_runner, "_RETRY_SECONDS", 0.01)
    job = accept(store)
    recogniser = FakeRecogniser([MemoryShortageError("no room", fix="stop others")])
    play(store, recogniser, all_ended(store, job), JobRules(shortage_seconds=0.1))
    failed = state(store, job)
    assert (failed.state, failed.code, failed.problem) == ("failed", "insufficient_resources", "no room")
    assert len(recogniser.requests) > 2


def test_a_waiting_job_is_cancelled_at_once_and_a_running_one_with_its_work(store: JobStore) -> None:
    running, waiting = accept(store), accept(store)
    recogniser = FakeRecogniser([segment(0, "今天"), FOREVER])

    async def act(runner: JobRunner) -> None:
        await until(lambda: state(store, running).done_seconds > 0)
        for job in (waiting, running, running):
            now = await runner.cancel(job)
            assert now is not None
            assert now.state == "cancelled"
        assert await runner.cancel("job_unknown") is None

    ended = play(store, recogniser, act, JobRules(at_once=1))
    assert sorted(ended) == sorted([running, waiting])
    assert (recogniser.cancelled, recogniser.running) == (1, 0)
    assert not store.segments(running)


def test_a_job_cancelled_while_it_is_taken_is_not_run(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = accept(store)
    claim = store.claim

    def claim_and_cancel() -> Job | None:
        claimed = claim()
        store.ask_to_cancel(job)
        return claimed

    monkeypatch.setattr(store, "claim", claim_and_cancel)
    recogniser = FakeRecogniser()
    play(store, recogniser, all_ended(store, job))
    assert state(store, job).state == "cancelled"
    assert not recogniser.requests


def test_going_down_puts_jobs_back_with_what_they_have(store: JobStore) -> None:
    job = accept(store)

    async def act(runner: JobRunner) -> None:
        await until(lambda: bool(recogniser.requests))

    for _ in range(5):  # however often: nobody is to blame
        recogniser = FakeRecogniser([segment(0, "今天"), FOREVER])
        assert play(store, recogniser, act) == []
        assert (state(store, job).state, state(store, job).suspicion) == ("queued", 0)
    assert [part.index for part in store.segments(job)] == [0]
    recogniser = FakeRecogniser([segment(0, "别的"), segment(1, "开会")])
    play(store, recogniser, all_ended(store, job))
    result = store.result(job)
    assert result is not None
    assert transcript_of(result)[0].text == "今天开会"  # the first segment is the stored one


def test_suspicion_comes_with_work_and_goes_with_what_it_brings(store: JobStore) -> None:
    job = accept(store)
    seen: list[int] = []

    def look() -> None:
        seen.append(state(store, job).stake)

    script: list[Step] = [look, segment(0, "今天"), 0.05, look, FOREVER]

    async def act(runner: JobRunner) -> None:
        await until(lambda: len(seen) == 2)

    play(store, FakeRecogniser(script), act)
    assert seen == [DEATH, 0]
    seen.clear()
    play(store, FakeRecogniser([look, segment(0, "今天"), look, FOREVER]), act)  # it has that segment
    assert seen == [DEATH, DEATH_AT_WORK]
    assert state(store, job).suspicion == 0


def test_short_work_ends_within_the_grace_period(store: JobStore) -> None:
    job = accept(store, seconds=2.0)
    recogniser = FakeRecogniser([0.1, segment(0, "今天")])

    async def act(runner: JobRunner) -> None:
        await until(lambda: bool(recogniser.requests))

    assert play(store, recogniser, act, grace=5.0) == [job]


def test_long_work_is_put_back_at_once(store: JobStore) -> None:
    """Waiting for it would only use up the grace period."""
    job = accept(store, seconds=3600.0)
    recogniser = FakeRecogniser([FOREVER])

    async def act(runner: JobRunner) -> None:
        await until(lambda: bool(recogniser.requests))

    begun = time.monotonic()
    assert play(store, recogniser, act, grace=30.0) == []
    assert time.monotonic() - begun < 20.0, "it waited for work that could not end"
    assert state(store, job).state == "queued"


def test_a_recogniser_that_shuts_down_is_nobodys_fault(store: JobStore) -> None:
    job = accept(store)
    recogniser = FakeRecogniser([ShuttingDown()])

    async def act(runner: JobRunner) -> None:
        await until(lambda: bool(recogniser.requests))
        await asyncio.sleep(0.05)

    assert play(store, recogniser, act) == []
    assert len(recogniser.requests) == 1  # it is not asked again and again
    assert (state(store, job).state, state(store, job).suspicion) == ("queued", 0)


def test_jobs_wait_for_an_engine_that_does_not_run(store: JobStore) -> None:
    job = accept(store)
    recogniser = FakeRecogniser()
    recogniser.becomes(state="failed")

    async def act(runner: JobRunner) -> None:
        await asyncio.sleep(0.05)
        assert state(store, job).state == "queued"
        recogniser.becomes(state="ready")
        runner.wake()
        await until(lambda: state(store, job).is_ended)

    play(store, recogniser, act)
    assert state(store, job).state == "done"


def test_an_engine_that_fails_under_a_job_gives_it_back(store: JobStore) -> None:
    job = accept(store)
    recogniser = FakeRecogniser()
    recogniser.script = [
        lambda: recogniser.becomes(state="failed"),
        ResourceError("the worker cannot be started", fix="Give it memory."),
    ]

    async def act(runner: JobRunner) -> None:
        await until(lambda: bool(recogniser.requests) and state(store, job).state == "queued")
        recogniser.script = [segment(0, "今天")]
        recogniser.becomes(state="ready")
        runner.wake()
        await until(lambda: state(store, job).is_ended)

    play(store, recogniser, act)
    assert state(store, job).state == "done"


def test_the_end_of_a_job_is_written_again_when_the_disk_refuses(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = accept(store)
    end, tries = store.end, []

    def full_twice(job_id: str, ending: Ending, of: str = "running") -> bool:
        tries.append(ending.state)
        if len(tries) < 3:
            raise sqlite3.OperationalError("disk full")
        return end(job_id, ending, of)

    monkeypatch.setattr(store, "end", full_twice)
    monkeypatch.setattr("app.service.job_runner._RETRY_SECONDS", 0.01)
    play(store, FakeRecogniser(), all_ended(store, job))
    assert tries == ["done"] * 3


def test_a_full_disk_is_not_the_jobs_fault(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_runner, "_RETRY_SECONDS", 0.01)
    job, begin, refusals = accept(store), store.begin, [1, 1]

    def refuse(job_id: str) -> None:
        if refusals:
            refusals.pop()
            raise sqlite3.OperationalError("database or disk is full")
        begin(job_id)

    monkeypatch.setattr(store, "begin", refuse)
    play(store, FakeRecogniser([segment(0, "今天")]), all_ended(store, job))
    assert (state(store, job).state, refusals) == ("done", [])


def test_segments_that_cannot_be_kept_do_not_stop_a_job(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: object) -> None:
        raise sqlite3.OperationalError("disk full")

    monkeypatch.setattr(store, "add_segments", full)
    job = accept(store)
    play(store, FakeRecogniser([segment(0, "今天"), 0.01, segment(1, "开会")]), all_ended(store, job))
    assert state(store, job).state == "done"


def test_progress_and_what_is_left_of_the_work(store: JobStore) -> None:
    job = accept(store)
    recogniser = FakeRecogniser([0.05, segment(0, "今天"), segment(1, "开会"), FOREVER, segment(2, "今天")])

    async def act(runner: JobRunner) -> None:
        assert runner.progress(state(store, job)) == (0.0, None, None)
        await until(lambda: runner.progress(state(store, job))[0] == 4.0)
        done, total, left = runner.progress(state(store, job))
        assert (done, total) == (4.0, 6.0)
        assert left is not None
        assert left > 0.02  # half of the time that it has taken

    play(store, recogniser, act)
    assert state(store, job).total_seconds == 6.0


def test_what_is_old_is_forgotten_while_it_runs(store: JobStore) -> None:
    job = accept(store)

    async def act(runner: JobRunner) -> None:
        await until(lambda: store.get(job) is None)

    play(store, FakeRecogniser(), act, JobRules(keep_seconds=0.05, sweep_seconds=0.02))

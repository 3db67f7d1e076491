"""/v1/jobs in memory: sending, looking, taking results, cancelling, deleting, and everything that is refused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.asr.errors import AudioError
from app.service import main
from app.service.job_runner import JobRules
from app.service.jobs import Jobs
from tests.fakes.recogniser import FakeRecogniser, segment
from tests.support.service import app_in, client_of, uploads_of, wav

FOREVER = 3600.0
Scene = Callable[[httpx.AsyncClient], Awaitable[None]]


@pytest.fixture
def recogniser() -> FakeRecogniser:
    return FakeRecogniser([segment(0, "今天"), segment(1, "开会")])


def play(app: FastAPI, scene: Scene) -> None:
    async def whole() -> None:
        async with client_of(app) as client:
            await scene(client)

    asyncio.run(asyncio.wait_for(whole(), 20))


async def send(
    client: httpx.AsyncClient, *names: str, content: bytes | None = None, **more: Any
) -> httpx.Response:
    files = [("file", (name, wav() if content is None else content)) for name in names or ("talk.wav",)]
    return await client.post("/v1/jobs", files=files, **more)


async def ended(client: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
    limit = time.monotonic() + 10
    while time.monotonic() < limit:
        job: dict[str, Any] = (await client.get(f"/v1/jobs/{job_id}")).json()
        if job["ended_at"] is not None:
            return job
        await asyncio.sleep(0.01)
    raise AssertionError("the job did not end")


async def running(client: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
    limit = time.monotonic() + 10
    while time.monotonic() < limit:
        job: dict[str, Any] = (await client.get(f"/v1/jobs/{job_id}")).json()
        if job["progress"]["seconds_done"] > 0:
            return job
        await asyncio.sleep(0.01)
    raise AssertionError("the job did not begin")


def code_of(response: httpx.Response) -> tuple[int, str]:
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return response.status_code, error["code"]


def test_a_job_from_sending_to_forgetting(tmp_path: Path, recogniser: FakeRecogniser) -> None:
    app = app_in(tmp_path, recogniser)

    async def scene(client: httpx.AsyncClient) -> None:
        response = await send(client, data={"hotwords": "阿里巴巴", "formats": "text, srt"})
        assert response.status_code == 202
        job = response.json()
        assert response.headers["location"] == f"/v1/jobs/{job['id']}"
        assert (job["object"], job["file"]) == ("job", {"name": "talk.wav", "bytes": len(wav())})
        assert job["progress"]["seconds_total"] == 0.5
        done = await ended(client, job["id"])
        assert (done["state"], done["progress"]["fraction"], done["error"]) == ("done", 1.0, None)
        assert list(done["results"]) == ["text", "srt"]
        assert (await client.get(done["results"]["text"])).text == "今天\n开会\n"
        assert (await client.delete(f"/v1/jobs/{job['id']}")).json() == {
            "id": job["id"],
            "object": "job",
            "deleted": True,
        }
        assert code_of(await client.get(f"/v1/jobs/{job['id']}")) == (404, "job_not_found")

    play(app, scene)
    assert recogniser.requests[0][0].hotwords == "阿里巴巴"
    assert not uploads_of(app)


@pytest.mark.parametrize(
    ("form", "kind", "part"),
    [
        ("text", "text/plain; charset=utf-8", "今天\n开会\n"),
        ("json", "application/json", '"text": "今天开会"'),
        ("srt", "application/x-subrip; charset=utf-8", "1\n00:00:00,000 --> "),
        ("vtt", "text/vtt; charset=utf-8", "WEBVTT\n\n00:00:00.000 --> "),
        ("tsv", "text/tab-separated-values; charset=utf-8", "start\tend\ttext\n0\t2000\t今天\n"),
    ],
)
def test_results_in_every_format(
    tmp_path: Path, recogniser: FakeRecogniser, form: str, kind: str, part: str
) -> None:
    async def scene(client: httpx.AsyncClient) -> None:
        job = (await send(client, "会议 “一”.wav")).json()
        await ended(client, job["id"])
        result = await client.get(f"/v1/jobs/{job['id']}/result", params={"format": form})
        assert result.status_code == 200
        assert result.headers["content-type"] == kind
        assert part in result.text
        assert "filename*=UTF-8''%E4%BC%9A" in result.headers["content-disposition"]

    play(app_in(tmp_path, recogniser), scene)


def test_several_files_are_jobs_of_one_batch(tmp_path: Path, recogniser: FakeRecogniser) -> None:
    async def scene(client: httpx.AsyncClient) -> None:
        listed = (await send(client, "a.wav", "b.wav", "c.wav")).json()
        assert listed["object"] == "list"
        jobs = listed["data"]
        assert [job["file"]["name"] for job in jobs] == ["a.wav", "b.wav", "c.wav"]
        assert len({job["batch"] for job in jobs}) == 1
        for job in jobs:
            assert (await ended(client, job["id"]))["state"] == "done"
        page = (await client.get("/v1/jobs", params={"limit": 2, "state": "done"})).json()
        assert [job["file"]["name"] for job in page["data"]] == ["c.wav", "b.wav"]
        assert page["has_more"]
        rest = (await client.get("/v1/jobs", params={"after": page["data"][-1]["id"]})).json()
        assert [job["file"]["name"] for job in rest["data"]] == ["a.wav"]
        assert not rest["has_more"]

    play(app_in(tmp_path, recogniser), scene)


def test_an_idempotency_key_makes_sending_twice_harmless(tmp_path: Path, recogniser: FakeRecogniser) -> None:
    app = app_in(tmp_path, recogniser)

    async def scene(client: httpx.AsyncClient) -> None:
        key = {"Idempotency-Key": "k1"}
        first = await send(client, headers=key)
        again = await send(client, headers=key)
        assert (first.status_code, again.status_code) == (202, 200)
        assert first.json()["id"] == again.json()["id"]
        for changed in ({"data": {"hotwords": "开会"}}, {"content": wav(1.0)}):
            assert code_of(await send(client, headers=key, **changed)) == (409, "idempotency_key_reused")
        assert (await send(client, headers={"Idempotency-Key": "k2"})).status_code == 202
        assert code_of(await send(client, headers={"Idempotency-Key": "k" * 256}))[0] == 400
        same = await asyncio.gather(*(send(client, headers={"Idempotency-Key": "k3"}) for _ in range(5)))
        assert len({response.json()["id"] for response in same}) == 1
        assert sorted(response.status_code for response in same) == [200, 200, 200, 200, 202]
        assert len((await client.get("/v1/jobs")).json()["data"]) == 3
        assert not list((tmp_path / "data" / "jobs" / "incoming").iterdir())

    play(app, scene)


def test_progress_cancel_and_what_a_job_that_is_not_done_answers(tmp_path: Path) -> None:
    recogniser = FakeRecogniser([0.02, segment(0, "今天"), FOREVER, segment(1, "开会")])
    app = app_in(tmp_path, recogniser)

    async def scene(client: httpx.AsyncClient) -> None:
        job = (await send(client)).json()
        progress = (await running(client, job["id"]))["progress"]
        assert (progress["seconds_done"], progress["seconds_total"], progress["fraction"]) == (2.0, 4.0, 0.5)
        assert progress["eta_seconds"] > 0
        assert code_of(await client.get(f"/v1/jobs/{job['id']}/result")) == (409, "job_not_done")
        for _ in range(2):
            assert (await client.post(f"/v1/jobs/{job['id']}/cancel")).json()["state"] == "cancelled"
        assert code_of(await client.get(f"/v1/jobs/{job['id']}/result")) == (409, "job_cancelled")
        other = (await send(client)).json()
        await running(client, other["id"])
        assert (await client.delete(f"/v1/jobs/{other['id']}")).status_code == 200
        assert [one["id"] for one in (await client.get("/v1/jobs")).json()["data"]] == [job["id"]]

    play(app, scene)
    assert (recogniser.cancelled, recogniser.running) == (2, 0)


def test_waiting_jobs_know_their_place_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "Jobs", partial(Jobs, rules=JobRules(at_once=1)))

    async def scene(client: httpx.AsyncClient) -> None:
        jobs = [(await send(client, content=wav(seconds))).json() for seconds in (10, 20, 30)]
        await asyncio.sleep(0.05)
        waiting = [(await client.get(f"/v1/jobs/{job['id']}")).json() for job in jobs[1:]]
        assert [job["queue_position"] for job in waiting] == [0, 1]
        # The fake engine needs a tenth of a second for a second of audio.
        assert [job["progress"]["eta_seconds"] for job in waiting] == [3.0, 6.0]

    play(app_in(tmp_path, FakeRecogniser([FOREVER])), scene)


def test_a_failed_job_says_why(tmp_path: Path) -> None:
    recogniser = FakeRecogniser([AudioError("the file is damaged", fix="Export it again.")])

    async def scene(client: httpx.AsyncClient) -> None:
        job = await ended(client, (await send(client)).json()["id"])
        assert job["state"] == "failed"
        assert job["error"]["code"] == "invalid_file"
        assert "Export it again" in job["error"]["message"]
        refused = await client.get(f"/v1/jobs/{job['id']}/result")
        assert code_of(refused) == (409, "job_failed")
        assert "damaged" in refused.json()["error"]["message"]

    play(app_in(tmp_path, recogniser), scene)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"content": b""}, (400, "invalid_file")),
        ({"content": b"this is not sound at all"}, (400, "invalid_file")),
        ({"content": wav(3.0)}, (413, "audio_too_long")),
        ({"content": bytes(200_000)}, (413, "file_too_large")),
        ({"data": {"formats": "docx"}}, (400, "unknown_format")),
        ({"data": {"hotwords": "开" * 2000}}, (400, "string_above_max_length")),
    ],
)
def test_what_is_refused_leaves_nothing(
    tmp_path: Path, request_: dict[str, Any], expected: tuple[int, str]
) -> None:
    app = app_in(tmp_path, max_audio_seconds=2, max_upload_bytes=150_000, max_hotword_bytes=3000)

    async def scene(client: httpx.AsyncClient) -> None:
        response = await send(client, "../../etc/passwd", **request_)
        assert code_of(response) == expected
        assert str(tmp_path) not in response.text
        assert (await client.get("/v1/jobs")).json()["data"] == []
        assert not list((tmp_path / "data" / "jobs" / "incoming").iterdir())

    play(app, scene)


def test_wrong_forms_and_questions_are_told(tmp_path: Path, recogniser: FakeRecogniser) -> None:
    async def scene(client: httpx.AsyncClient) -> None:
        assert code_of(await client.post("/v1/jobs", data={"hotwords": "x"}))[0] == 415
        no_file = await client.post("/v1/jobs", files={"other": ("a.wav", wav())})
        assert code_of(no_file) == (400, "no_file")
        assert (await send(client, *["a.wav"] * 21)).status_code == 400
        job = (await send(client)).json()
        await ended(client, job["id"])
        assert code_of(await client.get(f"/v1/jobs/{job['id']}/result?format=doc")) == (400, "unknown_format")
        assert (await client.get("/v1/jobs?state=lost")).status_code == 400
        assert (await client.get("/v1/jobs?limit=0")).status_code in (400, 422)
        for path in ("job_1", "%00", "x" * 3000, "%F0%9F%98%80", "..%2f..%2fetc"):
            assert (await client.get(f"/v1/jobs/{path}")).status_code == 404
            assert (await client.delete(f"/v1/jobs/{path}")).status_code == 404
            assert (await client.post(f"/v1/jobs/{path}/cancel")).status_code == 404

    play(app_in(tmp_path, recogniser), scene)


def test_a_key_sees_its_own_jobs_only(tmp_path: Path, recogniser: FakeRecogniser) -> None:
    async def scene(client: httpx.AsyncClient) -> None:
        mine, yours = ({"Authorization": f"Bearer {key}"} for key in ("my-own-key", "your-own-key"))
        job = (await send(client, headers=mine)).json()
        assert (await client.get("/v1/jobs", headers=mine)).json()["data"]
        assert (await client.get("/v1/jobs", headers=yours)).json()["data"] == []
        for method, path in (("GET", ""), ("GET", "/result"), ("POST", "/cancel"), ("DELETE", "")):
            response = await client.request(method, f"/v1/jobs/{job['id']}{path}", headers=yours)
            assert code_of(response) == (404, "job_not_found")

    play(app_in(tmp_path, recogniser, api_keys="my-own-key,your-own-key"), scene)


def test_a_full_disk_quota_is_told_with_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "Jobs", partial(Jobs, rules=JobRules(keep_bytes=len(wav()) + 10)))
    app = app_in(tmp_path, FakeRecogniser([FOREVER]))

    async def scene(client: httpx.AsyncClient) -> None:
        assert (await send(client)).status_code == 202
        refused = await send(client)
        assert code_of(refused) == (429, "rate_limit_exceeded")
        assert int(refused.headers["retry-after"]) >= 1

    play(app, scene)


def test_accepted_jobs_outlive_the_service(tmp_path: Path) -> None:
    ids: list[str] = []

    async def begin(client: httpx.AsyncClient) -> None:
        ids.append((await send(client)).json()["id"])
        await running(client, ids[0])

    async def end(client: httpx.AsyncClient) -> None:
        await ended(client, ids[0])
        assert (await client.get(f"/v1/jobs/{ids[0]}/result?format=text")).text == "今天\n开会\n"

    play(app_in(tmp_path, FakeRecogniser([segment(0, "今天"), FOREVER])), begin)
    play(app_in(tmp_path, FakeRecogniser([segment(0, "别的"), segment(1, "开会")])), end)


def test_without_a_store_nothing_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Jobs] = []

    def make(*given: Any, **named: Any) -> Jobs:
        made.append(Jobs(*given, **named))
        return made[-1]

    monkeypatch.setattr(main, "Jobs", make)
    app = app_in(tmp_path)

    async def scene(client: httpx.AsyncClient) -> None:
        await made[0].close()
        assert code_of(await send(client)) == (503, "shutting_down")
        assert code_of(await client.get("/v1/jobs")) == (503, "shutting_down")

    play(app, scene)


def test_jobs_are_counted(tmp_path: Path, recogniser: FakeRecogniser) -> None:
    async def scene(client: httpx.AsyncClient) -> None:
        await ended(client, (await send(client)).json()["id"])
        for _ in range(100):
            if "asr_audio_seconds_total 4.0" in (await client.get("/metrics")).text:
                return
            await asyncio.sleep(0.01)  # it is counted after it is on the disk
        raise AssertionError("the job was not counted")

    play(app_in(tmp_path, recogniser), scene)

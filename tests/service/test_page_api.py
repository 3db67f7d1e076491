"""The page's requests to our own API, in memory: what it sends counts for the browser, errors keep their words."""

from __future__ import annotations

import asyncio
import time
import zipfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from app.service.page.api import ApiClient, Caller
from app.service.page.zipping import chunks, unique_stem, zip_results
from tests.fakes.recogniser import FakeRecogniser, segment
from tests.support.service import app_in, client_of, wav

ME = Caller("", "192.0.2.7")
KEYS = "first-key-of-two,second-key-of-two"


def play(app: FastAPI, scene: Callable[[ApiClient, httpx.AsyncClient], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with client_of(app) as client:
            await scene(ApiClient(app, app.state.service.settings.root_path), client)

    asyncio.run(asyncio.wait_for(whole(), 20))


def recording(folder: Path, name: str = "会议.wav") -> Path:
    path = folder / name
    path.write_bytes(wav())
    return path


async def done(client: httpx.AsyncClient, job: str, **more: str) -> None:
    limit = time.monotonic() + 10
    while time.monotonic() < limit:
        if (await client.get(f"/v1/jobs/{job}", headers=more)).json()["state"] == "done":
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the job did not end")


@pytest.mark.parametrize("root_path", ["", "/speech"])
def test_a_file_becomes_a_job_of_the_browser_that_sent_it(tmp_path: Path, root_path: str) -> None:
    recogniser = FakeRecogniser([segment(0, "今天")])

    async def scene(api: ApiClient, client: httpx.AsyncClient) -> None:
        sent = await api.send(ME, recording(tmp_path), "张筱雨")
        assert (sent.name, sent.code) == ("会议.wav", "") and sent.job
        await done(client, sent.job)
        assert await api.name(ME, sent.job) == "会议.wav"
        assert await api.result(ME, sent.job, "text") == "今天\n".encode()
        await api.forget(ME, [sent.job, "job_unknown"])
        assert await api.name(ME, sent.job) is None
        assert await api.result(ME, sent.job, "text") is None

    play(app_in(tmp_path, recogniser, root_path=root_path), scene)
    ((request, _),) = recogniser.requests
    assert (request.client, request.hotwords) == ("192.0.2.7", "张筱雨")


def test_a_refusal_comes_in_the_words_of_the_api(tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp3"
    broken.write_bytes(b"no sound")

    async def scene(api: ApiClient, client: httpx.AsyncClient) -> None:
        refused = await api.send(ME, broken, "")
        assert (refused.job, refused.code) == ("", "invalid_file")
        assert "'broken.mp3' is not audio" in refused.message and "Give a recording" in refused.message
        too_many = await api.send(ME, recording(tmp_path), "词" * 1000)
        assert too_many.code == "string_above_max_length"

    play(app_in(tmp_path, max_hotword_bytes=100), scene)


def test_the_key_goes_along_and_jobs_of_other_keys_stay_unseen(tmp_path: Path) -> None:
    first, second = (Caller(f"Bearer {key}", "") for key in KEYS.split(","))

    async def scene(api: ApiClient, client: httpx.AsyncClient) -> None:
        assert (await api.send(ME, recording(tmp_path), "")).code == "invalid_api_key"
        sent = await api.send(first, recording(tmp_path), "")
        assert await api.name(first, sent.job) is not None
        assert await api.name(second, sent.job) is None
        assert await zip_results(api, second, [sent.job]) is None

    play(app_in(tmp_path, api_keys=KEYS), scene)


def test_an_archive_holds_every_format_of_every_job_that_is_done(tmp_path: Path) -> None:
    async def scene(api: ApiClient, client: httpx.AsyncClient) -> None:
        jobs = [(await api.send(ME, recording(tmp_path), "")).job for _ in range(2)]
        for job in jobs:
            await done(client, job)
        archive = await zip_results(api, ME, [*jobs, jobs[0], "job_unknown"])
        assert archive is not None
        whole = tmp_path / "all.zip"
        whole.write_bytes(b"".join(chunks(archive)))
        assert archive.closed
        with zipfile.ZipFile(whole) as opened:
            names = opened.namelist()
            assert opened.read("会议.txt") == "今天\n".encode()
        endings = (".txt", ".srt", ".vtt", ".json")
        assert names == [stem + ending for stem in ("会议", "会议 (2)") for ending in endings]
        assert await zip_results(api, ME, ["job_unknown"]) is None

    play(app_in(tmp_path, FakeRecogniser([segment(0, "今天")])), scene)


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("talk.wav", "talk"),
        ("../../etc/passwd", "passwd"),
        ("c:\\music\\a:b?.mp3", "a_b_"),
        ("", "transcript"),
        ("...", "transcript"),
        ("a\nb\x00.wav", "a_b_"),
        ("长" * 300 + ".wav", "长" * 80),
    ],
)
def test_names_in_an_archive_are_safe_everywhere(name: str, stem: str) -> None:
    assert unique_stem(name, set()) == stem


def test_names_in_an_archive_differ_even_where_case_does_not_count() -> None:
    assert unique_stem("Talk.wav", {"talk", "talk (2)"}) == "Talk (3)"

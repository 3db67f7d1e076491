"""Everything below /ui before Gradio: ways in, keys and cookies, closed addresses, headers, uploads without room.

A small application stands in for Gradio; that the real one fits is tested in test_page_blocks.py.
"""

from __future__ import annotations

import asyncio
import importlib.util
import re
import subprocess
import sys
import threading
import types
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.responses import HTMLResponse, PlainTextResponse

from app.asr.errors import ResourceError
from app.service.page.documents import language_of
from tests.fakes.recogniser import FakeRecogniser
from tests.support.service import app_in, client_of, get

KEY = "a-key-for-tests-only"
Scene = Callable[[httpx.AsyncClient], Awaitable[None]]
DOCUMENT = (
    '<!doctype html><html lang="en"><head><meta property="og:image" content="https://elsewhere.example/a.jpg" />'
    '<link rel="manifest" href="/manifest.json" /><script>window.gradio_config = {};</script></head>'
    "<body></body></html>"
)


@dataclass
class FakeGradio:
    """Addresses that were let through to it, and whether it may be loaded."""

    asked: list[str] = field(default_factory=list)
    may_load: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.may_load.set()


@pytest.fixture(autouse=True)
def gradio(monkeypatch: pytest.MonkeyPatch) -> FakeGradio:
    """A fake of blocks.py."""
    found = FakeGradio()

    def make_gradio_app(*_: object) -> FastAPI:
        found.may_load.wait(10)
        made = FastAPI()

        @made.api_route("/{path:path}", methods=["GET", "POST"])
        async def everything(path: str, request: Request) -> Any:
            found.asked.append(path)
            if path == "":
                assert "accept-encoding" not in request.headers
                return HTMLResponse(DOCUMENT)
            return PlainTextResponse(str(len(await request.body())))

        return made

    fake = types.ModuleType("app.service.page.blocks")
    fake.make_gradio_app = make_gradio_app  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "app.service.page.blocks", fake)
    return found


def play(app: FastAPI, scene: Scene, *, loaded: bool = True) -> None:
    async def whole() -> None:
        async with client_of(app) as client:
            limit = asyncio.get_running_loop().time() + 10
            while loaded and asyncio.get_running_loop().time() < limit:
                answer = await client.get("/ui/")
                if answer.status_code == 401 or "gradio_config" in answer.text:
                    break
                await asyncio.sleep(0.01)
            await scene(client)

    asyncio.run(asyncio.wait_for(whole(), 20))


def page_in(folder: Path, recogniser: FakeRecogniser | None = None, **given: Any) -> FastAPI:
    return app_in(folder, recogniser, page="on", **given)


@pytest.mark.parametrize("path", ["/", "/ui"])
def test_the_ways_to_the_page_work_below_any_path(tmp_path: Path, path: str) -> None:
    answer = get(page_in(tmp_path), path)
    assert (answer.status_code, answer.headers["location"]) == (307, "./ui/")


def test_without_the_page_there_is_nothing_of_it(tmp_path: Path) -> None:
    app = app_in(tmp_path, page="off")
    for path in ("/", "/ui", "/ui/", "/ui/own/main.js"):
        assert get(app, path).status_code == 404


def test_the_page_is_loaded_only_where_it_is_on() -> None:
    code = (
        "import sys, tempfile; from app.service.main import create_app; from app.service.settings import load_settings;"
        "from tests.fakes.recogniser import FakeRecogniser;"
        "create_app(load_settings({'page': sys.argv[1], 'data_dir': tempfile.mkdtemp()}), FakeRecogniser());"
        "print([n for n in ('gradio', 'app.service.page', 'httpx') if n in sys.modules])"
    )
    for page, loaded in (("off", "[]"), ("on", "['app.service.page', 'httpx']")):
        done = subprocess.run([sys.executable, "-c", code, page], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == loaded


def test_without_gradio_the_service_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ResourceError, match="gradio") as raised:
        page_in(tmp_path)
    assert "--page off" in raised.value.fix


def test_until_it_is_loaded_a_small_document_waits(tmp_path: Path, gradio: FakeGradio) -> None:
    gradio.may_load.clear()

    async def scene(client: httpx.AsyncClient) -> None:
        answer = await client.get("/ui/", headers={"Accept-Language": "zh-CN,zh;q=0.9"})
        assert answer.status_code == 200 and "页面正在加载" in answer.text and 'lang="zh-CN"' in answer.text
        assert 'http-equiv="refresh"' in answer.text
        assert (await client.get("/ui/config")).status_code == 404
        gradio.may_load.set()
        await _loaded(client, {})

    play(page_in(tmp_path), scene, loaded=False)


def test_the_engine_is_started_first_unless_somebody_looks(tmp_path: Path) -> None:
    recogniser = FakeRecogniser()
    recogniser.becomes(state="starting")

    async def scene(client: httpx.AsyncClient) -> None:
        await asyncio.sleep(0.3)
        assert not (tmp_path / "data" / "page").exists()
        await _loaded(client, {})

    play(page_in(tmp_path, recogniser), scene, loaded=False)


def test_the_document_loads_nothing_foreign_and_runs_only_marked_scripts(tmp_path: Path) -> None:
    async def scene(client: httpx.AsyncClient) -> None:
        first, second = [await client.get("/ui/") for _ in range(2)]
        assert "elsewhere.example" not in first.text and "manifest" not in first.text
        policy = first.headers["content-security-policy"]
        (nonce,) = re.findall(r"'nonce-([^']+)'", policy)
        assert nonce not in second.text
        assert re.findall(r"<script(?! nonce=)", first.text) == []
        assert first.text.count(f'<script nonce="{nonce}"') == first.text.count("<script")
        assert "'unsafe-inline'" not in policy.split("script-src")[1]
        assert "frame-ancestors 'none'" in policy and "http:" not in policy and "https:" not in policy
        assert first.headers["permissions-policy"].startswith("microphone=(self), camera=()")
        assert first.headers["x-content-type-options"] == "nosniff"

    play(page_in(tmp_path), scene)


@pytest.mark.parametrize(
    "path",
    [
        "gradio_api/proxy=http://127.0.0.1/",
        "gradio_api/info",
        "gradio_api/vibe-edit",
        "gradio_api/file/x",
        "docs",
    ],
)
def test_what_the_page_does_not_need_of_gradio_is_closed(
    tmp_path: Path, gradio: FakeGradio, path: str
) -> None:
    async def scene(client: httpx.AsyncClient) -> None:
        gradio.asked.clear()
        for method in ("GET", "POST"):
            answer = await client.request(method, f"/ui/{path}")
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_url")
        assert gradio.asked == []

    play(page_in(tmp_path), scene)


def test_own_files_are_served_and_nothing_else_beside_them(tmp_path: Path) -> None:
    async def scene(client: httpx.AsyncClient) -> None:
        script = await client.get("/ui/own/main.js")
        assert script.headers["content-type"].startswith("text/javascript")
        assert script.headers["cache-control"] == "no-cache"
        for name in ("gate.py", "..%2Fgate.py", "__init__.py", ""):
            assert (await client.get(f"/ui/own/{name}")).status_code == 404

    play(page_in(tmp_path), scene)


def test_assets_may_be_kept_and_uploads_can_do_nothing(tmp_path: Path) -> None:
    async def scene(client: httpx.AsyncClient) -> None:
        assert "immutable" in (await client.get("/ui/assets/a.js")).headers["cache-control"]
        policy = (await client.get("/ui/gradio_api/file=/a.html")).headers["content-security-policy"]
        assert "sandbox" in policy and "default-src 'none'" in policy

    play(page_in(tmp_path), scene)


def test_a_key_opens_the_page_and_the_api_to_one_browser(tmp_path: Path) -> None:
    async def scene(client: httpx.AsyncClient) -> None:
        door = await client.get("/ui/", headers={"Accept-Language": "zh"})
        assert door.status_code == 401 and "API 密钥" in door.text and "script" not in door.text
        for path in ("/ui/config", "/ui/gradio_api/upload", "/ui/results.zip", "/v1/jobs"):
            assert (await client.get(path)).status_code == 401
        wrong = await client.post("/ui/session", data={"key": "no-key-of-this-place"})
        assert wrong.status_code == 401 and "not known" in wrong.text and not client.cookies
        entered = await client.post("/ui/session", data={"key": KEY}, headers={"X-Forwarded-Proto": "https"})
        cookie = entered.headers["set-cookie"]
        assert (entered.status_code, entered.headers["location"]) == (303, "./")
        assert KEY not in cookie
        assert {"HttpOnly", "SameSite=Strict", "Secure", "Path=/"} <= set(cookie.split("; "))
        given = {"Cookie": cookie.split(";")[0]}
        assert "gradio_config" in (await _loaded(client, given)).text
        assert (await client.get("/v1/jobs", headers=given)).status_code == 200
        # Another site may make a browser ask, but not with its key.
        for site in ("cross-site", "same-site"):
            asked = await client.get("/v1/jobs", headers=given | {"Sec-Fetch-Site": site})
            assert asked.status_code == 401
        left = await client.post("/ui/session/end", headers=given)
        assert left.status_code == 303 and "Max-Age=0" in left.headers["set-cookie"]

    play(page_in(tmp_path, api_keys=KEY), scene)


async def _loaded(client: httpx.AsyncClient, given: dict[str, str]) -> httpx.Response:
    for _ in range(500):
        answer = await client.get("/ui/", headers=given)
        if "gradio_config" in answer.text:
            return answer
        await asyncio.sleep(0.01)
    raise AssertionError("the page was not loaded")


@pytest.mark.parametrize(
    "value", ["", "asr_key=", "asr_key=%%%", "asr_key=____", "asr_key=" + "A" * 3000, "=;;=\xff"]
)
def test_damaged_cookies_are_no_key(tmp_path: Path, value: str) -> None:
    app = page_in(tmp_path, api_keys=KEY)
    assert get(app, "/v1/jobs", headers={"Cookie": value.encode("latin-1")}).status_code == 401


def test_without_the_page_no_cookie_is_a_key(tmp_path: Path) -> None:
    entered = "asr_key=YS1rZXktZm9yLXRlc3RzLW9ubHk"
    assert (
        get(page_in(tmp_path / "on", api_keys=KEY), "/v1/jobs", headers={"Cookie": entered}).status_code
        == 200
    )
    off = app_in(tmp_path / "off", api_keys=KEY)
    assert get(off, "/v1/jobs", headers={"Cookie": entered}).status_code == 401


def test_a_login_that_never_ends_is_cut_off(tmp_path: Path) -> None:
    async def scene(client: httpx.AsyncClient) -> None:
        answer = await client.post("/ui/session", content=b"key=" + b"x" * 100_000)
        assert answer.status_code == 401

    play(page_in(tmp_path, api_keys=KEY), scene)


def test_uploads_without_room_are_refused_before_they_are_read(
    tmp_path: Path, gradio: FakeGradio, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = page_in(tmp_path, max_upload_bytes=1 << 20, page_batch_files=2)

    async def endless() -> Any:
        yield b"x"

    async def code(client: httpx.AsyncClient, content: Any) -> int:
        return (await client.post("/ui/gradio_api/upload", content=content)).status_code

    async def scene(client: httpx.AsyncClient) -> None:
        gradio.asked.clear()
        assert await code(client, bytes(3 << 20)) == 413
        assert await code(client, endless()) == 411
        with monkeypatch.context() as patch:
            patch.setattr("shutil.disk_usage", lambda _: types.SimpleNamespace(free=1 << 20))
            assert await code(client, b"sound") == 507
        assert gradio.asked == []
        assert await code(client, b"sound") == 200
        app.state.service.admission.drain()
        assert await code(client, b"sound") == 503

    play(app, scene)


def test_what_a_cut_off_upload_leaves_is_removed(tmp_path: Path) -> None:
    async def scene(client: httpx.AsyncClient) -> None:
        left = tmp_path / "data" / "page" / "tmp123"
        left.write_bytes(b"half")
        await client.post("/ui/gradio_api/upload", content=b"sound")
        assert not left.exists()

    play(page_in(tmp_path), scene)


def test_the_page_is_one_route_in_the_metrics(tmp_path: Path) -> None:
    app = page_in(tmp_path)

    async def scene(client: httpx.AsyncClient) -> None:
        for path in ("/ui/own/main.js", "/ui/assets/a.js", "/ui/nothing"):
            await client.get(path)
        told = (await client.get("/metrics")).text
        assert 'route="/ui"' in told and "assets" not in told

    play(app, scene)


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("", "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("de,en;q=0.5", "en"),
        ("fr,zh-TW;q=0.3", "zh"),
        ("fr", "en"),
        (";;,", "en"),
    ],
)
def test_the_language_is_the_first_that_we_have(accepted: str, language: str) -> None:
    assert language_of(accepted) == language

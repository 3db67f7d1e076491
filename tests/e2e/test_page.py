"""The page in a real browser against the real service with the demo model: everything a person does with it."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from app.service.page.texts import LOCALES
from tests.support.browser import RECORDINGS, ask, browser, files_in, play, service, until
from tests.support.proxy import proxy

MEETING, NAMES, COMMAND = (RECORDINGS / name for name in ("meeting.ogg", "names.ogg", "command-1.flac"))
KEY = "a-key-for-tests-only"
WORDS = {
    "en-US": {"title": "Speech to text", "tabs": ["File", "Batch", "Microphone", "System"], "done": "Done"},
    "zh-CN": {"title": "语音转文字", "tabs": ["单个文件", "批量", "麦克风", "系统"], "done": "完成"},
}


@pytest.fixture(scope="module")
def started() -> Iterator[Browser]:
    with browser(RECORDINGS / "golden.wav") as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("service")


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with service(folder) as found:
        yield found


def choose(page: Page, kind: str, *files: Path) -> None:
    """Uploads files in a tab and waits until they are there."""
    page.set_input_files(f"#{kind}-input input[type=file]", [str(file) for file in files])
    expect(page.locator(f"#{kind}-input .file-preview tr.file, #{kind}-input tr.file")).to_have_count(
        len(files)
    )


def transcribe(page: Page, kind: str, *files: Path) -> None:
    """Uploads and sends files; returns when all jobs have ended."""
    choose(page, kind, *files)
    page.click(f"#{kind}-start")
    jobs = page.locator(f"#{kind}-result asr-job")
    expect(page.locator(f"#{kind}-result asr-job[data-state=done]")).not_to_have_count(0)
    expect(page.locator(f"#{kind}-result asr-job:not([data-state])")).to_have_count(0)
    assert jobs.count() > 0


def seconds_of(page: Page) -> float:
    return float(page.evaluate("document.querySelector('asr-job audio').currentTime"))


@pytest.mark.parametrize("locale", WORDS)
def test_a_recording_becomes_text_that_plays_and_is_taken_away(
    started: Browser, address: str, folder: Path, locale: str
) -> None:
    words = WORDS[locale]

    def scene(page: Page) -> None:
        expect(page.locator("asr-header h1")).to_have_text(str(words["title"]))
        expect(page).to_have_title(str(words["title"]))
        expect(page.get_by_role("tab")).to_have_text(words["tabs"])
        page.fill("#file-hotwords textarea", "张筱雨，http://example.com/a")
        transcribe(page, "file", NAMES)
        card = page.locator("#file-result asr-job")
        expect(card.locator(".asr-state")).to_have_text(str(words["done"]))
        expect(card.locator(".asr-warning")).to_contain_text("http://example.com/a")
        expect(card.locator(".asr-details").nth(1)).to_contain_text("张筱雨")
        expect(card.locator(".asr-line").nth(2)).to_be_visible()
        with page.expect_download() as taken:
            card.get_by_role("link", name="SRT").click()
        assert taken.value.suggested_filename == "names.srt"
        assert taken.value.path().read_text(encoding="utf-8").startswith("1\n00:00:0")
        for form, suffix in (("TXT", ".txt"), ("VTT", ".vtt"), ("JSON", ".json")):
            with page.expect_download() as taken:
                card.get_by_role("link", name=form).click()
            assert taken.value.suggested_filename == f"names{suffix}" and taken.value.path().stat().st_size
        assert files_in(folder / "data" / "page") == ["names.ogg"]
        page.click("#file-clear")
        expect(page.locator("asr-job")).to_have_count(0)
        expect(page.locator("#file-hotwords textarea")).to_have_value("")
        until(
            lambda: (
                not files_in(folder / "data" / "page") and not files_in(folder / "data" / "jobs" / "uploads")
            )
        )
        assert ask(address, "/v1/jobs")["data"] == []

    play(started, address, scene, locale=locale)


def test_times_move_the_player_by_mouse_and_by_keyboard(started: Browser, address: str) -> None:
    def scene(page: Page) -> None:
        transcribe(page, "file", MEETING)
        lines = page.locator("#file-result .asr-line")
        expect(lines.nth(6)).to_be_attached()
        segments = json.loads(
            page.evaluate("fetch(document.querySelector('a[download$=json]').href).then(r => r.text())")
        )
        lines.nth(3).get_by_role("button").click()
        page.wait_for_function("document.querySelector('asr-job audio').currentTime > 0")
        assert 0 <= seconds_of(page) - segments["segments"][3]["start"] < 3
        expect(lines.nth(3)).to_have_attribute("aria-current", "true")
        page.evaluate("document.querySelector('asr-job audio').pause()")
        lines.nth(5).get_by_role("button").focus()
        page.keyboard.press("Enter")
        expect(lines.nth(5)).to_have_attribute("aria-current", "true")
        box = lines.nth(1).locator(".asr-text").bounding_box()
        assert box is not None
        page.mouse.click(box["x"] + box["width"] - 4, box["y"] + box["height"] / 2)
        expect(lines.nth(1)).to_have_attribute("aria-current", "true")
        assert (
            seconds_of(page) > segments["segments"][1]["start"] + 0.2
        )  # a word in the line, not its beginning

    play(started, address, scene)


def test_progress_is_what_the_api_says(started: Browser, address: str) -> None:
    answers: list[dict[str, Any]] = [
        {"state": "queued", "queue_position": 2, "done": 0.0},
        {"state": "running", "queue_position": None, "done": 25.0, "eta": 90.0},
        {"state": "running", "queue_position": None, "done": 75.0, "eta": 0.5},
    ]
    held, ended = list[dict[str, Any]](), list[bool]()

    def answer(route: Route) -> None:
        if ended or route.request.method != "GET":
            route.continue_()
            return
        told = route.fetch().json()
        now = held[0] if held else answers[0]
        done = now["done"]
        told |= {"state": now["state"], "queue_position": now["queue_position"], "ended_at": None}
        told["progress"] = {
            "seconds_done": done,
            "seconds_total": 100.0,
            "fraction": done / 100,
            "eta_seconds": now.get("eta"),
        }
        route.fulfill(json=told)

    def scene(page: Page) -> None:
        held.clear()
        ended.clear()
        page.route(re.compile(r"/v1/jobs/job_\w+$"), answer)
        choose(page, "file", COMMAND)
        page.click("#file-start")
        bar = page.get_by_role("progressbar", name="command-1.flac")
        held[:] = [answers[0]]
        expect(page.locator(".asr-state")).to_have_text("Waiting – 2 before it")
        held[:] = [answers[1]]
        expect(bar).to_have_attribute("aria-valuenow", "25")
        expect(page.locator(".asr-figures")).to_have_text("25 % – 0:25 of 1:40 · about 2 min left")
        held[:] = [answers[2]]
        expect(bar).to_have_attribute("aria-valuenow", "75")
        ended.append(True)
        expect(page.locator("asr-job")).to_have_attribute("data-state", "done")

    play(started, address, scene)


def test_a_batch_with_a_broken_file_and_a_very_long_name(
    started: Browser, address: str, folder: Path, tmp_path: Path
) -> None:
    long, broken = tmp_path / ("会议记录" * 20 + ".flac"), tmp_path / "broken.mp3"
    long.write_bytes(COMMAND.read_bytes())
    broken.write_bytes(b"no audio at all" * 50)

    def scene(page: Page) -> None:
        page.get_by_role("tab", name="Batch").click()
        transcribe(page, "batch", NAMES, long, broken, COMMAND)
        results = page.locator("#batch-result")
        expect(results.locator(".asr-summary span")).to_have_text("3 of 4 done · 1 failed")
        expect(results.locator(".asr-problem")).to_contain_text("broken.mp3")
        expect(results.locator(".asr-problem")).to_contain_text("not audio or video that can be read")
        card = results.locator(".asr-card").nth(1).bounding_box()
        assert card is not None and card["width"] <= 1000
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        results.locator("asr-job").first.get_by_role("button", name="Show text").click()
        expect(results.locator("asr-job").first.locator(".asr-line").first).to_be_visible()
        with page.expect_download() as taken:
            results.get_by_role("link", name="All transcripts (ZIP)").click()
        names = zipfile.ZipFile(taken.value.path()).namelist()
        assert len(names) == 12 and {"names.txt", "names.srt", "names.vtt", "names.json"} < set(names)
        until(lambda: not files_in(folder / "data" / "page"))
        more = [tmp_path / f"{number}.flac" for number in range(11)]
        for file in more:
            file.write_bytes(COMMAND.read_bytes())
        choose(page, "batch", *more)
        page.click("#batch-start")
        expect(page.locator("#batch-fault .asr-problem")).to_contain_text("Remove some; up to 10")
        expect(results.locator("asr-job")).to_have_count(3)
        page.click("#batch-clear")
        expect(page.locator("asr-job, .asr-problem")).to_have_count(0)
        until(lambda: not files_in(folder / "data" / "page"))

    play(started, address, scene)


def test_the_microphone_is_recorded_and_transcribed(started: Browser, address: str) -> None:
    def scene(page: Page) -> None:
        page.get_by_role("tab", name="Microphone").click()
        expect(page.locator("asr-limits[kind=microphone]")).to_contain_text("Up to 12 h")
        page.locator("#microphone-input button.record").click()
        page.wait_for_timeout(4000)
        page.locator("#microphone-input button.stop-button").first.click()
        expect(page.get_by_role("button", name="Play", exact=False).first).to_be_visible()
        page.wait_for_timeout(1000)  # the upload of a recording shows nowhere
        page.click("#microphone-start")
        expect(page.locator("#microphone-result asr-job")).to_have_attribute("data-state", "done")
        expect(page.locator("#microphone-result .asr-line").first).to_be_visible()

    play(started, address, scene, permissions=["microphone"])


@pytest.mark.parametrize("locale", WORDS)
def test_the_system_tab_says_what_serves_and_why(started: Browser, address: str, locale: str) -> None:
    def scene(page: Page) -> None:
        page.get_by_role("tab").nth(3).click()
        shown = page.locator("asr-system")
        expect(shown.locator("section")).to_have_count(3)
        for part in ("demo", "cpu", "int8", "golden clip", "GPU", "2 GiB", "256 KiB"):
            expect(shown).to_contain_text(part)
        assert page.evaluate("document.documentElement.lang") == ("en" if locale == "en-US" else "zh-CN")

    play(started, address, scene, locale=locale)


def test_states_of_the_engine_and_a_lost_connection_are_told(started: Browser, address: str) -> None:
    told = ask(address, "/v1/capacity")
    states = {
        "starting": "Startingdownloading the model, 40 %",
        "asleep": "Asleep – the next recording wakes it",
        "failed": "The engine does not rundownloading the model, 40 %",
        "draining": "Shutting down",
    }

    said: list[dict[str, Any]] = []

    def answer(route: Route) -> None:
        if said:
            route.fulfill(json=told | said[0])
        else:
            route.continue_()

    def scene(page: Page) -> None:
        said.clear()
        page.route("**/v1/capacity", answer)
        header = page.locator("asr-header")
        expect(header).to_contain_text("Ready")
        for state, words in states.items():
            said[:] = [{"state": state, "message": "downloading the model, 40 %"}]
            expect(page.locator(".asr-light")).to_have_attribute("data-state", state)
            text = (page.locator(".asr-engine span").nth(1).inner_text()) + (
                page.locator(".asr-message").inner_text() if page.locator(".asr-message").is_visible() else ""
            )
            assert text.startswith(words)
        said[:] = [{"hotwords": False}]
        expect(page.locator("asr-limits[kind=file] .asr-warning")).to_be_visible()
        said.clear()
        page.context.set_offline(True)
        expect(header).to_contain_text("The connection to the service is lost")
        page.context.set_offline(False)
        expect(header).to_contain_text("Ready")

    play(started, address, scene)


def test_a_job_outlives_a_lost_connection_and_a_reload(started: Browser, address: str) -> None:
    def scene(page: Page) -> None:
        expect(page.locator("asr-header h1")).to_be_visible()
        choose(page, "file", MEETING)
        page.click("#file-start")
        expect(page.locator("asr-job .asr-state")).not_to_be_empty()
        page.context.set_offline(True)
        page.wait_for_timeout(1500)
        page.context.set_offline(False)
        expect(page.locator("asr-job")).to_have_attribute("data-state", "done")
        page.reload()
        expect(page.locator("#file-result .asr-line").first).to_be_attached()
        page.click("#file-clear")
        expect(page.locator("asr-job")).to_have_count(0)
        page.reload()
        expect(page.locator("asr-header h1")).to_be_visible()
        page.wait_for_timeout(1000)
        expect(page.locator("asr-job")).to_have_count(0)

    play(started, address, scene)


def test_text_is_never_markup_and_ten_megabytes_of_it_are_shown(started: Browser, address: str) -> None:
    evil = '<img src=x onerror="window.hit=1"><script>window.hit=1</script>'
    count = 24_000
    segments = [
        {"start": n * 2.0, "end": n * 2.0 + 1.9, "text": f"{evil} 第{n}句" + "字" * 100} for n in range(count)
    ]
    result = {
        "file": "a.wav",
        "text": "",
        "duration": count * 2.0,
        "words": [],
        "segments": segments,
        "model": evil,
        "precision": "int8",
        "hotwords": {"used": [evil], "unusable": [{"text": evil, "reason": evil}]},
    }
    body = json.dumps(result, ensure_ascii=False)
    assert len(body.encode()) > 10_000_000

    def scene(page: Page) -> None:
        page.route(
            re.compile("/result\\?format=json"),
            lambda route: route.fulfill(body=body, content_type="application/json"),
        )
        transcribe(page, "file", COMMAND)
        lines = page.locator("#file-result .asr-line")
        expect(lines).to_have_count(count, timeout=60_000)
        lines.last.scroll_into_view_if_needed()
        expect(lines.last).to_contain_text(f"第{count - 1}句")
        expect(page.locator("asr-job .asr-warning")).to_contain_text(evil)
        assert page.evaluate("window.hit === undefined && !document.querySelector('asr-job img')")

    play(started, address, scene)


def test_everything_has_a_name_and_the_keyboard_reaches_it(started: Browser, address: str) -> None:
    nameless = """() => [...document.querySelectorAll('input, textarea, button, a, audio, [role=progressbar]')]
        .filter((one) => one.checkVisibility() && !(one.ariaLabel || one.title || one.innerText?.trim()
            || one.placeholder || [...(one.labels ?? [])].some((label) => label.innerText.trim())))
        .map((one) => one.outerHTML.slice(0, 200))"""

    def scene(page: Page) -> None:
        transcribe(page, "file", NAMES)
        expect(page.locator(".asr-line").first).to_be_visible()
        assert page.evaluate(nameless) == []
        page.get_by_role("tab", name="Microphone").click()
        assert page.evaluate(nameless) == []
        page.get_by_role("tab", name="File").click()
        page.locator("#file-hotwords textarea").focus()
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.innerText") == "Transcribe"
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.innerText") == "Clear"
        page.keyboard.press("Enter")
        expect(page.locator("asr-job")).to_have_count(0)

    play(started, address, scene)


def test_gradio_names_nobody_else_and_gives_out_uploads_only(address: str, folder: Path) -> None:
    document = urllib.request.urlopen(address + "/ui/", timeout=30).read().decode()
    assert re.findall(r"""(?:src|href)=["'](?:https?:)?//""", document) == []
    config = json.loads(re.findall(r"window\.gradio_config = (\{.*?\});</script>", document, re.DOTALL)[0])
    assert config["analytics_enabled"] is False
    assert not [sheet for sheet in config.get("stylesheets") or [] if "//" in sheet]
    assert set(LOCALES) <= set(config["i18n_translations"])
    for path in ("/etc/passwd", str(folder / "data" / "jobs" / "jobs.sqlite3")):
        with pytest.raises(urllib.error.HTTPError, match=r"403|404"):
            urllib.request.urlopen(f"{address}/ui/gradio_api/file={path}", timeout=30)


def test_with_keys_and_limits_below_a_path_of_a_proxy(started: Browser, tmp_path: Path) -> None:
    def scene(page: Page) -> None:
        expect(page).to_have_url(re.compile("/speech/ui/$"))
        page.fill("#key", "a-wrong-key-for-tests")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_have_text("密钥不正确。")
        page.fill("#key", KEY)
        page.keyboard.press("Enter")
        expect(page.locator("asr-limits[kind=file]")).to_contain_text("最大 200 KiB，最长 2 分钟")
        page.set_input_files("#file-input input[type=file]", str(MEETING))
        expect(page.get_by_test_id("toast-body").first).to_be_visible()
        expect(page.locator("#file-input tr.file")).to_have_count(0)
        transcribe(page, "file", COMMAND)
        with page.expect_download() as taken:
            page.get_by_role("link", name="SRT").click()
        assert taken.value.path().stat().st_size
        page.evaluate("document.querySelector('asr-job audio').play()")
        page.wait_for_function("document.querySelector('asr-job audio').currentTime > 0")
        page.get_by_role("tab").nth(1).click()
        transcribe(page, "batch", COMMAND, NAMES)
        with page.expect_download() as taken:
            page.locator("#batch-result .asr-strong").click()
        assert len(zipfile.ZipFile(taken.value.path()).namelist()) == 8
        kept = page.evaluate(
            "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie]) + document.body.innerHTML"
        )
        assert KEY not in kept
        (cookie,) = page.context.cookies()
        assert cookie["httpOnly"] and cookie["sameSite"] == "Strict" and cookie["path"] == "/speech"
        page.click("asr-header button")
        expect(page.locator("#key")).to_be_visible()

    limits = {"max_upload_bytes": 200 << 10, "max_audio_seconds": 120, "page_batch_files": 2}
    with (
        service(tmp_path, api_keys=KEY, root_path="/speech", **limits) as inner,
        proxy(inner, "/speech") as outer,
    ):
        play(started, outer + "/", scene, locale="zh-CN")

"""A real browser and a real service for tests of the page: Debian's Chromium, driven by playwright, without a network.

A scene is a function that plays in a fresh tab. Everything the tab asks for is written down; asking anybody but the
service, a script that is kept from running and an error of a script each fail the scene.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.support.packages import need

ROOT = Path(__file__).resolve().parent.parent.parent
RECORDINGS = ROOT / "app" / "demo" / "recordings"
START_SECONDS, PATIENCE_SECONDS = 180.0, 30.0
# On a machine whose network interfaces come and go, Chromium breaks off whatever it is loading.
INTERFACES_CHANGED = "ERR_NETWORK_CHANGED"
TRIES = 4
Scene = Callable[[Page], None]


def chromium() -> str:
    """The browser's path."""
    for name in ("chromium", "chromium-browser"):
        if found := shutil.which(name):
            return found
    need({"chromium": "chromium fonts-noto-cjk"})
    return str(shutil.which("chromium"))


@contextlib.contextmanager
def browser(microphone: Path) -> Iterator[Browser]:
    """A headless browser whose microphone hears a recording."""
    expect.set_options(timeout=PATIENCE_SECONDS * 1000)
    arguments = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
    arguments += ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    arguments += [f"--use-file-for-fake-audio-capture={microphone}"]
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=chromium(), args=arguments)
        yield started
        started.close()


@contextlib.contextmanager
def service(folder: Path, **settings: Any) -> Iterator[str]:
    """The service in a process of its own with the demo model; gives its address when the page is there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ASR_")}
    given = {"PORT": port, "DATA_DIR": folder / "data", "LOG_FORMAT": "text", "THREADS": 1, **settings}
    environment |= {f"ASR_{name.upper()}": str(value) for name, value in given.items()}
    with (folder / "service.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "app", "serve"], cwd=ROOT, env=environment, stdout=log, stderr=log
        )
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for_page(process, address + "/ui/", folder / "service.log")
            yield address
        finally:
            process.terminate()
            process.wait(60)


def wait_for_page(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    """Until the page is loaded, or asks for a key."""
    give_up = time.monotonic() + START_SECONDS
    while time.monotonic() < give_up and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                if b"gradio_config" in answer.read():
                    return
        except urllib.error.HTTPError as error:
            if error.code == 401:
                return
        except OSError:
            pass
        time.sleep(0.3)
    pytest.fail(f"the service did not start:\n{log.read_text(encoding='utf-8', errors='replace')[-3000:]}")


def play(started: Browser, address: str, scene: Scene, **context: Any) -> None:
    """Plays a scene in a fresh tab at `address`, with the browser's settings in `context`."""
    for attempt in range(1, TRIES + 1):
        made = started.new_context(
            **{"locale": "en-US", "viewport": {"width": 1000, "height": 900}, **context}
        )
        page, faults, broken = made.new_page(), list[str](), list[str]()
        _listen(page, address, faults, broken)
        try:
            page.goto(address, wait_until="domcontentloaded")
            scene(page)
        except Exception:
            if not broken or attempt == TRIES:
                raise
            continue
        finally:
            made.close()
        if not faults or not broken:
            if faults:
                pytest.fail("\n".join(faults))
            return
    pytest.fail("the network interfaces of this machine did not stay the same long enough")


def _listen(page: Page, address: str, faults: list[str], broken: list[str]) -> None:
    origin = "/".join(address.split("/")[:3]) + "/"

    def asked(url: str) -> None:
        if not url.startswith((origin, "blob:", "data:")):
            faults.append(f"asked for {url}")

    def said(kind: str, text: str) -> None:
        if "Content Security Policy" in text:
            faults.append(text)
        if INTERFACES_CHANGED in text:
            broken.append(text)

    page.set_default_timeout(PATIENCE_SECONDS * 1000)
    page.on("request", lambda request: asked(request.url))
    page.on("requestfailed", lambda request: said("failed", str(request.failure)))
    page.on("console", lambda message: said(message.type, message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))


def ask(address: str, path: str, key: str = "") -> Any:
    """JSON from the API, without the browser."""
    request = urllib.request.Request(
        address + path, headers={"Authorization": f"Bearer {key}"} if key else {}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def files_in(folder: Path) -> list[str]:
    """All files below a folder."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def until(condition: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
    """Waits for something that happens elsewhere."""
    give_up = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > give_up:
            raise AssertionError("what was waited for did not happen")
        time.sleep(0.05)

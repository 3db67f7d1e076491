"""The gate a release must pass, against a small service that answers as told; and the check that a pack must pass."""

from __future__ import annotations

import http.server
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.playbooks import ANSIBLE, ROOT, module

PATH = "roles/asr_service/files/gate.py"
gate = module(PATH)
fleet = module("filter_plugins/fleet.py")
PACK = ROOT / "app" / "demo" / "packs" / "int8"
TEXT = json.loads((PACK / "manifest.json").read_text(encoding="utf-8"))["golden"]["text"]


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers with the texts of the server in turn, the last one again and again; a number is a status."""

    server: FakeService

    def do_GET(self) -> None:
        self.reply(200, b"{}")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.heard.append((self.headers.get("Authorization", ""), body))
        answer = self.server.texts[0] if len(self.server.texts) == 1 else self.server.texts.pop(0)
        if isinstance(answer, int):
            self.reply(answer, b'{"error": "told to"}')
        else:
            self.reply(200, json.dumps({"text": answer}).encode())

    def reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class FakeService(http.server.ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.texts: list[str | int] = [TEXT]
        self.heard: list[tuple[str, bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def service() -> Iterator[FakeService]:
    with FakeService() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def ask(url: str, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(ANSIBLE / PATH), "--url", url, "--pack", str(PACK), *more]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_right_words_pass_and_the_clip_was_really_sent(service: FakeService, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# mine\n\nfirst-key-1\nsecond-key-2\n")
    done = ask(service.url, "--key-file", str(tmp_path / "keys"))
    assert done.returncode == 0, done.stdout + done.stderr
    key, body = service.heard[0]
    assert key == "Bearer first-key-1" and (PACK / "golden.wav").read_bytes() in body


def test_punctuation_and_blanks_do_not_count(service: FakeService) -> None:
    service.texts = [f" {TEXT[:4]}，{TEXT[4:]}。"]
    assert ask(service.url).returncode == 0


def test_wrong_words_are_refused_at_once(service: FakeService) -> None:
    service.texts = ["别的话"]
    done = ask(service.url, "--seconds", "60")
    assert done.returncode == 1 and "别的话" in done.stdout and TEXT in done.stdout
    assert len(service.heard) == 1


def test_a_service_that_is_still_busy_is_waited_for(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.texts = [503, 429, TEXT]
    assert ask(service.url, "--seconds", "60").returncode == 0
    assert len(service.heard) == 3


def test_waiting_ends(service: FakeService) -> None:
    service.texts = [503]
    done = ask(service.url, "--seconds", "0")
    assert done.returncode == 1 and "it answers 503" in done.stdout


def test_a_refused_key_is_not_waited_for(service: FakeService) -> None:
    service.texts = [401]
    done = ask(service.url, "--seconds", "60")
    assert done.returncode == 1 and "refuses the key" in done.stdout


def test_nobody_there(service: FakeService) -> None:
    done = ask("http://127.0.0.1:9", "--seconds", "0")
    assert done.returncode == 1 and "does not answer" in done.stdout


def test_a_container_that_keeps_ending_is_told_with_its_last_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = tmp_path / "docker"
    # It is up again while it is looked at, so its own exit code says nothing.
    fake.write_text(
        "#!/bin/sh\ncase $1 in logs) echo 'no such pack' ;; events) printf '0\\n7\\n' ;; *) echo 3 running ;; esac\n"
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(gate.WrongError, match=r"ended 3 times \(exit code 7\).*no such pack"):
        gate.look_at("asr-0")


def test_a_pack_is_not_taken_for_another(tmp_path: Path) -> None:
    check = module("roles/model/files/check_pack.py")
    assert check.faults(str(PACK), "demo-int8-0123456789ab") == ["manifest.json is not the one of this pack"]


@pytest.mark.parametrize("damage", ["missing", "short", "changed", "manifest"])
def test_a_damaged_pack_is_told_by_file(damage: str, tmp_path: Path) -> None:
    check = module("roles/model/files/check_pack.py")
    pack = tmp_path / "pack"
    shutil.copytree(PACK, pack)
    name = fleet.pack_id(str(pack))
    assert check.faults(str(pack), name) == []
    file = pack / ("manifest.json" if damage == "manifest" else "decoder.onnx")
    whole = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(
            whole[:-5] if damage in {"short", "manifest"} else whole[:-1] + bytes([whole[-1] ^ 1])
        )
    found = check.faults(str(pack), name)
    assert len(found) == 1 and file.name in found[0]

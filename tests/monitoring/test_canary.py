"""The canary: what it sends, what it makes of answers, which clips it takes. The service here is a fake."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from monitoring.exporter.canary import Canary, Clip, load_clip
from monitoring.exporter.errors import ConfigurationError
from tests.monitoring.conftest import FakeService
from tests.support.waiting import wait_for

PACK = Path(__file__).resolve().parents[2] / "app" / "demo" / "packs" / "int8"
TEXT = "明天上午九点半在上海开会"
CLIP = load_clip(PACK, None)


def canary_of(service: FakeService, key: str | None = None) -> Canary:
    return Canary(service.url, CLIP, interval_seconds=3600, key=key)


def says(text: object) -> bytes:
    return json.dumps({"text": text}).encode()


def test_the_clip_of_a_pack() -> None:
    assert CLIP.text == TEXT
    assert 1 < CLIP.seconds < 10
    assert CLIP.data.startswith(b"RIFF")


def test_a_clip_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.wav"
    shutil.copy(PACK / "golden.wav", file)
    assert load_clip(file, "你好").text == "你好"
    with pytest.raises(ConfigurationError, match="--canary-text"):
        load_clip(file, None)
    with pytest.raises(ConfigurationError, match="--canary-text"):
        load_clip(file, " ，。")


def test_clips_that_are_none(tmp_path: Path) -> None:
    for content in (b"", b"RIFF", b"not a wave file at all, just words"):
        file = tmp_path / "bad.wav"
        file.write_bytes(content)
        with pytest.raises(ConfigurationError, match="cannot be used"):
            load_clip(file, "你好")
    with pytest.raises(ConfigurationError, match="cannot be used"):
        load_clip(tmp_path, None)


@pytest.mark.parametrize("text", [TEXT, "明天上午，九点半在上海开会。", f" {TEXT}\n"])
def test_the_right_words(service: FakeService, text: str) -> None:
    """Punctuation is a setting of the service."""
    service.answer = lambda: (200, says(text))
    result = canary_of(service).sing()
    assert result.success
    assert result.correct
    assert result.rtf == pytest.approx(result.seconds / CLIP.seconds)


def test_wrong_words(service: FakeService, caplog: pytest.LogCaptureFixture) -> None:
    service.answer = lambda: (200, says("明天下午九点半在上海开会"))
    result = canary_of(service).sing()
    assert result.success
    assert result.correct is False
    assert "明天下午" in caplog.text


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (503, b"{}"),
        (429, b"busy"),
        (500, b""),
        (401, b""),
        (200, b""),
        (200, b"[]"),
        (200, says(None)),
        (200, b"\xff"),
    ],
)
def test_no_transcript(service: FakeService, status: int, body: bytes) -> None:
    service.answer = lambda: (status, body)
    result = canary_of(service).sing()
    assert not result.success
    assert (result.rtf, result.correct) == (None, None)
    assert result.ended > 1_700_000_000


def test_nobody_listens() -> None:
    assert not Canary("http://127.0.0.1:1", Clip(b"", 1.0, "x"), interval_seconds=60).sing().success


def test_what_is_sent(service: FakeService) -> None:
    service.answer = lambda: (200, says(TEXT))
    canary_of(service, "secret-key").sing()
    path, key, body = service.asked[0]
    assert (path, key) == ("/v1/audio/transcriptions", "Bearer secret-key")
    assert CLIP.data in body
    assert b'name="model"' in body
    assert body.rstrip().endswith(b"--")


def test_it_sings_when_it_starts(service: FakeService) -> None:
    service.answer = lambda: (200, says(TEXT))
    canary = canary_of(service)
    assert canary.last() is None
    canary.start()
    wait_for(canary.last, "the first try")
    canary.close()

"""`transcribe`: streams, files, several inputs, failures, hot words."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from app.asr.errors import AudioError
from app.asr.transcript import Utterance
from app.cli import main
from tests.fakes.engine import FakeEngine, FakeTranscription, spoken

TEXT = "今天\n开会\n"


def touch(root: Path, *names: str) -> list[str]:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return [str(root / name) for name in names]


def transcribe(engine: FakeEngine, *arguments: str) -> int:
    return main(["transcribe", "--model", "m", *arguments], engine_factory=engine.factory)


def test_one_file_prints_its_text_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert transcribe(FakeEngine(), *touch(tmp_path, "a.wav")) == 0
    assert capsys.readouterr() == (TEXT, "")


def test_text_appears_while_the_rest_is_still_decoded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[str] = []
    script: list[Utterance | BaseException | Callable[[], None]]
    script = [spoken(0.0, "今"), lambda: seen.append(capsys.readouterr().out), spoken(1.0, "天")]
    assert transcribe(FakeEngine(default=FakeTranscription(script)), *touch(tmp_path, "a.wav")) == 0
    assert seen == ["今\n"]


def test_several_texts_are_headed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = touch(tmp_path, "a.wav", "b.wav")
    assert transcribe(FakeEngine(), first, second) == 0
    assert capsys.readouterr().out == f"==> {first} <==\n{TEXT}\n==> {second} <==\n{TEXT}"


def test_several_json_objects_share_a_stream(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = touch(tmp_path, "a.wav", "b.wav")
    assert transcribe(FakeEngine(), *paths, "--format", "json") == 0
    left, decoder, files = capsys.readouterr().out, json.JSONDecoder(), []
    while left.strip():
        told, end = decoder.raw_decode(left)
        files.append(told["file"])
        left = left[end:].lstrip()
    assert files == paths


@pytest.mark.parametrize("form", ["srt", "vtt", "tsv"])
def test_several_subtitles_need_a_directory(
    tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = FakeEngine()
    assert transcribe(engine, *touch(tmp_path, "a.wav", "b.wav"), "--format", form) == 1
    assert "--output" in capsys.readouterr().err and engine.asked == []
    assert transcribe(engine, str(tmp_path / "a.wav"), "--format", form) == 0
    assert "今天" in capsys.readouterr().out


def test_json_carries_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = touch(tmp_path, "a.wav")
    assert transcribe(FakeEngine(), *paths, "--format", "json", "--hotwords", "张三，龘") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["text"] == "今天开会" and told["duration"] == 10.0 and told["rtf"] == 0.2
    assert (told["model"], told["precision"]) == ("fake", "int8")
    assert told["hotwords"]["used"] == ["张三"] and told["hotwords"]["unusable"][0]["text"] == "龘"
    assert told["peak_rss_bytes"] > 1 << 20
    assert len(told["words"]) == 4 and len(told["segments"]) == 2


def test_output_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch(tmp_path, "in/a.mp3", "in/b.mp3", "in/b.wav", "in/sub/c.ogg", "in/readme.txt")
    out = tmp_path / "out"
    assert transcribe(FakeEngine(), str(tmp_path / "in"), "--output", str(out), "--format", "srt") == 0
    found = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert found == ["a.srt", "b.mp3.srt", "b.wav.srt", "sub/c.srt"]
    assert (out / "a.srt").read_text(encoding="utf-8").startswith("1\n00:00:00,000 --> ")
    told = capsys.readouterr()
    assert told.out == "" and "a.srt  (0:10, 5.0x real time)" in told.err


def test_text_files_hold_the_text(tmp_path: Path) -> None:
    assert transcribe(FakeEngine(), *touch(tmp_path, "a.wav"), "--output", str(tmp_path)) == 0
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == TEXT


def test_an_output_directory_that_cannot_be_made_stops_before_the_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = FakeEngine()
    touch(tmp_path, "a.wav", "file")
    assert transcribe(engine, str(tmp_path / "a.wav"), "--output", str(tmp_path / "file")) == 2
    assert engine.options is None and "output directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (AudioError("It holds no sound", fix="Choose another file"), "b.wav: It holds no sound"),
        (MemoryError(), "b.wav: The memory does not suffice"),
        (OSError(5, "Input/output error"), "b.wav: Reading failed (Input/output error)"),
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_one_bad_file_does_not_stop_the_rest(
    tmp_path: Path, failure: Exception, told: str, late: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = FakeTranscription([spoken(0.0, "今"), failure]) if late else failure
    engine = FakeEngine(scripts={"b.wav": bad})
    paths = touch(tmp_path, "a.wav", "b.wav", "c.wav")
    assert transcribe(engine, *paths, "--output", str(tmp_path / "out")) == 2
    assert sorted(os.listdir(tmp_path / "out")) == ["a.txt", "c.txt"]
    err = capsys.readouterr().err
    assert told in err and "what to do:" in err and "Traceback" not in err
    assert f"2 done, 1 failed: {paths[1]}" in err


def test_a_bug_costs_one_file_and_shows_its_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = FakeEngine(scripts={"a.wav": ZeroDivisionError("oops")})
    assert transcribe(engine, *touch(tmp_path, "a.wav", "b.wav")) == 2
    told = capsys.readouterr()
    assert "internal error (ZeroDivisionError)" in told.err and "Traceback" in told.err
    assert TEXT in told.out


def test_missing_inputs_fail_and_the_others_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch(tmp_path, "a.wav", "empty/notes.txt")
    missing, empty = str(tmp_path / "none.wav"), str(tmp_path / "empty")
    assert transcribe(FakeEngine(), missing, str(tmp_path / "a.wav"), empty) == 2
    told = capsys.readouterr()
    assert told.out == TEXT
    assert f"There is no file {missing}" in told.err and f"{empty} holds no audio" in told.err


def test_without_any_file_no_model_is_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = FakeEngine()
    assert transcribe(engine, str(tmp_path / "none.wav")) == 2
    assert engine.options is None and "There is no file" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["text", "json"])
def test_silence_is_success(tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    engine = FakeEngine(default=FakeTranscription([]))
    assert transcribe(engine, *touch(tmp_path, "a.wav"), "--format", form) == 0
    told = capsys.readouterr()
    assert "no speech found" in told.err
    assert told.out == "" if form == "text" else json.loads(told.out)["text"] == ""


def test_a_lost_standard_output_stops_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = FakeEngine()
    paths = touch(tmp_path, "a.wav", "b.wav")
    with open("/dev/full", "w") as full, monkeypatch.context() as patch:
        patch.setattr("sys.stdout", full)
        assert transcribe(engine, *paths) == 2
    assert len(engine.asked) == 1 and engine.closed
    assert "No space left" in capsys.readouterr().err


def test_hot_words_reach_the_engine_and_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = FakeEngine()
    assert (
        transcribe(engine, *touch(tmp_path, "a.wav"), "--hotwords", "张三 20", "--hotwords", "New York\n龘")
        == 0
    )
    hotwords = engine.asked[0][1]
    assert hotwords is not None and hotwords.used == ("张三", "New York")
    err = capsys.readouterr().err
    assert "hot word not used: 龘" in err and "weights were ignored" in err


def test_many_unusable_hot_words_are_summed_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ",".join("甲乙丙丁戊己庚辛壬癸子丑")
    engine = FakeEngine()
    assert transcribe(engine, *touch(tmp_path, "a.wav"), "--hotwords", words) == 0
    err = capsys.readouterr().err
    assert err.count("hot word not used") == 10 and "2 more" in err and "without" in err
    assert engine.asked[0][1] is None


@pytest.mark.parametrize("off", ["off", "OFF", ""])
def test_off_does_not_load_the_hot_word_part(tmp_path: Path, off: str) -> None:
    engine = FakeEngine()
    assert transcribe(engine, *touch(tmp_path, "a.wav"), "--hotwords", off) == 0
    assert engine.options is not None and engine.options.hotwords is False
    assert engine.asked[0][1] is None


def test_hot_words_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = FakeEngine()
    wav = touch(tmp_path, "a.wav")
    (tmp_path / "names.txt").write_text("张三\n", encoding="utf-8")
    assert transcribe(engine, *wav, "--hotwords", f"@{tmp_path}/names.txt") == 0
    assert engine.asked[0][1] is not None and engine.asked[0][1].used == ("张三",)
    assert transcribe(engine, *wav, "--hotwords", f"@{tmp_path}/none.txt") == 1
    assert "none.txt cannot be read" in capsys.readouterr().err


def test_the_demo_model_is_introduced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe", *touch(tmp_path, "a.wav")], engine_factory=FakeEngine().factory) == 0
    assert "closed vocabulary" in capsys.readouterr().err


def test_damage_that_was_worked_around_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = FakeTranscription(
        [spoken(0.0, "今", "天")], notes=["3 damaged packets of 'a.mp3' were skipped"]
    )
    assert transcribe(FakeEngine(default=damaged), *touch(tmp_path, "a.wav")) == 0
    assert "warning: 3 damaged packets of 'a.mp3' were skipped." in capsys.readouterr().err

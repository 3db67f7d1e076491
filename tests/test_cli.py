"""The command line as a whole: options, exit codes, what goes to which stream."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from app.asr.engine import EngineOptions
from app.asr.errors import PackError, SourceError
from app.cli import main
from tests.fakes.engine import FakeEngine, FakeTranscription, spoken

ROOT = Path(__file__).parents[1]


@pytest.fixture
def wav(tmp_path: Path) -> str:
    (tmp_path / "a.wav").touch()
    return str(tmp_path / "a.wav")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["transcribe"],
        ["transcribe", "a.wav", "--format", "doc"],
        ["transcribe", "a.wav", "--precision", "fp8"],
        ["transcribe", "a.wav", "--threads", "0"],
        ["transcribe", "a.wav", "--batch-size", "many"],
        ["transcribe", "a.wav", "--segment-seconds", "4.9"],
        ["transcribe", "a.wav", "--segment-seconds", "121"],
        ["transcribe", "a.wav", "--segment-seconds", "nan"],
        ["transcribe", "a.wav", "--hot", "x"],
        ["transcribe", ""],
        ["pack", "model", "--output", "out"],
        ["pack", "model", "--precision", "auto", "--output", "out"],
    ],
)
def test_wrong_usage_is_1(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    engine = FakeEngine()
    assert main(arguments, engine_factory=engine.factory) == 1
    told = capsys.readouterr()
    assert told.out == "" and "usage error" in told.err and "--help" in told.err
    assert engine.options is None


@pytest.mark.parametrize(
    "arguments", [["--help"], ["transcribe", "--help"], ["pack", "-h"], ["doctor", "-h"]]
)
def test_help_is_0(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    assert "usage: python -m app" in capsys.readouterr().out


def test_options_reach_the_engine(wav: str) -> None:
    engine = FakeEngine()
    given = ["--model", "large", "--precision", "fp32", "--threads", "3", "--batch-size", "4"]
    given += ["--segment-seconds", "20", "--hotwords", "张三", "--device", "cuda:1", "--vram-limit", "1.5GiB"]
    given += ["--punctuation", "off"]
    assert main(["transcribe", wav, *given], engine_factory=engine.factory) == 0
    assert engine.options == EngineOptions(
        "large", "fp32", threads=3, segment_seconds=20.0, batch_size=4, device="cuda:1", vram_limit=3 << 29
    )
    assert engine.closed


def test_defaults(wav: str) -> None:
    engine = FakeEngine()
    assert main(["transcribe", wav], engine_factory=engine.factory) == 0
    assert engine.options == EngineOptions(hotwords=False, punctuation="auto")


def test_a_model_that_cannot_be_loaded_is_2(wav: str, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(options: EngineOptions) -> FakeEngine:
        raise PackError("The pack x is damaged", fix="Fetch it again")

    assert main(["transcribe", wav], engine_factory=refuse) == 2
    assert "error: The pack x is damaged.\n  what to do: Fetch it again" in capsys.readouterr().err


def interrupt() -> None:
    raise KeyboardInterrupt


def break_pipe() -> None:
    raise BrokenPipeError


@pytest.mark.parametrize(("event", "code"), [(interrupt, 130), (break_pipe, 141)])
def test_leaving_early_is_quiet(
    wav: str, event: Callable[[], None], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = FakeEngine(default=FakeTranscription([spoken(0.0, "今"), event, spoken(1.0, "天")]))
    assert main(["transcribe", wav, "--model", "m"], engine_factory=engine.factory) == code
    told = capsys.readouterr()
    assert told.out == "今\n" and told.err.strip() == ""
    assert engine.closed


def test_pack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[tuple[str, Path, str]] = []

    def pack_model(source: str, output: Path, precision: str, progress: Callable[[str], None]) -> Path:
        asked.append((source, output, precision))
        progress("exporting")
        return output / "x"

    arguments = ["pack", "owner/model", "--output", str(tmp_path), "--precision", "int8"]
    assert main(arguments, pack_model=pack_model) == 0
    assert asked == [("owner/model", tmp_path, "int8")]
    told = capsys.readouterr()
    assert told.out == "" and "exporting" in told.err and str(tmp_path / "x") in told.err


def test_a_source_that_cannot_be_packed_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    def pack_model(source: str, output: Path, precision: str, progress: Callable[[str], None]) -> Path:
        raise SourceError("No model.pt in x", fix="Give a FunASR directory")

    assert main(["pack", "x", "--output", "y", "--precision", "fp32"], pack_model=pack_model) == 2
    assert "No model.pt in x" in capsys.readouterr().err


def run(*arguments: str, stdout: int | BinaryIO, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        cwd=ROOT,
        timeout=60,
        check=False,
        stdout=stdout,
        stderr=subprocess.PIPE,
    )


def test_as_a_process_it_needs_no_numerical_library_for_help() -> None:
    code = (
        "import sys, app.cli; code = app.cli.main(['--help']);"
        "heavy = {'torch', 'onnxruntime', 'av', 'funasr', 'kaldi_native_fbank'} & set(sys.modules);"
        "sys.exit(code or (', '.join(heavy) if heavy else 0))"
    )
    assert run("-c", code, stdout=subprocess.DEVNULL).returncode == 0


def test_a_closed_pipe_is_quiet_to_the_very_end() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = run("-m", "app", "doctor", "--json", stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_full_disk_behind_a_redirection_is_told_once() -> None:
    with open("/dev/full", "wb") as full:
        done = run("-m", "app", "doctor", stdout=full)
    assert done.returncode == 2
    assert done.stderr.count(b"No space left") == 1 and b"Exception" not in done.stderr


def test_a_terminal_without_chinese_stops_nothing() -> None:
    code = (
        "import sys; from app.cli import main; from app.console import emit;"
        "main(['doctor']); emit('你'); sys.stderr.write('ok')"
    )
    done = run("-c", code, stdout=subprocess.PIPE, PYTHONIOENCODING="ascii")
    assert done.stdout.endswith(b"\\u4f60") and done.stderr == b"ok"

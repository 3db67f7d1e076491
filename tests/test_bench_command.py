"""Tests of app/bench_command.py: the order of runs, exit codes, what is written when, and one table measured."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from app.asr.errors import InputError, OutputError
from app.bench.measure import Run
from app.bench_command import bench, declare
from app.cli import main
from tests.support.matrix import bad, good

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "app/demo/recordings/golden.wav"
FILES = {"matrix.md", "matrix.json", "matrix.svg"}


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    (tmp_path / "talk.wav").touch()
    return tmp_path / "talk.wav"


def parsed(wav: Path, *more: str) -> Namespace:
    parser = ArgumentParser()
    declare(parser, path=Path, count=int)
    return parser.parse_args(["--matrix", str(wav), "--output", str(wav.parent / "out"), *more])


class Runner:
    """Answers as told and remembers what it was asked for."""

    def __init__(self, answer: Callable[[str], Run] = lambda _: good()) -> None:
        self.answer = answer
        self.asked: list[str] = []

    def __call__(self, command: Sequence[str]) -> Run:
        self.asked.append(" ".join(command[5:-1]))
        return self.answer(self.asked[-1])


def written(wav: Path) -> set[str]:
    return {path.name for path in (wav.parent / "out").iterdir()}


def test_settings_take_turns_after_a_run_that_does_not_count(
    wav: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runner = Runner()
    assert bench(parsed(wav, "--only", "fp16,batch-4,cpu", "--rounds", "2"), runner) == 0
    turn = ["cpu", "4", "fp16"]
    assert [asked.split()[-1] for asked in runner.asked] == ["cpu", *turn, *turn]
    assert written(wav) == FILES
    told = capsys.readouterr()
    assert "run 6 of 6: FP16: 6.00 s per minute, 100 MiB" in told.err
    assert told.out.splitlines()[2].startswith("setting") and "CPU" in told.out
    data = json.loads((wav.parent / "out/matrix.json").read_text(encoding="utf-8"))
    assert [len(runs) for runs in data["runs"].values()] == [2, 2, 2]


def test_what_is_refused_is_asked_once_and_is_no_failure(
    wav: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runner = Runner(lambda asked: bad() if "fp32" in asked else good())
    assert bench(parsed(wav, "--only", "default,fp32", "--rounds", "3"), runner) == 0
    assert sum("fp32" in asked for asked in runner.asked) == 1
    assert "FP32: The model demo has no fp32 pack" in capsys.readouterr().out


def test_what_fails_is_tried_in_every_round(wav: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runner = Runner(lambda asked: bad(-9, "ended by SIGKILL") if "batch" in asked else good())
    assert bench(parsed(wav, "--only", "default,batch-4", "--rounds", "3"), runner) == 0
    assert sum("batch" in asked for asked in runner.asked) == 3
    assert "no: 3 of 3 runs failed" in capsys.readouterr().out


def test_when_nothing_can_be_measured_nothing_is_written(
    wav: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runner = Runner(lambda _: bad(2, "There is no model pack at x"))
    assert bench(parsed(wav, "--rounds", "3"), runner) == 2
    assert len(runner.asked) == 11 and written(wav) == set()
    told = capsys.readouterr()
    assert told.out == "" and "no model pack" in told.err and "what to do" in told.err


def test_words_that_are_refused_are_wrong_usage(wav: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runner = Runner(lambda _: bad(1, "The hot-word file x cannot be read"))
    assert bench(parsed(wav, "--hotwords", "@x"), runner) == 1
    assert len(runner.asked) == 1 and "The hot-word file x" in capsys.readouterr().err


def test_a_crash_is_not_blamed_on_the_user(wav: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runner = Runner(lambda _: bad(1, "ImportError: no numpy", told=False))
    assert bench(parsed(wav, "--only", "default,cpu"), runner) == 2
    told = capsys.readouterr().err
    assert "failed: ImportError: no numpy" in told and "usage error" not in told


def test_an_interrupted_table_is_not_written(wav: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def answer(asked: str) -> Run:
        if "fp16" in asked:
            raise KeyboardInterrupt
        return good()

    with pytest.raises(KeyboardInterrupt):
        bench(parsed(wav, "--only", "default,fp16"), Runner(answer))
    told = capsys.readouterr()
    assert told.out == "" and "no table was made" in told.err
    assert written(wav) == set()


def test_hot_words_model_and_threads_reach_every_run(wav: Path) -> None:
    runner = Runner()
    more = ["--hotwords", "张三", "--hotwords", "李四", "--model", "large", "--threads", "1"]
    assert bench(parsed(wav, "--only", "default,hot-words-off", "--rounds", "1", *more), runner) == 0
    shared = "--model=large --threads=1"
    on, off = f"{shared} --hotwords=张三 --hotwords=李四", f"{shared} --hotwords=off"
    assert runner.asked == [on, on, off]


def test_files_may_have_another_name(wav: Path) -> None:
    assert bench(parsed(wav, "--only", "default", "--name", "matrix-demo"), Runner()) == 0
    assert written(wav) == {"matrix-demo.md", "matrix-demo.json", "matrix-demo.svg"}
    assert "](matrix-demo.svg)" in (wav.parent / "out/matrix-demo.md").read_text(encoding="utf-8")


def test_the_table_is_shown_even_when_it_cannot_be_written(
    wav: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (wav.parent / "out/matrix.json").mkdir(parents=True)
    with pytest.raises(OutputError):
        bench(parsed(wav, "--only", "default"), Runner())
    assert "setting" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["missing.wav", "", "."])
def test_recordings_that_cannot_be_used(name: str, wav: Path) -> None:
    with pytest.raises(InputError):
        bench(parsed(wav, "--matrix", str(wav.parent / name)), Runner())
    assert not (wav.parent / "out").exists()


def test_special_files_are_refused(wav: Path) -> None:
    with pytest.raises(InputError, match="not a plain file"):
        bench(parsed(wav, "--matrix", "/dev/null"), Runner())


def test_an_output_that_is_no_directory_is_refused_before_any_run(wav: Path) -> None:
    runner = Runner()
    with pytest.raises(OutputError):
        bench(parsed(wav, "--output", str(wav)), runner)
    assert not runner.asked


@pytest.mark.parametrize(
    "more",
    [
        ["--hotwords", "off"],
        ["--only", "gpu"],
        ["--only", ""],
        ["--rounds", "0"],
        ["--threads", "x"],
        ["--name", "../x"],
        ["--matrix", ""],
    ],
)
def test_wrong_usage_is_1(more: list[str], wav: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--matrix", str(wav), *more]) == 1
    told = capsys.readouterr()
    assert told.out == "" and "usage error" in told.err and "what to do" in told.err


def test_the_recording_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench"]) == 1
    assert "--matrix" in capsys.readouterr().err


def test_a_missing_recording_is_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--matrix", str(tmp_path / "x.wav"), "--output", str(tmp_path)]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_a_table_of_the_demo_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole way, with real processes; the demo model ships without an fp32 pack."""
    arguments = [
        "--only",
        "default,hot-words-off,fp32",
        "--rounds",
        "1",
        "--threads",
        "1",
        "--output",
        str(tmp_path),
    ]
    assert main(["bench", "--matrix", str(GOLDEN), *arguments]) == 0
    data = json.loads((tmp_path / "matrix.json").read_text(encoding="utf-8"))
    default, plain, fp32 = data["rows"]
    assert (default["verdict"], plain["verdict"], fp32["verdict"]) == ("measured", "measured", "impossible")
    assert (default["hotwords"], plain["hotwords"], default["changed"], plain["changed"]) == (6, 0, 0, 0)
    assert default["characters"] == 12 and "fp32" in fp32["reason"]
    assert default["peak_bytes"] > 20 << 20 and 0 < default["seconds_per_minute"] < 600
    kernel, told = (data["runs"]["default"][0][name] for name in ("kernel_peak_bytes", "result"))
    if kernel is not None:  # a test run holds more memory than the demo model needs
        assert kernel == pytest.approx(told["peak_rss_bytes"], rel=0.1)
    assert "not possible here" in capsys.readouterr().out


def test_ctrl_c_ends_the_whole_family(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "app", "bench", "--matrix", str(GOLDEN), "--output", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [*command, "--rounds", "1000"], env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None and "not counted" in process.stderr.readline()
        time.sleep(0.1)  # into the next run
        process.send_signal(signal.SIGINT)
        told = process.stderr.read()  # ends when the last of the family has closed it
        assert process.wait() == 130
    assert "no table was made" in told and "Traceback" not in told
    assert not list(tmp_path.iterdir())

"""The page of the punctuation benchmark, from runs that never ran."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts.bench import punctuation
from scripts.bench.measure import MARK, BenchError, Finished
from scripts.bench.punctuation import AUTOMODEL, MAPPED, PROGRAMS, Run, agreement, table

MACHINE = {"date": "2026-01-01", "processor": "Toy", "cores": 2, "load_average_at_start": 0.5}


def run_of(program: str, cpu: float, **more: float) -> Run:
    figures = {"seconds": cpu, "before": 30.0, "anonymous": 20.0, "mapped": 40.0, "peak": 90.0, **more}
    return Run(program=program, tokens=1000, load_seconds=0.5, cpu_seconds=cpu, **figures)


def test_the_page_has_a_row_a_program_and_says_what_it_adds() -> None:
    runs = [
        run_of(AUTOMODEL, 1.0),
        run_of(PROGRAMS[0], 0.2, agree=0.99),
        run_of(PROGRAMS[0], 0.4, agree=0.99, anonymous=25.0),
        run_of(PROGRAMS[1], 0.5, agree=1.0),
        run_of(MAPPED, 0.5, agree=0.1, mapped=300.0),
    ]
    page = table(runs, MACHINE, "full")
    assert page.count("\n| 1000 |") == 4
    assert "| ours, int8 | 0.50 | 0.300 | 0.300 | 99.00 % | 25 | 40 | 90 |" in page
    assert f"| {MAPPED} | 0.50 | 0.500 | 0.500 | - | 20 | 300 | 90 |" in page
    assert "0.30 of AutoModel's processor time, in fp32 0.50" in page
    assert "holds 30 MiB" in page and "35 MiB, the library" in page


def test_a_program_that_never_ran_is_an_error() -> None:
    with pytest.raises(BenchError, match="ours, fp32 was not run"):
        table([run_of(AUTOMODEL, 1.0), run_of(PROGRAMS[0], 0.2)], MACHINE, "full")


def test_agreement_is_counted_mark_by_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(punctuation, "WORK", tmp_path)
    target = tmp_path / "tiny-4-int8.json"
    target.write_text(json.dumps(["", "，", "", "。"]), encoding="utf-8")
    assert agreement("tiny", 4, target) is None
    reference = tmp_path / "tiny-4-automodel.json"
    reference.write_text(json.dumps(["", "，", "，", "。"]), encoding="utf-8")
    assert agreement("tiny", 4, target) == 0.75
    reference.write_text(json.dumps([""]), encoding="utf-8")
    with pytest.raises(BenchError, match="4 marks, AutoModel gave 1"):
        agreement("tiny", 4, target)


class FakePrograms:
    """Stands for the processes of the benchmark: makes the files they would, and tells made-up figures."""

    def __init__(self) -> None:
        self.commands: list[str] = []

    def run(self, command: list[str | Path], timeout: float = 0.0) -> Finished:
        words = [str(word) for word in command]
        self.commands.append(" ".join(words))
        if "scripts.random_punctuation" in words:
            checkpoint = Path(words[3])
            checkpoint.mkdir()
            (checkpoint / "model.pt").touch()
            (checkpoint / "tokens.json").write_text(json.dumps(["<unk>", "天", "地", "a"]), encoding="utf-8")
        elif "pack" in words:
            Path(words[words.index("--output") + 1]).mkdir()
        else:
            target = next(Path(word) for word in words if word.endswith(".json"))
            target.write_text(json.dumps(["", "，"]), encoding="utf-8")
        figures = {"seconds": 1.0, "cpu": 0.5, "rss": 30.0, "anonymous": 20.0, "mapped": 40.0, "words": 2}
        told = [
            (0.1, f"{MARK}{json.dumps({'event': name} | figures)}") for name in ("started", "loaded", "done")
        ]
        return Finished(tuple(told), 2.0, 90 << 20)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakePrograms:
    fake = FakePrograms()
    monkeypatch.setattr(punctuation, "run", fake.run)
    monkeypatch.setattr(punctuation, "WORK", tmp_path / "work")
    return fake


def test_programs_take_turns_on_what_is_made_once(programs: FakePrograms, tmp_path: Path) -> None:
    assert punctuation.main(["--quick", "--tokens", "40,80", "--rounds", "2"]) == 0
    raw = json.loads((tmp_path / "work" / "quick" / "punctuation.json").read_text(encoding="utf-8"))
    turn = [AUTOMODEL, *PROGRAMS[:2], MAPPED]
    assert [one["program"] for one in raw["runs"]] == turn * 4
    assert [one["agree"] for one in raw["runs"][:2]] == [None, 1.0]
    assert (
        (tmp_path / "work" / "quick" / "punctuation.md")
        .read_text(encoding="utf-8")
        .startswith("# Punctuation")
    )
    made = [words for words in programs.commands if "random_punctuation" in words or "app pack" in words]
    assert len(made) == 3
    before = len(programs.commands)
    assert punctuation.main(["--quick", "--tokens", "40"]) == 0
    assert len(programs.commands) - before == len(turn), "nothing is made again"


def test_a_program_that_fails_ends_it_with_what_it_said(
    programs: FakePrograms,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    def fail(*_: object, **__: object) -> Finished:
        raise BenchError("it ended with 1")

    monkeypatch.setattr(punctuation, "run", fail)
    assert punctuation.main(["--quick"]) == 1
    assert "it ended with 1" in capsys.readouterr().err
    assert not (tmp_path / "work" / "quick").exists()

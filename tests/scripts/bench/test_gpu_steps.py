"""Tests of the GPU benchmark's steps, materials and order: what a failure becomes, what stays of earlier runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts.bench import gpu, gpu_steps
from scripts.bench.gpu_materials import BATCH_BREAKER, Materials, choose_words, mixed_lengths, spoken
from scripts.bench.gpu_steps import AUTOMODEL, STEPS, Bench, Row, measured, reason_of
from scripts.bench.materials import ROOT
from scripts.bench.measure import BenchError
from scripts.bench.small_card import GIB, LARGEST_CONTEXT_BYTES, allocator_bytes
from tests.scripts.bench.test_gpu_report import DATA, MACHINE


def bench(folder: Path, left: float = 100.0) -> Bench:
    return Bench(Materials(folder, "tiny"), "cpu", lambda: left, folder / "cache", factor=1 / 180)


def test_speech_lies_where_its_spans_say() -> None:
    speech = np.arange(1, 16_001, dtype=np.int16)
    samples, spans = spoken(speech, [0.5, 2.0], seed=3)
    for begin, end in spans:
        assert samples[begin * 16 : end * 16].min() > 0, "silence inside"
        assert not samples[end * 16 + 16 : end * 16 + 160].any(), "speech outside"
    assert [end - begin for begin, end in spans] == [500, 2000]


def test_mixed_lengths_fill_the_time_and_are_the_same_every_time() -> None:
    lengths = mixed_lengths(3600)
    assert lengths == mixed_lengths(3600)
    assert 3500 < sum(lengths) + 1.1 * len(lengths) < 3650
    assert min(lengths) >= 1.0 - 1e-9 and 15 < max(lengths) <= 25.0
    assert len(BATCH_BREAKER) == 101 and max(BATCH_BREAKER) == 58.0


def test_hot_words_are_different_words_of_the_vocabulary() -> None:
    tokens = ["<blank>", "a@@", *map(chr, range(0x4E00, 0x4E40))]
    words = choose_words(tokens, 1000)
    assert len(set(words)) == 1000
    assert {character for word in words for character in word} <= set(tokens)


def test_a_run_that_fails_becomes_a_row_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise BenchError("python -m app\nended with 2:\nerror: there is no cuda:0\n  what to do: nothing")

    monkeypatch.setattr(gpu_steps, "run", fail)
    Path(tmp_path / "tokens").touch()
    row = measured(bench(tmp_path), Row("lengths", "ours fp16", "10 s"))
    assert row.failed == "error: there is no cuda:0" and row.seconds is None


def test_without_time_nothing_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_steps, "run", lambda *_, **__: pytest.fail("it was started"))
    row = measured(bench(tmp_path, left=0.5), Row("lengths", AUTOMODEL, "10 s"))
    assert "time was up" in row.failed


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("a b\nended with 124:\nnoise", "took longer than the time that was left"),
        (
            "x\nended with 1:\nTraceback\ntorch.OutOfMemoryError: CUDA out of memory.\n",
            "torch.OutOfMemoryError: CUDA out of memory.",
        ),
        (f"FileNotFoundError: {ROOT}/build/x", "FileNotFoundError: build/x"),
        ("", "BenchError"),
        ("error: " + "long " * 100, ("error: " + "long " * 100)[:199] + "…"),
    ],
)
def test_the_telling_line_of_a_failure(said: str, reason: str) -> None:
    assert reason_of(BenchError(said)) == reason


def test_a_step_that_breaks_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Bench) -> Any:
        yield Row("mixed", "ours fp16", "1 h", seconds=1.0)
        raise ZeroDivisionError("by zero")

    monkeypatch.setitem(STEPS, "mixed", broken)
    rows = list(gpu.carried_out("mixed", bench(tmp_path)))
    assert [row.failed for row in rows] == ["", "by zero"]


def test_results_are_written_whole_and_found_again(tmp_path: Path) -> None:
    rows = [
        Row("mixed", "ours fp16", "1 h", seconds=1.0, facts={"words": 3}),
        Row("ready", "ours fp16", "10 s"),
    ]
    gpu.write(tmp_path, DATA, rows)
    assert {path.name for path in tmp_path.iterdir()} == {"gpu.json", "gpu.md"}
    found = gpu.earlier(tmp_path / "gpu.json", MACHINE, str(DATA["model"]))
    assert found == [rows[1], rows[0]], "in the order of the steps"


def test_results_of_another_device_or_model_are_not_mixed_in(tmp_path: Path) -> None:
    gpu.write(tmp_path, DATA, [Row("mixed", "ours fp16", "1 h")])
    other = MACHINE | {"device": MACHINE["device"] | {"name": "Another GPU"}}
    assert gpu.earlier(tmp_path / "gpu.json", other, str(DATA["model"])) == []
    assert gpu.earlier(tmp_path / "gpu.json", MACHINE, "other weights") == []
    (tmp_path / "gpu.json").write_text("{", encoding="utf-8")
    assert gpu.earlier(tmp_path / "gpu.json", MACHINE, str(DATA["model"])) == []


def test_steps_are_chosen_by_name_and_kept_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.parse(["--only", "mixed, ready"]).only == ["ready", "mixed"]
    with pytest.raises(SystemExit):
        gpu.parse(["--only", "everything"])
    assert "hotwords" in capsys.readouterr().err


def test_a_rehearsal_never_writes_where_results_are_kept() -> None:
    assert "build" in gpu.parse(["--rehearse"]).output.parts
    assert gpu.parse(["--rehearse"]).device == "cpu"
    assert gpu.parse([]).output.name == "benchmarks"


def test_without_cuda_it_stops_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "_ASK", "import sys; sys.exit('torch 2 sees no CUDA device')")
    assert gpu.main([]) == 1
    assert "sees no CUDA device. With --rehearse" in capsys.readouterr().err


def test_a_small_card_leaves_what_the_context_does_not_take() -> None:
    total = 140 * GIB
    assert allocator_bytes(2 * GIB, total - (500 << 20), total) == 2 * GIB - (500 << 20)
    assert allocator_bytes(2 * GIB, 0, total) == 2 * GIB - LARGEST_CONTEXT_BYTES
    assert allocator_bytes(GIB // 4, 0, total) == 0


def test_a_program_on_a_small_card_gets_its_own_arguments(tmp_path: Path) -> None:
    from scripts.bench.measure import run

    (tmp_path / "shown.py").write_text("import sys; print(sys.argv[1:])", encoding="utf-8")
    (tmp_path / "torch.py").write_text("class cuda: mem_get_info = None", encoding="utf-8")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from scripts.bench import small_card;"
        "small_card.main(['2', '--unannounced', '-m', 'shown', '--model', 'x'])"
    )
    assert json.loads(run([sys.executable, "-c", code]).text.replace("'", '"')) == ["--model", "x"]

"""Tests of scripts/bench/gpu_report.py: medians, ratios, goals, and failures that are told."""

from __future__ import annotations

from typing import Any

from scripts.bench.gpu_report import MIB, goals, merge_rounds, page
from scripts.bench.gpu_steps import AUTOMODEL, Row

MACHINE: dict[str, Any] = {
    "date": "2026-01-02",
    "processor": "Test CPU",
    "cores": 2,
    "memory_gib": 16.0,
    "packages": {"ours": {"torch": "2.11.0"}},
    "device": {"name": "Test GPU", "driver": "580.1", "CUDA": "13.0"},
}
DATA = {"machine": MACHINE, "model": "some weights", "rehearsal": False}


def row(program: str, seconds: float, step: str = "mixed", **more: Any) -> Row:
    settings: dict[str, Any] = {"hotwords": 100, "audio_seconds": 3600.0, "load_seconds": 2.0} | more
    return Row(step, program, settings.pop("case", "1 h"), seconds=seconds, **settings)


def grid(held: int, *pairs: tuple[int, int]) -> Row:
    shapes = [
        {"rows": 1, "frames": 100, "hotwords": 0, "predicted_bytes": foretold, "measured_bytes": taken}
        for foretold, taken in pairs
    ]
    facts = {"held_bytes": held, "ready_seconds": 1.0, "self_check": None, "shapes": shapes}
    return Row("memory", "ours fp16", "grid", facts=facts)


def reached(rows: list[Row], goal: str) -> str:
    [line] = [line for line in goals(rows) if goal in line]
    return line.strip("|").split("|")[-1].strip()


def test_rounds_become_the_median_and_the_highest_memory() -> None:
    rows = [row("ours fp16", seconds, peak_bytes=peak) for seconds, peak in ((1.0, 5), (9.0, 7), (2.0, 6))]
    [merged] = merge_rounds(rows)
    assert (merged.seconds, merged.peak_bytes) == (2.0, 7)


def test_a_round_that_failed_does_not_spoil_the_others() -> None:
    failed = Row("mixed", "ours fp16", "1 h", hotwords=100, failed="no luck")
    assert merge_rounds([failed, row("ours fp16", 3.0)])[0].seconds == 3.0
    assert merge_rounds([failed, failed])[0].failed == "no luck"


def test_throughput_is_compared_with_automodel_on_the_same_recording() -> None:
    rows = [row("ours fp16", 4.0), row(AUTOMODEL, 30.0), row(AUTOMODEL, 1.0, case="10 s", step="lengths")]
    assert reached(rows, "5 times AutoModel") == "7.50"
    [line] = [line for line in page(DATA, rows).splitlines() if line.startswith("| 1 h | 100 | ours")]
    assert line.split("|")[4].strip() == "900.0" and line.split("|")[5].strip() == "7.50"


def test_memory_goals() -> None:
    rows = [grid(500 * MIB, (95 * MIB, 100 * MIB), (140 * MIB, 100 * MIB))]
    rows += [
        row("ours fp16", 1.0, peak_bytes=590 * MIB),
        row("ours fp16", 1.0, case="3 h", peak_bytes=610 * MIB),
    ]
    assert reached(rows, "128 MiB above the weights") == "110 MiB above"
    assert reached(rows, "foretold within 10 %") == "worst 6.7%"


def test_hot_words_are_compared_within_their_own_step() -> None:
    rows = [row("ours fp16", 50.0)]
    rows += [
        row("ours fp16", seconds, step="hotwords", hotwords=count, peak_bytes=peak * MIB)
        for count, seconds, peak in ((0, 10.0, 600), (100, 10.2, 609))
    ]
    assert reached(rows, "1.03 of the time") == "1.020"
    assert reached(rows, "16 MiB more") == "9 MiB"


def test_each_batch_stands_beside_what_was_foretold_for_it() -> None:
    measured = grid(500 * MIB, (110 * MIB, 100 * MIB))
    measured.facts["self_check"] = {"reason": "the golden clip is right", "seconds": 0.25}
    measured.facts["shapes"].append(
        {"rows": 9, "frames": 100, "hotwords": 0, "predicted_bytes": 900 * MIB, "failed": "out of memory"}
    )
    text = page(DATA, [measured, Row("memory", "ours fp32", "grid", failed="no pack")])
    assert "| 1 | 100 | 0 | 110 | 100 | +1.7% | +10.0% |" in text
    assert "| 9 | 100 | 0 | 900 | out of memory | | |" in text
    assert "500 MiB held with the weights" in text and "the golden clip is right (0.25 s)" in text
    assert "ours fp32: no pack" in text


def test_a_small_card_that_failed_is_told() -> None:
    good = row("ours fp16", 1.0, step="small", case="300 s, 2 GB")
    assert reached([good], "2 GB card") == "yes"
    bad = Row("small", "ours fp32", "300 s, 2 GB", hotwords=100, failed="out of memory")
    assert reached([good, bad], "2 GB card") == "ours fp32, 300 s, 2 GB: out of memory"


def test_what_has_not_run_leaves_a_dash_and_what_failed_its_reason() -> None:
    assert reached([], "5 times AutoModel") == "-"
    failed = Row("breaker", AUTOMODEL, "100 x 2 s + 58 s", failed="CUDA out of memory")
    assert "CUDA out of memory" in page(DATA, [failed])


def test_a_precision_other_than_asked_for_is_shown() -> None:
    text = page(DATA, [row("ours fp16", 1.0, facts={"precision": "fp16 storage"})])
    assert "ours fp16 (ran in fp16 storage)" in text
    assert "(ran in" not in page(DATA, [row("ours fp16", 1.0, facts={"precision": "fp16"})])


def test_a_rehearsal_says_so_before_any_figure() -> None:
    text = page(DATA | {"rehearsal": True}, [row("ours fp16", 1.0)])
    assert text.index("rehearsal") < text.index("## Goals")
    assert "rehearsal" not in page(DATA, [row("ours fp16", 1.0)])

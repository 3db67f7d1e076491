"""Tests of scripts/bench/scaling.py and floor.py: what is run, what is told, and which products are counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from scripts.bench import scaling
from scripts.bench.floor import Product, hotword_products_of, products_of, seconds_of
from scripts.bench.measure import Finished
from scripts.bench.scaling import Crowd, Plan, Point, make_hotwords, measure, page, settings_of
from tests.scripts.bench.test_report import MACHINE

FLOORS: dict[int, dict[str, Any]] = {
    threads: {
        "int8": {"rtf": 0.01 / threads, "gmacs_per_second": 100.0},
        "fp32": {"rtf": 0.04 / threads},
        "hotwords": {"words": 100, "rtf": 0.002},
    }
    for threads in (2, 1)
}


def test_every_length_runs_on_one_thread_and_on_all() -> None:
    made = settings_of(Plan(lengths=(60, 300), hotwords=(0, 9)), cores=4)
    assert [(point.series, point.seconds, point.threads, point.hotwords) for point in made] == [
        *(("length", 60, 4, 0), ("length", 300, 4, 0), ("length", 60, 1, 0), ("length", 300, 1, 0)),
        *(("hotwords", 300, 1, 0), ("hotwords", 300, 1, 9)),
    ]
    assert len(settings_of(Plan(lengths=(60,), hotwords=(0,)), cores=1)) == 2


def test_medians_of_rounds_and_the_highest_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    given = iter([(0.3, 5), (0.1, 7), (0.2, 6)])
    asked: list[list[str]] = []

    def run(command: list[Any]) -> Finished:
        asked.append([str(word) for word in command])
        rtf, peak = next(given)
        return Finished(((0.0, json.dumps({"rtf": rtf})),), 1.0, peak)

    monkeypatch.setattr(scaling, "run", run)
    monkeypatch.setattr(scaling, "make_audio", lambda folder, seconds: folder / f"{seconds}.wav")
    (found,) = measure([Point("length", 60, 2, 0, 0, 0)], Path("pack"), ["a", "b"], 3)
    assert (found.rtf, found.peak_rss_bytes) == (0.2, 7)
    assert asked[0][-2:] == ["--hotwords", "off"]


def test_long_files_run_once_and_hot_words_come_from_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    lists: list[str] = []

    def run(command: list[Any]) -> Finished:
        lists.append(Path(str(command[-1])[1:]).read_text(encoding="utf-8"))
        return Finished(((0.0, '{"rtf": 0.5}'),), 1.0, 1)

    monkeypatch.setattr(scaling, "run", run)
    monkeypatch.setattr(scaling, "make_audio", lambda folder, seconds: folder / f"{seconds}.wav")
    measure([Point("hotwords", 3600, 2, 2, 0, 0)], Path("pack"), ["甲乙", "丙丁", "戊己"], 3)
    assert lists == ["甲乙\n丙丁"]


def test_hot_words_are_distinct_known_and_always_the_same(tmp_path: Path) -> None:
    tokens = ["<blank>", "a", *(chr(0x4E00 + number) for number in range(30))]
    (tmp_path / "tokens.json").write_text(json.dumps(tokens), encoding="utf-8")
    words = make_hotwords(tmp_path, 200)
    assert len(set(words)) == 200 and words == make_hotwords(tmp_path, 200)
    assert all(2 <= len(word) <= 4 and set(word) <= set(tokens[2:]) for word in words)


def test_the_page_compares_with_a_minute_the_floor_none_and_one_client() -> None:
    lengths = [Point("length", seconds, 2, 0, rtf, 100 << 20) for seconds, rtf in ((60, 0.02), (300, 0.015))]
    words = [
        Point("hotwords", 300, 1, count, rtf, peak << 20)
        for count, rtf, peak in ((0, 0.02, 100), (1, 0.025, 180), (100, 0.03, 190))
    ]
    crowd = [Crowd(1, 70.0, 0.4, 0.5, 0), Crowd(64, 66.5, 25.0, 27.0, 1)]
    text = page(MACHINE, [*lengths, *words], crowd, FLOORS, 3)
    rows = {
        tuple(cell.strip() for cell in line.strip("|").split("|"))
        for line in text.splitlines()
        if line.startswith("| ")
    }
    assert "\n10% of the time without hot words." in text
    assert ("300 s", "2", "0.0150", "0.75", "100", "0.00090") in rows
    assert ("2", "0.0050", "100", "0.0150", "3.0", "0.0200") in rows
    assert ("1", "0.0100", "100", "-", "-", "0.0400") in rows
    assert ("100", "0.0300", "1.50", "1.20", "190", "+90", "+10") in rows
    assert ("64", "66.5", "0.95", "25.00", "27.00", "1") in rows


def graph(folder: Path, name: str, shapes: list[tuple[int, int]]) -> None:
    """A graph with products of activations with weights of these shapes, and one of two activations."""
    weights = [numpy_helper.from_array(np.zeros(shape, np.int8), f"w{n}") for n, shape in enumerate(shapes)]
    nodes = [helper.make_node("MatMulInteger", [f"x{n}", f"w{n}"], [f"y{n}"]) for n in range(len(shapes))]
    nodes.append(helper.make_node("MatMul", ["y0", "y1"], ["z"]))
    inputs = [helper.make_tensor_value_info("x0", TensorProto.UINT8, [1, 1])]
    made = helper.make_graph(nodes, name, inputs, [], weights)
    onnx.save(helper.make_model(made), folder / f"{name}.onnx")


def test_the_products_of_a_pack_are_counted_by_what_goes_through_them(tmp_path: Path) -> None:
    graph(tmp_path, "encoder", [(560, 1536), (512, 512), (512, 512)])
    graph(tmp_path, "decoder", [(512, 1024), (512, 512)])
    assert set(products_of(tmp_path)) == {
        Product(250, 560, 1536, 1),
        Product(250, 512, 512, 2),
        Product(250, 512, 1024, 1),  # keys and values, of frames
        Product(60, 512, 512, 1),  # of tokens
    }
    assert Product(250, 560, 1536, 2).macs == 2 * 250 * 560 * 1536
    graph(tmp_path, "encoder", [])
    graph(tmp_path, "decoder", [])
    with pytest.raises(ValueError, match="Give an int8 pack"):
        products_of(tmp_path)


def test_both_sides_go_through_the_hot_word_branch_and_many_words_are_chosen_first(tmp_path: Path) -> None:
    assert hotword_products_of(tmp_path, 3) == []
    graph(tmp_path, "bias_decoder", [(8, 8), (8, 8), (8, 16)])
    graph(tmp_path, "bias_head", [(8, 90)])
    assert set(hotword_products_of(tmp_path, 3)) == {
        Product(120, 8, 8, 2),
        Product(120, 8, 16, 1),
        Product(60, 8, 90, 1),
    }
    assert set(hotword_products_of(tmp_path, 100)) == {
        *(Product(60, 8, 8, 2), Product(120, 8, 8, 2)),
        *(Product(60, 8, 16, 1), Product(120, 8, 16, 1)),
        Product(60, 8, 90, 1),
    }


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_a_product_is_run_for_real(precision: str) -> None:
    assert 0 < seconds_of(Product(8, 16, 16, 1), precision, 1) < 1

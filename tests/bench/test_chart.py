"""Tests of app/bench/chart.py: the picture is XML, says every row, and its bars are as long as their figures."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from app.bench.chart import as_svg, step
from app.bench.settings import SETTINGS, Setting
from app.bench.summary import Matrix
from tests.support.matrix import MACHINE, bad, good, matrix

SVG = "{http://www.w3.org/2000/svg}"


def drawn(table: Matrix) -> ET.Element:
    return ET.fromstring(as_svg(table))


def texts(picture: ET.Element) -> list[str]:
    return [element.text or "" for element in picture.iter(f"{SVG}text")]


def bars(picture: ET.Element, colour: str) -> list[float]:
    return [float(bar.get("width", "")) for bar in picture.iter(f"{SVG}rect") if bar.get("fill") == colour]


def test_every_row_has_its_name_and_its_figures() -> None:
    picture = drawn(matrix(*[[good(rtf=0.01 * (n + 1), peak=100 + n)] for n in range(len(SETTINGS))]))
    told = texts(picture)
    for number, setting in enumerate(SETTINGS):
        assert setting.label in told and str(100 + number) in told
    assert "0.600" in told and "6.00" in told


def test_bars_are_in_proportion() -> None:
    picture = drawn(matrix([good(rtf=0.1, peak=100)], [good(rtf=0.05, peak=50)], [good(rtf=0.2, peak=25)]))
    assert bars(picture, "#2f6f9f") == [300.0, 150.0, 75.0]
    assert bars(picture, "#3a8a5f") == [150.0, 75.0, 300.0]


def test_the_memory_of_a_gpu_has_its_own_bar() -> None:
    picture = drawn(matrix([good(peak=100, gpu=400)], [good(peak=200)]))
    assert bars(picture, "#d9822b") == [300.0]
    assert bars(picture, "#2f6f9f") == [75.0, 150.0]
    assert "100 / 400" in texts(picture) and any("GPU (orange)" in text for text in texts(picture))


def test_rows_without_figures_say_so() -> None:
    told = texts(drawn(matrix([good(), good("昨天")], [bad()], [bad(-9, "ended by SIGKILL")])))
    assert told.count("not possible here") == 2 and told.count("failed") == 2
    assert any(text.endswith(" unstable") for text in told)


def test_a_table_without_any_figure_is_still_a_picture() -> None:
    assert texts(drawn(matrix([bad()]))).count("not possible here") == 2


def test_the_range_of_several_runs_is_drawn() -> None:
    def dark(*rtfs: float) -> int:
        lines = drawn(matrix([good(rtf=rtf) for rtf in rtfs])).iter(f"{SVG}line")
        return sum(line.get("stroke") == "#1f2933" for line in lines)

    assert dark(0.1, 0.2) == 3 and dark(0.1) == 0 and dark(0.1, 0.1) == 0


@pytest.mark.parametrize(
    "hostile", ["<script>alert(1)</script>", "\"&'>", "\x00\x1b[2J\ud800", "]]>&amp;", "你好 𠮷"]
)
def test_no_text_can_leave_its_place(hostile: str) -> None:
    table = matrix(
        [good()],
        [bad(reason=hostile)],
        settings=(Setting(hostile), Setting("y")),
        source=hostile,
        model=hostile,
        note=hostile,
        machine=MACHINE | {"processor": hostile, "gpus": [hostile]},
    )
    picture = drawn(table)
    kinds = {element.tag.removeprefix(SVG) for element in picture.iter()}
    assert kinds == {"svg", "title", "desc", "rect", "text", "line"}
    clean = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in hostile)
    assert clean in texts(picture)
    assert (
        sum(clean in text for text in texts(picture)) == 3
    )  # its row, the recording's line, the machine's line


def test_long_names_are_cut() -> None:
    assert max(len(text) for text in texts(drawn(matrix([good()], source="x" * 5000)))) <= 110


def test_the_figures_are_told_to_those_who_do_not_see_them() -> None:
    picture = drawn(matrix([good(rtf=0.1, peak=100)], [bad()]))
    told = picture.findtext(f"{SVG}desc") or ""
    assert "default: 100 MiB, 6.00 s for one minute of audio, stable: yes" in told
    assert "hot words off: not possible here" in told
    assert picture.get("role") == "img" and picture.findtext(f"{SVG}title")


@pytest.mark.parametrize(
    ("largest", "expected"),
    [(0.0, 1.0), (4.0, 1.0), (4.1, 2.0), (120.0, 50.0), (0.35, 0.1), (7000.0, 2000.0)],
)
def test_grid_lines_stand_at_round_numbers(largest: float, expected: float) -> None:
    assert step(largest) == pytest.approx(expected)

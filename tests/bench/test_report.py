"""Tests of app/bench/report.py."""

from __future__ import annotations

import json

import pytest

from app.bench.report import as_json, as_markdown, as_text, facts, markdown, seconds
from app.bench.settings import Setting
from tests.support.matrix import MACHINE, bad, good, matrix

HOSTILE = Setting("a|b <i>\n`c`\x1b[2J", ("--x", "1"))


def test_the_text_is_aligned_and_says_why() -> None:
    made = as_text(matrix([good()], [bad()], [bad(-9, "ended by SIGKILL")]))
    lines = made.splitlines()
    assert lines[0] == "talk.wav, 60 s of audio, model demo, one round"
    head, first, second = lines[2:5]
    assert first[head.index("device") :].startswith("cpu")
    assert first[: head.index("s per min") + len("s per min")].endswith("  6.00")
    assert second.startswith("hot words off") and "not possible here" in second
    assert "hot words off: The model demo has no fp32 pack" in made
    assert "CPU: ended by SIGKILL" in made


def test_a_range_needs_two_runs() -> None:
    assert "3.00-6.00" in as_text(matrix([good(rtf=0.1), good(rtf=0.05)]))
    assert "6.00-6.00" not in as_text(matrix([good(rtf=0.1)]))


def test_control_characters_do_not_reach_the_terminal() -> None:
    made = as_text(matrix([good()], settings=(HOSTILE,), source="a\x1b[2Jb.wav"))
    assert "\x1b" not in made and "\\x1b" in made
    assert len(made.splitlines()) == 4


def test_a_markdown_table_keeps_its_shape_whatever_a_setting_is_called() -> None:
    page = as_markdown(
        matrix([good()], [bad(reason="no | pack <b>")], settings=(HOSTILE, Setting("y"))), "m.svg"
    )
    table = [line for line in page.splitlines() if line.startswith("|")]
    assert len(table) == 4
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1
    assert "<i>" not in page.replace("\\<i\\>", "") and "no \\| pack \\<b\\>" in page
    assert "](m.svg)" in page


def test_the_page_names_machine_model_and_settings() -> None:
    page = as_markdown(matrix([good()], [good("今天")], note="random weights"), "m.svg")
    for told in (
        "A processor",
        "random weights",
        "2 granted",
        "`--hotwords off`",
        "2 characters differ",
        "GPU: none",
    ):
        assert told in page, told


def test_the_environments_settings_are_told() -> None:
    changed = MACHINE | {"environment": {"OMP_NUM_THREADS": "1"}, "gpus": ["A card, 6144 MiB, driver 1"]}
    told = facts(matrix([good()], machine=changed))
    assert "Set in the environment: OMP_NUM_THREADS=1" in told and "GPU: A card, 6144 MiB, driver 1" in told
    limited = facts(matrix([good()], machine=MACHINE | {"memory_limit_bytes": 1 << 30}))
    assert any("1.0 GiB of it granted" in line for line in limited)


def test_the_json_has_figures_and_no_words() -> None:
    made = as_json(matrix([good("今天开会", 0.1), good("今天开会", 0.2)], [bad(), bad()]))
    data = json.loads(made)
    assert "今天" not in made
    first, second = data["rows"]
    assert (first["key"], first["stable"], first["time_ratio"], first["changed"]) == ("default", True, 1.0, 0)
    assert first["seconds_per_minute"] == pytest.approx(9.0)
    assert (second["verdict"], second["peak_bytes"], second["hotwords_on"]) == ("impossible", None, False)
    assert [run["result"]["rtf"] for run in data["runs"]["default"]] == [0.1, 0.2]
    assert data["runs"]["default"][0]["result"]["characters"] == 4
    assert data["machine"] == MACHINE


@pytest.mark.parametrize(
    ("value", "told"), [(None, "-"), (0.12345, "0.123"), (1.2345, "1.23"), (123.45, "123.5"), (0.0, "0.000")]
)
def test_seconds(value: float | None, told: str) -> None:
    assert seconds(value) == told


def test_markdown_is_escaped() -> None:
    assert markdown("a_b*[c](d)\n") == "a\\_b\\*\\[c\\](d)\\\\n"

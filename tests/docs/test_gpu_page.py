"""docs/gpu.md says of each card and driver what the picker says of the same facts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
TABLE = json.loads((ROOT / "images" / "variants.json").read_text(encoding="utf-8"))


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading, without its head."""
    lines = [
        line for line in PAGE.split(f"## {heading}\n")[1].split("\n## ")[0].splitlines() if line[:1] == "|"
    ]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@cache
def verdict(facts: str) -> dict[str, Any]:
    command = [sys.executable, "scripts/pick_variant.py", "--facts", f"tests/captures/{facts}.json", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("row", rows("Which card"), ids=lambda row: row[-1].strip("`"))
def test_a_card_runs_what_the_page_says(row: list[str]) -> None:
    card, generation, image, precision, memory, _, facts = row
    found = verdict(facts.strip("`"))
    (instance,) = found["instances"]
    assert (f"`{instance['variant']}`", instance["precision"]) == (image, precision)
    assert str(instance["expected"]["vram_mib"] or "") == memory
    assert found["cards"][0]["generation"] == generation
    name = re.sub(r"^(NVIDIA )?(GeForce |Tesla )?| (GPU|Laptop)\b.*$", "", found["cards"][0]["name"])
    assert name.split("-")[0] in card


@pytest.mark.parametrize("row", rows("Which driver"), ids=lambda row: row[-1].strip("`"))
def test_the_advice_on_drivers_is_the_pickers(row: list[str]) -> None:
    _, advice, facts = row
    driver = verdict(facts.strip("`"))["driver"]
    assert advice.startswith(f"`{driver['action']}`")
    told = re.search(r"branch (\d+)", advice)
    assert told is None or driver["branch"] == int(told[1])


def test_figures_in_sentences_are_the_tables() -> None:
    (used,) = [build for build in TABLE["wheels"] if build["name"] == "cu126"]
    oldest = used["minimum_driver"]
    wanted = f"CUDA {used['cuda']} wants {oldest['linux']} or newer on Linux, {oldest['windows']} under WSL"
    assert wanted in PAGE.replace("\n", " ")
    assert f"batches take {TABLE['memory']['working_mib']} MiB at most" in PAGE
    needs = {variant["needs"]["ram_mib"] for variant in TABLE["variants"] if variant["name"] != "cpu"}
    assert {int(found) for found in re.findall(r"wants (\d+) MiB of the host's memory", PAGE)} == needs
    assert set(re.findall(r"branch (\d+)", PAGE)) == {TABLE["driver"]["branch"]}

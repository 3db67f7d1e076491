"""What bake is told: made of the one table, whole, and in step with the Dockerfile and the program."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from app.service.main import VERSION
from scripts import bake_variants, bundle, up

ROOT = Path(__file__).resolve().parents[2]
HCL = (ROOT / "images" / "docker-bake.hcl").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "images" / "Dockerfile").read_text(encoding="utf-8")
TABLE: dict[str, Any] = json.loads(bake_variants.TABLE.read_text(encoding="utf-8"))


def test_the_bake_file_is_what_the_table_gives() -> None:
    assert bake_variants.main(["--check"]) == 0


def test_a_bake_file_that_is_behind_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "variants.bake.json"
    old.write_text(bake_variants.BAKE.read_text(encoding="utf-8").replace("cu126", "cu118"), encoding="utf-8")
    monkeypatch.setattr(bake_variants, "BAKE", old)
    assert bake_variants.main(["--check"]) == 1
    assert "make variants" in capsys.readouterr().err


@pytest.mark.parametrize("variant", TABLE["variants"], ids=lambda variant: variant["name"])
def test_labels_say_what_a_variant_needs(variant: dict[str, Any]) -> None:
    wheels = {entry["name"]: entry for entry in TABLE["wheels"]}.get(variant["wheels"])
    labels = bake_variants.labels_of(variant, wheels)
    assert labels["seaco-speech.needs.ram-mib"] == str(variant["needs"]["ram_mib"])
    assert labels["seaco-speech.needs.vram-mib"] == str(variant["needs"]["vram_mib"])
    assert ("seaco-speech.needs.driver" in labels) == (wheels is not None)
    if wheels is not None:
        assert labels["seaco-speech.cuda.architectures"].split() == wheels["architectures"]
    assert all(isinstance(value, str) and value for value in labels.values())


def test_the_lowest_capability_is_a_number_not_a_text() -> None:
    assert bake_variants.lowest_capability(["sm_100", "sm_75", "compute_50"]) == "7.5"


def test_every_variant_is_a_target_and_a_stage() -> None:
    for name in [variant["name"] for variant in TABLE["variants"]] + ["toolbox", "exporter"]:
        assert f'target "{name}"' in HCL
        assert re.search(rf"^FROM .* AS {name}$", DOCKERFILE, re.MULTILINE)


def test_images_carry_the_environment_of_the_table() -> None:
    for variant in TABLE["variants"]:
        stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)
        text = "".join(part for part in stages if re.match(rf".* AS (cuda|{variant['name']})\n", part))
        for name, value in variant["environment"].items():
            assert f"{name}={value}" in text, f"{variant['name']} lacks {name}={value}"


def test_there_is_one_version() -> None:
    stated = re.search(
        r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE
    )
    baked = re.search(r'variable "VERSION" \{ default = "([^"]+)" \}', HCL)
    assert baked is not None and stated is not None
    project = stated[1]
    assert {baked[1], project, VERSION, up.DEFAULT_VERSION, bundle.DEFAULT_VERSION} == {project}
    for file in (ROOT / "images").glob("compose*.yaml"):
        assert set(re.findall(r"seaco-speech:(\d+\.\d+\.\d+)-", file.read_text(encoding="utf-8"))) <= {
            project
        }


def test_every_source_is_a_variable_with_the_tables_default() -> None:
    variables = json.loads(bake_variants.BAKE.read_text(encoding="utf-8"))["variable"]
    assert {name: entry["default"] for name, entry in variables.items()} == {
        name: source["default"] for name, source in TABLE["sources"].items()
    }
    base = re.search(r"^ARG BASE_IMAGE=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert base is not None and base[1] == TABLE["sources"]["BASE_IMAGE"]["default"]
    assert "@sha256:" in base[1]


def test_the_dockerfile_needs_no_package_manager_and_no_newer_frontend() -> None:
    code = "\n".join(line for line in DOCKERFILE.splitlines() if not line.startswith("#"))
    assert not re.search(r"\b(apt|apt-get|apk|curl|wget|nvidia/cuda)\b", code)
    assert not DOCKERFILE.startswith("# syntax")
    assert len(re.findall(r"^FROM (?:\$\{BASE_IMAGE\}|[a-z0-9-]+) AS ", code, re.MULTILINE)) == len(
        re.findall(r"^FROM ", code, re.MULTILINE)
    ), "an image from elsewhere"


@pytest.mark.parametrize("stage", ["cpu", "cuda", "toolbox", "exporter"])
def test_what_is_started_is_no_root(stage: str) -> None:
    body = re.split(rf"^FROM .* AS {stage}$", DOCKERFILE, flags=re.MULTILINE)[1].partition("\nFROM ")[0]
    assert "USER 10001:10001" in body

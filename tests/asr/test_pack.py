"""Opening packs: whole ones open, everything else is refused with the file named."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.asr.architecture import Architecture
from app.asr.catalogue import DEMO_PACKS
from app.asr.errors import PackError
from app.asr.pack import MANIFEST, TIMESTAMPS, TOKENS, WEIGHTS, Manifest, Pack, record_of


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DEMO_PACKS / "int8", tmp_path / "pack"))


def _edit(directory: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = directory / MANIFEST
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_shipped_packs_open(precision: str) -> None:
    pack = Pack.open(DEMO_PACKS / precision)
    assert (pack.name, pack.precision) == ("demo", precision)
    assert pack.manifest.architecture.has_hotwords
    assert len(pack.vocabulary) == pack.manifest.architecture.vocabulary_size
    assert pack.frontend.cmvn_shift.shape == (560,)
    assert (
        "".join(pack.vocabulary.tokens[i] for i in pack.manifest.golden.tokens) == pack.manifest.golden.text
    )


def test_manifest_survives_a_round_trip() -> None:
    manifest = Pack.open(DEMO_PACKS / "int8").manifest
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert Architecture.from_json(manifest.architecture.to_json()) == manifest.architecture


@pytest.mark.parametrize("name", [WEIGHTS, TOKENS, TIMESTAMPS])
def test_one_flipped_bit_is_seen(copy: Path, name: str) -> None:
    path = copy / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(PackError, match=rf"{name} is damaged"):
        Pack.open(copy)


def test_truncated_and_missing_files_are_named(copy: Path) -> None:
    weights = copy / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(PackError, match=rf"{WEIGHTS} has \d+ bytes, the manifest says"):
        Pack.open(copy)
    weights.unlink()
    with pytest.raises(PackError, match=rf"{WEIGHTS} is listed in the manifest but is not there"):
        Pack.open(copy)


def test_a_pickle_is_refused_even_with_the_right_checksum(copy: Path) -> None:
    path = copy / WEIGHTS
    path.write_bytes(pickle.dumps({"weights": np.zeros(3)}))
    record = record_of(path)
    _edit(
        copy, lambda data: data["files"].update({WEIGHTS: {"bytes": record.bytes, "sha256": record.sha256}})
    )
    with pytest.raises(PackError, match="is a pickle"):
        Pack.open(copy)


@pytest.mark.parametrize("name", ["../secret.json", "model.pt", "a/b.onnx", "run.py", ".hidden"])
def test_names_outside_the_format_are_refused(copy: Path, name: str) -> None:
    _edit(copy, lambda data: data["files"].update({name: {"bytes": 1, "sha256": "0"}}))
    with pytest.raises(PackError, match="of a kind that packs may not hold"):
        Pack.open(copy)


def test_a_link_is_not_a_file_of_the_pack(copy: Path) -> None:
    (copy / TOKENS).rename(copy.parent / "elsewhere.json")
    (copy / TOKENS).symlink_to(copy.parent / "elsewhere.json")
    with pytest.raises(PackError, match="not there as a plain file"):
        Pack.open(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(format="zip"), "another format"),
        (lambda data: data.update(format_version=99), "format version 99"),
        (lambda data: data.update(precision="int4"), "int4"),
        (lambda data: data["architecture"].update(colour="red"), "colour"),
        (lambda data: data.pop("golden"), "golden"),
        (lambda data: data["files"].pop(WEIGHTS), f"lists no {WEIGHTS}"),
    ],
)
def test_foreign_manifests_are_refused(
    copy: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    _edit(copy, change)
    with pytest.raises(PackError, match=message):
        Pack.open(copy)


@pytest.mark.parametrize("text", ["", "null", "[]", "{", "\x00"])
def test_manifests_that_are_no_objects_are_refused(copy: Path, text: str) -> None:
    (copy / MANIFEST).write_text(text, encoding="utf-8")
    with pytest.raises(PackError, match="is not a manifest"):
        Pack.open(copy)


def test_a_funasr_directory_gets_the_command_that_packs_it(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"x")
    with pytest.raises(PackError, match="python -m app pack"):
        Pack.open(tmp_path)


def test_no_directory_and_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(PackError, match="There is no model pack"):
        Pack.open(tmp_path / "nowhere")
    with pytest.raises(PackError, match=f"holds no {MANIFEST}"):
        Pack.open(tmp_path)


def test_a_frontend_that_is_none_is_refused(copy: Path) -> None:
    pack = Pack.open(copy)
    (copy / "frontend.json").write_text('{"cmvn_shift": [1]}', encoding="utf-8")
    with pytest.raises(PackError, match="does not describe a frontend"):
        _ = pack.frontend

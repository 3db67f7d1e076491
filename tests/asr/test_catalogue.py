"""Names and directories to packs."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.asr.catalogue import DEMO_PACKS, MODELS_VARIABLE, find_pack
from app.asr.errors import PackError
from app.asr.pack import MANIFEST


def _make(directory: Path) -> Path:
    directory.mkdir(parents=True)
    (directory / MANIFEST).write_text("{}", encoding="utf-8")
    return directory


def test_auto_takes_int8_for_the_demo() -> None:
    assert find_pack("demo", "auto") == DEMO_PACKS / "int8"
    assert find_pack("demo", "fp16") == DEMO_PACKS / "fp16"


def test_a_precision_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(PackError, match="no fp32 pack, only fp16, int8"):
        find_pack("demo", "fp32")


def test_a_pack_directory_is_taken_as_it_is(tmp_path: Path) -> None:
    assert find_pack(str(_make(tmp_path / "mine")), "auto") == tmp_path / "mine"


def test_names_are_looked_up_in_the_models_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path))
    _make(tmp_path / "large" / "fp32")
    assert find_pack("large", "auto") == tmp_path / "large" / "fp32"


def test_a_name_never_leads_out_of_the_models_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path / "models"))
    _make(tmp_path / "other")
    assert find_pack("../other", "auto") == Path("../other")

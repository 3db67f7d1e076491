"""Names and directories to packs, and what the catalogue says of each model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from app.asr.catalogue import (
    DEMO_PACKS,
    MODELS_VARIABLE,
    CatalogueEntry,
    entry,
    known_entry,
    listing,
    model_packs,
    on_this_machine,
    pack_plan,
    served_by_funasr,
    source_directory,
    unknown_model,
)
from app.asr.errors import InputError, PackError
from app.asr.pack import MANIFEST


def _make(directory: Path, precision: str = "fp32") -> Path:
    shutil.copytree(DEMO_PACKS / "fp16", directory)
    manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8")) | {"precision": precision}
    (directory / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    return directory


def test_the_demo_has_two_packs() -> None:
    assert model_packs("demo") == {"int8": DEMO_PACKS / "int8", "fp16": DEMO_PACKS / "fp16"}


def test_a_pack_directory_is_taken_as_it_is(tmp_path: Path) -> None:
    assert model_packs(str(_make(tmp_path / "mine"))) == {"fp32": tmp_path / "mine"}


@pytest.mark.parametrize("name", ["seaco-paraformer-large", "paraformer-zh", "SEACO"])
def test_names_and_aliases_are_looked_up_in_the_models_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path))
    with pytest.raises(PackError, match="no pack of seaco-paraformer-large") as raised:
        model_packs(name)
    assert "app pack seaco-paraformer-large" in raised.value.fix
    _make(tmp_path / "seaco-paraformer-large" / "fp32")
    assert model_packs(name) == {"fp32": tmp_path / "seaco-paraformer-large" / "fp32"}


def test_a_name_never_leads_out_of_the_models_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path / "models"))
    _make(tmp_path / "other")
    with pytest.raises(PackError, match="no model pack at"):
        model_packs("../other")


def test_an_unknown_name_is_met_with_those_like_it() -> None:
    with pytest.raises(InputError, match="papaformer") as raised:
        model_packs("papaformer-large")
    assert "Did you mean paraformer-large" in raised.value.fix


def test_which_models_are_left_to_funasr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path))
    (tmp_path / "mine").mkdir()
    for kind, funasr in (("SenseVoiceSmall", True), ("SeacoParaformer", False)):
        (tmp_path / "mine" / "config.yaml").write_text(f"encoder: x\nmodel: {kind}\n", encoding="utf-8")
        assert served_by_funasr("mine") is served_by_funasr(str(tmp_path / "mine")) is funasr
    assert served_by_funasr("whisper-tiny") and served_by_funasr("SenseVoiceSmall")
    assert not served_by_funasr("demo") and not served_by_funasr("paraformer-small")
    assert not served_by_funasr("papaformer")


def test_the_listing_has_every_model_once_and_seaco_first() -> None:
    entries = listing()
    assert entries[0].name == "seaco-paraformer-large" and entries[0].hotwords
    assert {entry.name for entry in entries} == {
        "seaco-paraformer-large",
        "paraformer-large",
        "paraformer-small",
        "sensevoice-small",
        "uniasr",
        "whisper-tiny",
        "ct-punc-c",
        "demo",
    }
    spellings = [name.casefold() for entry in entries for name in (entry.name, *entry.aliases)]
    assert len(set(spellings)) == len(spellings)


@pytest.mark.parametrize("wanted", listing(), ids=lambda wanted: wanted.name)
def test_an_entry_is_consistent(wanted: CatalogueEntry) -> None:
    assert set(wanted.backends) <= {"onnx", "torch", "funasr"} and wanted.backends
    assert (wanted.family == "funasr") == (wanted.backends == ("funasr",))
    assert not wanted.hotwords or wanted.kind == "SeacoParaformer"
    assert wanted.origin and wanted.languages
    for figure in (wanted.parameters, wanted.memory.cpu_int8, wanted.memory.cpu_fp32, wanted.memory.gpu_fp16):
        assert figure is None or figure > 0


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("seaco-paraformer-large", "seaco-paraformer-large"),
        ("Paraformer-ZH", "seaco-paraformer-large"),
        ("iic/SenseVoiceSmall", "sensevoice-small"),
        ("whisper", "whisper-tiny"),
        ("ships with the program", None),
        ("models/seaco", None),
        ("", None),
    ],
)
def test_names_aliases_and_hub_ids_are_found_in_any_case(name: str, found: str | None) -> None:
    wanted = entry(name)
    assert (wanted and wanted.name) == found


def test_an_unknown_name_is_told_what_it_looks_like_and_what_there_is() -> None:
    with pytest.raises(InputError, match="no model named senzevoice") as caught:
        known_entry("senzevoice")
    assert "Did you mean sensevoice-small?" in caught.value.fix
    assert all(wanted.name in caught.value.fix for wanted in listing())


def test_a_name_like_nothing_gets_no_guess() -> None:
    assert "Did you mean" not in unknown_model("qqqqqqqqqq").fix


def test_what_is_here_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path))
    here = {wanted.name: on_this_machine(wanted) for wanted in listing()}
    assert here.pop("demo") == ("fp16", "int8") and not any(here.values())
    _make(tmp_path / "paraformer-large" / "fp32")
    (_make(tmp_path / "seaco") / MANIFEST).write_text('{"precision": "int8"}', encoding="utf-8")
    (tmp_path / "iic" / "SenseVoiceSmall").mkdir(parents=True)
    assert on_this_machine(known_entry("sensevoice-small")) == ()
    (tmp_path / "iic" / "SenseVoiceSmall" / "model.pt").touch()
    assert on_this_machine(known_entry("paraformer-large")) == ("fp32",)
    assert on_this_machine(known_entry("seaco-paraformer-large")) == ("int8",)
    assert on_this_machine(known_entry("sensevoice-small")) == ("files",)


def test_files_lie_by_name_first_and_else_where_the_hub_s_client_puts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path))
    wanted = known_entry("sensevoice-small")
    assert source_directory(wanted) == tmp_path / "sensevoice-small"
    (tmp_path / "iic" / "SenseVoiceSmall").mkdir(parents=True)
    assert source_directory(wanted) == tmp_path / "iic" / "SenseVoiceSmall"
    (tmp_path / "sensevoice-small").mkdir()
    assert source_directory(wanted) == tmp_path / "sensevoice-small"


def test_a_name_is_packed_from_its_source_to_where_it_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path))
    source, output = pack_plan("SeACo", "int8", None)
    assert source == "iic/speech_seaco_paraformer_large_asr_nat-zh-cn-16k-common-vocab8404-pytorch"
    output.mkdir(parents=True)
    (output / "manifest.json").write_text('{"precision": "int8"}', encoding="utf-8")
    assert model_packs("seaco-paraformer-large") == {"int8": output}
    assert pack_plan("seaco", "int8", Path("here")) == (source, Path("here"))


def test_other_sources_say_where_their_pack_goes(tmp_path: Path) -> None:
    assert pack_plan(str(tmp_path), "fp32", Path("here")) == (str(tmp_path), Path("here"))
    assert pack_plan("owner/model", "fp32", Path("here")) == ("owner/model", Path("here"))
    with pytest.raises(InputError, match="Where the pack of owner/model goes"):
        pack_plan("owner/model", "fp32", None)


@pytest.mark.parametrize("name", ["demo", "sensevoice-small", "whisper"])
def test_what_needs_no_pack_gets_none(name: str) -> None:
    with pytest.raises(InputError, match="needs no pack"):
        pack_plan(name, "int8", None)

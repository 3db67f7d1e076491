"""Punctuation packs: the same marks as FunASR's AutoModel, and every way a pack can be wrong."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="packing needs torch; serving does not")
pytest.importorskip("onnx", reason="packing needs onnx; serving does not")

import yaml  # noqa: E402

from app.asr.catalogue import MODELS_VARIABLE, PUNCTUATION, known_entry, model_packs  # noqa: E402
from app.asr.engine import EngineOptions  # noqa: E402
from app.asr.errors import InputError, PackError, SourceError  # noqa: E402
from app.asr.marks import described  # noqa: E402
from app.asr.pack import MANIFEST, WEIGHTS, Pack  # noqa: E402
from app.asr.packing import pack_model  # noqa: E402
from app.asr.punctuation import Punctuation, open_punctuation  # noqa: E402
from app.asr.punctuation_pack import GRAPH, PunctuationPack, key_of  # noqa: E402
from app.asr.tokens import SENTENCE_ENDS, written_line  # noqa: E402
from app.asr.transcribe import Transcriber  # noqa: E402
from app.asr.written_text import TextVocabulary  # noqa: E402
from scripts.random_punctuation import SHAPES, make_config, make_tokens  # noqa: E402
from tests.support.punctuation import (  # noqa: E402
    PunctuationReference,
    checkpoint,
    plain,
    punctuated,
    words_from,
)

LENGTHS = (1, 2, 19, 20, 21, 40, 41, 333, 900)


def _quiet(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("source") / "tiny")


@pytest.fixture(scope="module")
def packs(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("packs")
    return {name: pack_model(str(source), root / name, name, _quiet) for name in ("fp32", "int8")}


@pytest.fixture
def copy(packs: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(packs["fp32"], tmp_path / "pack"))


@pytest.mark.parametrize(
    "never", [(), (3, 4), (2, 3, 4)], ids=["all marks", "no full stops", "no stops, no commas"]
)
def test_the_same_text_gets_the_marks_of_automodel(tmp_path: Path, never: tuple[int, ...]) -> None:
    """Also where sentences are so long that a comma must end them. Without either, ours lets go; below that, equal."""
    directory = checkpoint(tmp_path / "model", never=never)
    reference = PunctuationReference(directory)
    model = Punctuation.open(pack_model(str(directory), tmp_path / "pack", "fp32", _quiet))
    for count in LENGTHS if 2 not in never else LENGTHS[:-1]:
        words = words_from(directory, count, seed=count)
        found = punctuated(words, model)
        assert written_line(found) == reference.punctuated(plain(words))
        assert [word._replace(mark="") for word in found] == words
    if not never:
        assert {word.mark for word in found} >= {"，", "。", "？", "、", ",", "?"}


def test_int8_gives_nearly_the_same_marks(source: Path, packs: dict[str, Path]) -> None:
    exact, rounded = (Punctuation.open(packs[name]) for name in ("fp32", "int8"))
    words = words_from(source, 2000, seed=5)
    tokens = [word.text for word in words]
    agree = [
        np.mean(np.equal(exact.best(exact.rows(part)), rounded.best(rounded.rows(part))))
        for part in (tokens[first : first + 40] for first in range(0, len(tokens), 40))
    ]
    assert np.mean(agree) > 0.95
    assert (rounded.precision, exact.precision) == ("int8", "fp32")


def test_rows_are_the_checkpoint_s_and_unknown_words_share_one(source: Path, packs: dict[str, Path]) -> None:
    state = torch.load(source / "model.pt", weights_only=True)["embed.weight"].numpy()
    tokens = json.loads((source / "tokens.json").read_text(encoding="utf-8"))
    asked = [*tokens[::97], "no such word", ""]
    numbers = [*range(0, len(tokens), 97), len(tokens) - 1, len(tokens) - 1]
    assert np.array_equal(Punctuation.open(packs["fp32"]).rows(asked), state[numbers])
    rounded = Punctuation.open(packs["int8"]).rows(asked)
    steps = np.abs(state[numbers]).max(axis=1, keepdims=True) / 127
    assert (np.abs(rounded - state[numbers]) <= steps * 0.51).all()


def test_the_table_is_not_held_in_memory(packs: dict[str, Path]) -> None:
    """Only the index of the words is mapped; the file of the rows is open once, and let go with the model."""
    before = set(os.listdir("/proc/self/fd"))
    model = Punctuation.open(packs["fp32"])
    names = [line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()]
    mapped = [
        line
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(str(packs["fp32"] / WEIGHTS))
    ]
    assert names and sum(_size(line) for line in mapped) < 64 * 4096 + 8 * SHAPES["tiny"].vocabulary
    assert 1 <= len(set(os.listdir("/proc/self/fd")) - before) <= 2  # a mapping keeps one too
    del model
    assert not set(os.listdir("/proc/self/fd")) - before


def _size(line: str) -> int:
    begin, end = line.split(maxsplit=1)[0].split("-")
    return int(end, 16) - int(begin, 16)


def test_a_half_precision_checkpoint_is_stored_in_half_and_stays_exact(source: Path, tmp_path: Path) -> None:
    halved = Path(shutil.copytree(source, tmp_path / "half"))
    state = {key: value.half().float() for key, value in torch.load(source / "model.pt").items()}
    torch.save(state, halved / "model.pt")
    pack = pack_model(str(halved), tmp_path / "pack", "fp32", _quiet)
    rows = Punctuation.open(pack).rows(["的", "hello"])
    tokens = json.loads((source / "tokens.json").read_text(encoding="utf-8"))
    wanted = state["embed.weight"][[tokens.index("的"), tokens.index("hello")]].numpy()
    assert np.array_equal(rows, wanted)
    assert (pack / WEIGHTS).stat().st_size < 0.6 * (source / "model.pt").stat().st_size


def test_keys_are_stable_across_processes_and_distinct() -> None:
    assert key_of("的") == key_of("的") != key_of("地")
    assert key_of("") == int.from_bytes(bytes.fromhex("e4a6a0577479b2b4"), "little", signed=True)
    tokens = make_tokens(50_000)
    assert len(tokens) == len(set(tokens)) == len({key_of(token) for token in tokens})


def test_the_full_size_has_the_published_numbers() -> None:
    from app.asr.architecture import punctuation_from_config
    from app.asr.checkpoints import count_of
    from app.asr.punctuation_network import PunctuationNetwork

    shape = punctuation_from_config(make_config(SHAPES["full"]), vocabulary_size=272_727)
    with torch.device("meta"):
        millions = count_of(PunctuationNetwork(shape)) / 1e6
    assert round(millions, 1) == known_entry(PUNCTUATION).parameters == 73.0


# What can be wrong with a pack.


def _change_manifest(pack: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    data = json.loads((pack / MANIFEST).read_text(encoding="utf-8"))
    change(data)
    (pack / MANIFEST).write_text(json.dumps(data), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda data: data.update(format="zip"), "format zip"),
        (lambda data: data.update(format_version=9), "format version 9"),
        (lambda data: data.update(precision="fp16"), "precision 'fp16'"),
        (lambda data: data.pop("golden"), "golden"),
        (lambda data: data["shape"].pop("marks"), "marks"),
        (lambda data: data["files"].pop(GRAPH), f"lists no {GRAPH}"),
        (lambda data: data["shape"].update(vocabulary_size=7499), "another table"),
        (lambda data: data["shape"].update(feature_size=64), "another table"),
        (lambda data: data.update(unknown_row=7500), "another table"),
        (lambda data: data.update(precision="int8"), "another table"),
        (lambda data: data["golden"].update(packed_marks=[2] * 110), "of 110 marks of its golden text"),
        (lambda data: data["golden"].update(packed_marks=[1]), "of 110 marks of its golden text"),
    ],
)
def test_a_wrong_manifest_is_refused(copy: Path, change: Callable[[dict[str, Any]], Any], told: str) -> None:
    _change_manifest(copy, change)
    with pytest.raises(PackError, match=told):
        Punctuation.open(copy)


def test_damage_is_named(copy: Path) -> None:
    with (copy / WEIGHTS).open("r+b") as file:
        file.seek(100_000)
        file.write(b"\xff\xff")
    with pytest.raises(PackError, match=r"weights.safetensors is damaged"):
        Punctuation.open(copy)


def test_a_file_that_shrinks_under_a_running_model_is_an_error_and_no_nonsense(copy: Path) -> None:
    model = Punctuation.open(copy)
    os.truncate(copy / WEIGHTS, 70_000)
    with pytest.raises(PackError, match="has become shorter"):
        model.rows(make_tokens(7500)[3:2000])


def test_a_pack_for_speech_is_no_punctuation_and_the_reverse(copy: Path, source: Path) -> None:
    from app.asr.catalogue import DEMO_PACKS

    with pytest.raises(PackError, match="not the manifest of a punctuation pack"):
        Punctuation.open(DEMO_PACKS / "int8")
    with pytest.raises(PackError, match="--punctuation takes"):
        Pack.open(copy)
    with pytest.raises(PackError, match="is a FunASR model directory, not a pack"):
        Punctuation.open(source)


# What can be wrong with a source.


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda config: config["model_conf"].update(att_unit=64), "att_unit"),
        (lambda config: config["encoder_conf"].update(input_size=64), "input_size"),
        (lambda config: config["encoder_conf"].update(input_layer="conv2d"), "input_layer"),
        (lambda config: config["encoder_conf"].update(num_blocks=3), "lacks"),
        (lambda config: config["model_conf"].update(punc_list=[]), "punc_list"),
        (lambda config: config["model_conf"].update(sentence_end_id=6), "sentence_end_id"),
        (lambda config: config.update(jieba_usr_dict="words.txt"), "jieba"),
        (lambda config: config["tokenizer_conf"].update(unk_symbol="<?>"), "unknown words"),
    ],
)
def test_a_model_of_another_form_is_refused(
    source: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any], told: str
) -> None:
    directory = Path(shutil.copytree(source, tmp_path / "source"))
    config = yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8"))
    change(config)
    (directory / "config.yaml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    with pytest.raises(SourceError, match=told):
        pack_model(str(directory), tmp_path / "pack", "fp32", _quiet)
    assert not (tmp_path / "pack").exists() and not list(tmp_path.glob(".*"))


def test_fp16_and_words_cut_by_jieba_are_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="not packed in fp16"):
        pack_model(str(source), tmp_path / "pack", "fp16", _quiet)
    directory = Path(shutil.copytree(source, tmp_path / "source"))
    (directory / "jieba_usr_dict").touch()
    with pytest.raises(SourceError, match="jieba"):
        pack_model(str(directory), tmp_path / "pack", "int8", _quiet)


# Which model is used, and what becomes of a transcript.


def test_wishes(packs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path))
    assert open_punctuation("off") is None
    assert open_punctuation("auto") is None
    with pytest.raises(PackError, match="no pack of ct-punc-c") as caught:
        open_punctuation(PUNCTUATION)
    assert "python -m app pack ct-punc-c" in caught.value.fix
    with pytest.raises(PackError, match="no punctuation pack at"):
        open_punctuation(str(tmp_path))
    for precision in ("fp32", "int8"):  # int8 is taken when both are there
        shutil.copytree(packs[precision], tmp_path / PUNCTUATION / precision)
        found = open_punctuation("auto")
        assert found is not None and found.precision == precision
    named = open_punctuation(str(packs["fp32"]))
    assert named is not None and described(named, None) == "tiny, fp32"
    assert "writes its text itself" in described(named, TextVocabulary())
    with pytest.raises(InputError, match="recognises no speech"):
        model_packs(PUNCTUATION)


def test_the_transcript_keeps_its_words_and_times_and_becomes_sentences(packs: dict[str, Path]) -> None:
    clip = Path(__file__).parents[2] / "app" / "demo" / "recordings" / "meeting.ogg"
    options = EngineOptions(threads=1)
    found = []
    for wish in ("off", str(packs["int8"])):
        with Transcriber.open(replace(options, punctuation=wish)) as engine:
            found.append(list(engine.transcribe(clip)))
            assert ("tiny, int8" in engine.punctuation) == (wish != "off")
    before, after = ([word for utterance in said for word in utterance.words] for said in found)
    assert [word._replace(mark="") for word in after] == before and len(before) > 40
    assert not any(word.mark for word in before) and any(word.mark for word in after)
    for said in found[1]:
        assert not any(word.mark in SENTENCE_ENDS for word in said.words[:-1])
    assert found[1][-1].words[-1].mark in SENTENCE_ENDS


def test_a_pack_opened_twice_gives_the_same(packs: dict[str, Path]) -> None:
    manifest = PunctuationPack.open(packs["int8"]).manifest
    again = type(manifest).from_json(manifest.to_json())
    assert again == manifest

"""Other models through FunASR's real code, on tiny random checkpoints: answers, times, and every way to fail.

What they say means nothing; that it is what FunASR said, whole, in order and at the right time, is tested.
"""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch", reason="other models need torch; serving ours on a CPU does not")
pytest.importorskip("funasr", reason="other models need FunASR")
pytest.importorskip("whisper", reason="Whisper needs openai-whisper")

from app.asr import hub  # noqa: E402
from app.asr.backend import Backend, EncodedHotwords  # noqa: E402
from app.asr.catalogue import MODELS_VARIABLE, known_entry  # noqa: E402
from app.asr.errors import (  # noqa: E402
    AsrError,
    DeviceError,
    DeviceLostError,
    DeviceMemoryError,
    InputError,
    ResourceError,
    SourceError,
)
from app.asr.funasr_backend import FunasrBackend, fetch_model  # noqa: E402
from app.asr.joining import Recognition  # noqa: E402
from scripts.random_checkpoint import probe_audio  # noqa: E402
from tests.support import tiny_models  # noqa: E402

# Whisper leaves files open: its vocabulary, and a checkpoint that it has just downloaded.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

RATE = 16_000
MODELS = ("sensevoice-small", "uniasr", "whisper-tiny")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models directory with a tiny checkpoint of each model."""
    directory = tmp_path_factory.mktemp("models")
    tiny_models.sensevoice(directory / "iic" / "SenseVoiceSmall")
    tiny_models.uniasr(directory / "uniasr")
    tiny_models.whisper_checkpoint(directory / "whisper-tiny" / "tiny.pt")
    return directory


@pytest.fixture(autouse=True)
def models_directory(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODELS_VARIABLE, str(files))


def _open(name: str, **options: Any) -> FunasrBackend:
    return FunasrBackend.open(known_entry(name), device="cpu", threads=1, **options)


@pytest.fixture
def copy(files: Path, tmp_path: Path) -> Path:
    """A SenseVoice directory to spoil."""
    return Path(shutil.copytree(files / "iic" / "SenseVoiceSmall", tmp_path / "model"))


def _same(one: Recognition, other: Recognition) -> bool:
    pairs = ((one.ids, other.ids), (one.starts, other.starts), (one.ends, other.ends))
    return all(np.array_equal(left, right) for left, right in pairs)


def _letters(text: str) -> str:
    return "".join(char for char in text if char.isalnum())


@pytest.mark.parametrize("name", MODELS)
def test_a_segment_gives_what_funasr_says(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    backend = _open(name)
    samples = backend.prepare(probe_audio(0)[: 10 * RATE])
    [found] = backend.recognise([samples], None)
    said = backend._model.generate(input=samples, **backend._options)[0]["text"]
    for tag in tiny_models.TAGS:
        said = said.replace(tag, "")
    assert len(found.ids) > 5
    assert _letters(backend.vocabulary.decode(found.ids)) == _letters(said)
    assert np.all(np.diff(found.starts) >= 0) and np.all(found.ends >= found.starts)
    assert found.starts[0] >= 0 and found.ends[-1] <= 10.0 and found.ends[-1] > 5.0
    assert [array.dtype.name for array in (found.ids, found.starts, found.ends)] == [
        "int32",
        "float32",
        "float32",
    ]
    filled: Backend = backend
    assert (filled.precision, filled.device, filled.most_rows) == ("fp32", "cpu", 1)
    assert filled.memory.held() > 0
    assert capsys.readouterr().out == ""
    assert (list(root.handlers), root.level) == before


def test_sensevoice_gives_its_own_times() -> None:
    backend = _open("sensevoice-small")
    samples = probe_audio(0)
    [found] = backend.recognise([samples], None)
    answer = backend._model.generate(input=samples, output_timestamp=True, **backend._options)[0]
    assert answer["text"].startswith("<|zh|><|NEUTRAL|><|Speech|><|withitn|>")
    assert [round(1000 * float(start)) for start in found.starts[:4]] == [
        stamp[0] for stamp in answer["timestamp"][:4]
    ]
    assert not backend.times_are_estimated
    # Where nothing but blanks is said there are no words: times are not spread evenly.
    assert np.ptp(np.diff(found.starts)) > 0.5


def test_times_that_funasr_cannot_compute_are_estimated_and_said_to_be(tmp_path: Path) -> None:
    directory = tiny_models.sensevoice(tmp_path / "model", reads_back=False)
    backend = FunasrBackend.open(directory, device="cpu", threads=1)
    samples = probe_audio(0)
    with pytest.raises(IndexError):
        backend._generate(samples, output_timestamp=True)
    [found] = backend.recognise([samples], None)
    assert len(found.ids) > 5 and backend.times_are_estimated
    assert np.all(np.diff(found.starts) >= 0)


@pytest.mark.parametrize("name", ["uniasr", "whisper-tiny"])
def test_models_without_times_say_so(name: str) -> None:
    assert _open(name).times_are_estimated


@pytest.mark.parametrize("name", MODELS)
def test_a_segment_is_the_same_alone_and_among_others(name: str) -> None:
    backend = _open(name)
    clips = [probe_audio(seed, 3) for seed in range(3)]
    alone = [backend.recognise([clip], None)[0] for clip in clips]
    together = backend.recognise(clips[::-1], None)[::-1]
    assert all(_same(one, other) for one, other in zip(alone, together, strict=True))
    assert not _same(alone[0], alone[1])


def test_settings_of_one_backend_do_not_reach_another() -> None:
    clip = probe_audio(0)
    chinese, english = (_open("sensevoice-small", language=language) for language in ("zh", "en"))
    alone = [chinese.recognise([clip], None)[0], english.recognise([clip], None)[0]]
    for _ in range(2):
        assert _same(chinese.recognise([clip], None)[0], alone[0])
        assert _same(english.recognise([clip], None)[0], alone[1])
    texts = [backend._ask(clip)["text"] for backend in (chinese, english)]
    assert texts[0] != texts[1]  # the language reached the network


@pytest.mark.parametrize("name", MODELS)
def test_settings_stay_what_they_were(name: str) -> None:
    backend = _open(name)
    before = json.dumps(backend._options)
    backend.recognise([probe_audio(0, 2)], None)
    assert json.dumps(backend._options) == before


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("length", [0, 1, 399, 1600, 8000])
def test_silence_and_snippets_are_survived(name: str, length: int) -> None:
    backend = _open(name)
    loud = np.random.default_rng(0).normal(0, 0.1, length).astype(np.float32)
    loud.flags.writeable = False
    for found in backend.recognise([np.zeros(length, np.float32), loud], None):
        assert len(found.ids) == len(found.starts) == len(found.ends)
        assert np.all(np.isfinite(found.ends)) and np.all(found.ends <= length / RATE + 1e-6)


def test_threads_are_what_was_asked_for() -> None:
    before = torch.get_num_threads()
    try:
        backend = FunasrBackend.open(known_entry("uniasr"), device="cpu", threads=2)
        torch.set_num_threads(1)
        backend.recognise([probe_audio(0, 1)], None)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_whisper_refuses_what_it_would_cut_off() -> None:
    backend = _open("whisper-tiny")
    assert backend.longest_seconds == 30.0
    backend.recognise([np.zeros(30 * RATE, np.float32)], None)
    with pytest.raises(InputError, match="at most 30 s") as caught:
        backend.recognise([np.zeros(30 * RATE + 1, np.float32)], None)
    assert "--segment-seconds 30" in caught.value.fix


@pytest.mark.parametrize(
    ("name", "language", "known"),
    [("sensevoice-small", "http://x", "yue"), ("whisper-tiny", "xx", "zh"), ("uniasr", "zh", "Leave")],
)
def test_languages_are_checked(name: str, language: str, known: str) -> None:
    with pytest.raises(InputError, match="language") as caught:
        _open(name, language=language)
    assert known in caught.value.fix


def test_whisper_takes_a_language() -> None:
    assert _open("whisper-tiny", language="zh").recognise([probe_audio(0, 2)], None)


def test_hot_words_are_refused() -> None:
    backend = _open("uniasr")
    with pytest.raises(InputError, match="no hot words, and 2 were given"):
        backend.encode_hotwords([[1], [2]])
    encoded: Any = EncodedHotwords.__new__(EncodedHotwords)
    encoded.words = [[1]]
    with pytest.raises(InputError, match="no hot words"):
        backend.recognise([probe_audio(0, 1)], encoded)


def test_a_model_that_is_not_here_is_not_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path))
    for name in MODELS:
        with pytest.raises(SourceError, match="are not in") as caught:
            _open(name)
        assert f"python -m app models --fetch {name}" in caught.value.fix


def _remove(name: str) -> Callable[[Path], None]:
    return lambda directory: (directory / name).unlink()


def _write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda directory: (directory / name).write_bytes(content)


def _names(files: object) -> Callable[[Path], object]:
    return _write("configuration.json", json.dumps({"file_path_metas": files}).encode())


def _configure(**changes: Any) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        config = yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8"))
        (directory / "config.yaml").write_text(yaml.safe_dump(config | changes), encoding="utf-8")

    return change


def _without_a_layer(directory: Path) -> None:
    state = torch.load(directory / "model.pt", weights_only=True)
    del state["encoder.after_norm.weight"]
    torch.save(state, directory / "model.pt")


def _of_another_shape(directory: Path) -> None:
    state = torch.load(directory / "model.pt", weights_only=True)
    state["encoder.after_norm.weight"] = torch.ones(7)
    torch.save(state, directory / "model.pt")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_remove("model.pt"), "lacks model.pt"),
        (_remove("am.mvn"), "lacks am.mvn"),
        (_remove("tiny.bpe.model"), "lacks tiny.bpe.model"),
        (_write("model.pt", b"PK\x03\x04 cut off"), "FunASR cannot load"),
        (_write("config.yaml", b"\xff"), "cannot be read"),
        (_write("config.yaml", b"- 1\n"), "does not say which model"),
        (_configure(model="NoSuchModel"), "'NoSuchModel' is not registered"),
        (_configure(encoder="NoSuchEncoder"), "FunASR cannot load"),
        (_remove("configuration.json"), "does not name the files"),
        (_write("configuration.json", b"[]"), "does not name the files"),
        (_names({"init_param": "../model.pt"}), "not a file beside it"),
        (
            _names({"init_param": "model.pt", "frontend_conf": {"cmvn_file": "/etc/passwd"}}),
            "not a file beside",
        ),
        (_names({"init_param": 1}), "not a file beside it"),
        (_without_a_layer, "lacks weights of SenseVoiceSmall .encoder.after_norm.weight"),
        (_of_another_shape, "FunASR cannot load"),
    ],
)
def test_spoilt_files_are_refused(copy: Path, spoil: Callable[[Path], object], said: str) -> None:
    spoil(copy)
    with pytest.raises(SourceError, match=said):
        FunasrBackend.open(copy, device="cpu", threads=1)


def test_a_spoilt_whisper_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tiny.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(SourceError, match="FunASR cannot load"):
        FunasrBackend.open(tmp_path / "tiny.pt", device="cpu", threads=1)


class _Bomb:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("exploded"),)


def test_nothing_in_a_model_directory_is_run(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (copy / "model.py").write_text("from pathlib import Path\nPath('exploded').touch()\n", encoding="utf-8")
    (copy / "requirements.txt").write_text("no-such-package\n", encoding="utf-8")
    wishes = {"trust_remote_code": True, "remote_code": str(copy / "model.py"), "vad_model": "fsmn-vad"}
    _configure(**wishes, punc_model="ct-punc", output_dir=str(tmp_path / "out"), disable_update=False)(copy)
    backend = FunasrBackend.open(copy, device="cpu", threads=1)
    backend.recognise([probe_audio(0, 1)], None)
    assert backend._model.vad_model is None and backend._model.punc_model is None
    torch.save({"weights": _Bomb()}, copy / "model.pt", pickle_module=pickle)
    with pytest.raises(SourceError):
        FunasrBackend.open(copy, device="cpu", threads=1)
    assert not (tmp_path / "exploded").exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("whisper-tiny", "whisper", "openai-whisper"),
        ("sensevoice-small", "sentencepiece", "sentencepiece"),
        ("uniasr", "funasr", "funasr"),
    ],
)
def test_a_missing_package_is_named_with_the_place_that_has_it(
    name: str, module: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ResourceError, match=f"needs the Python package {package}, which") as caught:
        _open(name)
    assert "toolbox image" in caught.value.fix and "scripts/make_venv.sh dev" in caught.value.fix


@pytest.mark.parametrize("device", ["cuda:0", "cuda:99", "tpu"])
def test_a_device_that_is_not_there_is_not_replaced_by_the_cpu(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=f"no device {device}"):
        FunasrBackend.open(known_entry("uniasr"), device=device, threads=1)


@pytest.mark.parametrize(
    ("raised", "expected", "said"),
    [
        (RuntimeError("tensor a must match\nmore"), AsrError, "tensor a must match"),
        (KeyError("hyp"), AsrError, "hyp"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), DeviceMemoryError, "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), DeviceMemoryError, "not enough memory"),
        (RuntimeError("CUDA error: an illegal access"), DeviceLostError, "illegal access"),
    ],
)
def test_what_funasr_raises_becomes_ours(
    raised: Exception, expected: type[AsrError], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: Any) -> None:
        raise raised

    backend = _open("sensevoice-small")
    monkeypatch.setattr(backend._model.model, "inference", fail)
    with pytest.raises(expected, match=said) as caught:
        backend.recognise([probe_audio(0, 1)], None)
    assert type(caught.value) is expected
    assert "more" not in caught.value.problem


def test_whisper_s_checkpoint_is_fetched_and_checked(
    tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import whisper

    content = (files / "whisper-tiny" / "tiny.pt").read_bytes()
    place = tmp_path / hashlib.sha256(content).hexdigest() / "tiny.pt"
    place.parent.mkdir()
    place.write_bytes(content)
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path / "models"))
    monkeypatch.setitem(whisper._MODELS, "tiny", place.as_uri())
    told: list[str] = []
    monkeypatch.setattr(whisper.Whisper, "set_alignment_heads", lambda *_: None)  # those of the real size
    assert fetch_model(known_entry("whisper-tiny"), told.append) == tmp_path / "models" / "whisper-tiny"
    assert told and _open("whisper-tiny").recognise([probe_audio(0, 1)], None)
    wrong = tmp_path / ("0" * 64) / "tiny.pt"
    monkeypatch.setitem(whisper._MODELS, "tiny", wrong.as_uri())
    (tmp_path / "models" / "whisper-tiny" / "tiny.pt").unlink()
    with pytest.raises(SourceError, match="was not fetched"):
        fetch_model(known_entry("whisper-tiny"), told.append)


def test_hub_models_are_fetched_to_where_they_are_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path))
    asked: list[tuple[str, Path]] = []

    def fetch(model: str, cache: Path, progress: Callable[[str], None]) -> Path:
        asked.append((model, cache))
        return tiny_models.sensevoice(cache / model)

    monkeypatch.setattr(hub, "fetch", fetch)
    fetch_model(known_entry("sensevoice-small"), print)
    assert asked == [("iic/SenseVoiceSmall", tmp_path)]
    assert _open("sensevoice-small").kind == "SenseVoiceSmall"


def test_the_hub_s_client_is_asked_for_the_files_of_these_models() -> None:
    names = (
        "model.pt",
        "model.pb",
        "configuration.json",
        "tokens.txt",
        "chn_jpn_yue_eng_ko_spectok.bpe.model",
    )
    assert set(hub._wanted(dict.fromkeys((*names, "README.md", "example/zh.mp3"), 1))) == set(names)

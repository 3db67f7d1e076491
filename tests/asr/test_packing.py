"""Making packs from FunASR directories: every precision, and every way a source can be wrong."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="packing needs torch; serving does not")
pytest.importorskip("onnx", reason="packing needs onnx; serving does not")

from safetensors.torch import load_file  # noqa: E402

from app.asr import hub  # noqa: E402
from app.asr.audio import Frontend  # noqa: E402
from app.asr.catalogue import DEMO_PACKS  # noqa: E402
from app.asr.errors import AsrError, OutputError, ResourceError, SourceError  # noqa: E402
from app.asr.funasr_source import read_source  # noqa: E402
from app.asr.half import is_half  # noqa: E402
from app.asr.onnx_backend import OnnxBackend  # noqa: E402
from app.asr.pack import WEIGHTS, Pack  # noqa: E402
from app.asr.packing import GOLDEN_CLIP, golden_run, load_network, pack_model, read_clip  # noqa: E402
from tests.support.network import recognise  # noqa: E402
from tests.support.reference import directory_from_pack  # noqa: E402


class DiskUsage(NamedTuple):
    total: int
    used: int
    free: int


def _quiet(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model as a FunASR directory."""
    return directory_from_pack(DEMO_PACKS / "fp16", tmp_path_factory.mktemp("source") / "demo")


@pytest.fixture
def copy(source: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(source, tmp_path / "source"))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_pack_gives_the_network_s_tokens(source: Path, tmp_path: Path, precision: str) -> None:
    told: list[str] = []
    pack = Pack.open(pack_model(str(source), tmp_path / "pack", precision, told.append, name="mine"))
    assert (pack.name, pack.precision) == ("mine", precision)
    assert pack.manifest.golden.tokens == pack.manifest.golden.packed_tokens != ()
    assert told and not list(tmp_path.glob(".*"))
    backend, network = OnnxBackend(pack, threads=1), load_network(read_source(source))
    features = Frontend(pack.frontend).features(read_clip(GOLDEN_CLIP))
    for count in (0,) if precision == "int8" else (0, 3, 200):
        words = [[3 + (7 * i) % 260, 4 + (3 * i) % 250] for i in range(count)]
        [found] = backend.recognise([features], backend.encode_hotwords(words) if words else None)
        tokens, times, _ = recognise(network, features, words)
        assert list(found.ids) == tokens
        assert np.abs(found.starts - times[:, 0]).max() <= 0.06


def test_weights_keep_their_names_and_types(source: Path, tmp_path: Path) -> None:
    for precision in ("fp32", "fp16"):
        pack = Pack.open(pack_model(str(source), tmp_path / precision, precision, _quiet))
        stored = load_file(pack.path(WEIGHTS))
        assert set(stored) == set(load_network(read_source(source)).state_dict())
        kinds = {
            name: torch.float16 if precision == "fp16" and is_half(name) else torch.float32 for name in stored
        }
        assert {name: tensor.dtype for name, tensor in stored.items()} == kinds


def test_int8_weights_cannot_saturate_sixteen_bits(source: Path, tmp_path: Path) -> None:
    pack = Pack.open(pack_model(str(source), tmp_path / "pack", "int8", _quiet))
    eight_bit = [tensor for tensor in load_file(pack.path(WEIGHTS)).values() if tensor.dtype == torch.int8]
    assert len(eight_bit) > 20
    # Without VNNI two products of an unsigned and a signed byte are added in 16 bits.
    assert all(2 * 255 * int(tensor.abs().max()) <= 32767 for tensor in eight_bit)


def test_prescales_are_powers_that_bring_outputs_into_half(source: Path) -> None:
    network = load_network(read_source(source))
    features = Frontend(read_source(source).frontend).features(read_clip(GOLDEN_CLIP))
    assert golden_run(network, features)[1] == {}
    layer: Any = network.encoder.encoders[2].feed_forward
    layer.w_2 = torch.nn.Linear(layer.w_2.in_features, layer.w_2.out_features)
    attention: Any = network.decoder.decoders[1].src_attn
    with torch.no_grad():
        attention.linear_k_v.bias.zero_()
        attention.linear_k_v.bias[-1] = 100_000.0  # a value, not a key
        attention.linear_out.weight.zero_()
        layer.w_2.weight.fill_(0.0)
        layer.w_2.bias.fill_(480_000.0)
    scales = golden_run(network, features)[1]
    # 480 000 * 8 / 2**6 < 65 504 < 480 000 * 8 / 2**5
    assert scales["encoder.encoders.2.feed_forward.w_2"] == -6
    assert scales["decoder.decoders.1.src_attn.linear_k_v.values"] == -4
    assert "decoder.decoders.1.src_attn.linear_k_v" not in scales


@pytest.mark.parametrize("name", ["configuration.json", "config.yaml", "tokens.json", "am.mvn", "model.pt"])
def test_a_missing_file_is_named(copy: Path, tmp_path: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(SourceError, match=name):
        pack_model(str(copy), tmp_path / "pack", "int8", _quiet)
    assert not (tmp_path / "pack").exists()


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def _without(path: Path, key: str) -> None:
    state = torch.load(path, weights_only=True)
    del state[key]
    torch.save(state, path)


def _with_nan(path: Path) -> None:
    state = torch.load(path, weights_only=True)
    state["decoder.after_norm.weight"][0] = float("nan")
    torch.save(state, path)


def _reshaped(path: Path) -> None:
    state = torch.load(path, weights_only=True)
    state["decoder.after_norm.weight"] = torch.ones(3)
    torch.save(state, path)


class _Opener:
    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return (print, ("this must never be printed",))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, "damaged or truncated"),
        (
            lambda path: _without(path, "decoder.after_norm.weight"),
            "lacks 1 tensors.*decoder.after_norm.weight",
        ),
        (_with_nan, "NaN or Inf in decoder.after_norm.weight"),
        (_reshaped, "other shapes for 1"),
        (lambda path: torch.save({"model": _Opener()}, path), "could run code"),
        (lambda path: path.write_bytes(pickle.dumps(_Opener())), "could run code"),
        (lambda path: torch.save([1, 2], path), "not a dictionary of tensors"),
    ],
)
def test_a_bad_checkpoint_is_refused(
    copy: Path,
    tmp_path: Path,
    damage: Callable[[Path], None],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage(copy / "model.pt")
    with pytest.raises(SourceError, match=message):
        pack_model(str(copy), tmp_path / "pack", "int8", _quiet)
    assert "never be printed" not in capsys.readouterr().out
    assert not (tmp_path / "pack").exists() and not list(tmp_path.glob(".pack*"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("model: SeacoParaformer", "model: Conformer", "class 'Conformer'"),
        ("input_layer: pe", "input_layer: conv2d", "input_layer = 'conv2d'"),
        ("upsample_type: cnn_blstm", "upsample_type: cnn_attn", "cnn_attn"),
        ("fs: 16000", "fs: 8000", "8000 Hz"),
        ("predictor: CifPredictorV3", "predictor: CifPredictor", "predictor = 'CifPredictor'"),
        ("inner_dim: 128", "inner_dim: 64", "inner_dim"),
        ("encoder: SANMEncoder", "encoder: [", "not YAML"),
    ],
)
def test_an_unknown_network_is_refused_by_name(
    copy: Path, tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = copy / "config.yaml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(SourceError, match=message):
        pack_model(str(copy), tmp_path / "pack", "fp32", _quiet)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("am.mvn", None, "am.mvn is missing"),
        ("am.mvn", "<AddShift> 2 2\n<LearnRateCoef> 0 [ 1 x ]\n", "not a number"),
        ("am.mvn", "<AddShift> 2 2\n<LearnRateCoef> 0 [ 1 2 ]\n", "lacks its <AddShift> or <Rescale>"),
        ("am.mvn", b"\xff\xfe", "cannot be read"),
        ("tokens.json", '{"a": 1}', "not a list of tokens"),
        ("tokens.json", "[", "not JSON"),
        ("config.yaml", "- a list", "holds no settings"),
        ("model.pt", None, "model.pt is missing"),
    ],
)
def test_a_directory_with_a_file_that_is_none_is_refused_by_the_file_s_name(
    copy: Path, tmp_path: Path, name: str, content: str | bytes | None, message: str
) -> None:
    if content is None:
        (copy / name).unlink()
    else:
        (copy / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SourceError, match=message) as caught:
        pack_model(str(copy), tmp_path / "pack", "fp32", _quiet)
    assert name in caught.value.problem and caught.value.fix
    assert not (tmp_path / "pack").exists()


def test_file_names_cannot_lead_out_of_the_directory(copy: Path, tmp_path: Path) -> None:
    path = copy / "configuration.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    data["file_path_metas"]["init_param"] = "../model.pt"
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(SourceError, match="not a plain file name"):
        pack_model(str(copy), tmp_path / "pack", "fp32", _quiet)


def test_an_existing_output_is_never_touched(source: Path, tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    with pytest.raises(OutputError, match="exists already"):
        pack_model(str(source), tmp_path / "pack", "int8", _quiet)


def test_too_little_disk_is_said_before_anything_is_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.asr.packing.shutil.disk_usage", lambda _: DiskUsage(10**9, 10**9 - 10**6, 10**6))
    with pytest.raises(ResourceError, match="has 1 MB free"):
        pack_model(str(source), tmp_path / "pack", "int8", _quiet)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", ["nowhere", "a/b/c", "http://example.com/x", ""])
def test_what_is_neither_directory_nor_id_is_refused(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(AsrError):
        pack_model(wrong, tmp_path / "pack", "int8", _quiet)


def test_an_unknown_precision_lists_the_known(source: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="fp32, fp16, int8"):
        pack_model(str(source), tmp_path / "pack", "int4", _quiet)


def test_offline_the_hub_says_what_to_do(tmp_path: Path) -> None:
    pytest.importorskip("modelscope_hub", reason="the hub's client is not installed")
    with pytest.raises(SourceError, match="hub cannot be reached") as caught:
        hub.fetch("owner/model", tmp_path, _quiet, endpoint="http://127.0.0.1:9")
    assert "--model demo" in caught.value.fix

"""float16 that holds: the same words as float32, also where activations are far beyond float16's range."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="the network needs torch; serving on a CPU does not")

from app.asr import half, model  # noqa: E402
from app.asr.audio import Frontend  # noqa: E402
from app.asr.catalogue import DEMO_PACKS  # noqa: E402
from app.asr.pack import Pack  # noqa: E402
from app.asr.torch_backend import TorchBackend  # noqa: E402
from tests.support.heldout import heldout  # noqa: E402
from tests.support.outlier import demo_network, enlarge, float_pack, largest_between_layers  # noqa: E402

FACTOR = 2.0**14
NAMES = sorted({utterance.name for utterance in heldout("rare") if utterance.name})


@pytest.fixture(scope="module")
def features() -> list[NDArray[np.float32]]:
    frontend = Frontend(Pack.open(DEMO_PACKS / "fp16").frontend)
    return [frontend.features(utterance.samples) for utterance in heldout("rare")[:10]]


@pytest.fixture(scope="module")
def outlier(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    network = demo_network()
    enlarge(network, FACTOR)
    return float_pack(tmp_path_factory.mktemp("outlier") / "pack", network)


def _ids(backend: TorchBackend, features: list[NDArray[np.float32]], pack: Pack) -> list[list[int]]:
    words = [pack.vocabulary.encode_word(name) or [] for name in NAMES]
    plain = backend.recognise(features, None)
    biased = backend.recognise(features, backend.encode_hotwords(words))
    return [found.ids.tolist() for found in (*plain, *biased)]


@pytest.mark.parametrize("precision", ["fp16", half.STORAGE_ONLY])
def test_the_shipped_model_says_the_same_in_half(features: list[NDArray[np.float32]], precision: str) -> None:
    pack = Pack.open(DEMO_PACKS / "fp16")
    in_half = TorchBackend(pack, precision=precision)
    in_float = TorchBackend(pack, precision="fp32")
    assert _ids(in_half, features, pack) == _ids(in_float, features, pack)
    assert in_half.weight_bytes < 0.65 * in_float.weight_bytes


@pytest.mark.parametrize("precision", ["fp16", half.STORAGE_ONLY])
def test_activations_of_half_a_million_change_no_word(
    outlier: Pack, features: list[NDArray[np.float32]], precision: str
) -> None:
    enlarged = demo_network()
    enlarge(enlarged, FACTOR)
    assert largest_between_layers(enlarged, torch.from_numpy(features[0])[None]) > 480_000
    wanted = _ids(TorchBackend(Pack.open(DEMO_PACKS / "fp16"), precision="fp32"), features, outlier)
    assert _ids(TorchBackend(outlier, precision="fp32"), features, outlier) == wanted
    assert _ids(TorchBackend(outlier, precision=precision), features, outlier) == wanted
    assert min(outlier.manifest.prescales.values()) <= -5


def test_a_network_simply_cast_to_half_overflows_there(
    features: list[NDArray[np.float32]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `model.half()` does: finite on the small activations, lost on the large ones."""
    positions = model.sinusoids
    monkeypatch.setattr(model, "as_float", lambda x: x)
    monkeypatch.setattr(model, "sinusoids", lambda like: positions(like).half())
    clip = torch.from_numpy(features[0])[None].half()
    finite = []
    for factor in (1.0, FACTOR):
        network = demo_network()
        enlarge(network, factor)
        with torch.inference_mode():
            finite.append(bool(torch.isfinite(network.half().encoder(clip, None)).all()))
    assert finite == [True, False]


def test_without_the_exponents_half_overflows_too(outlier: Pack, features: list[NDArray[np.float32]]) -> None:
    """So it is the pre-scales that hold the test above, and not chance."""
    network = model.ParaformerNetwork(outlier.manifest.architecture)
    plan = half.convert(network, {}, storage_only=False)
    enlarged = demo_network()
    enlarge(enlarged, FACTOR)
    state = {
        name: plan.get(name, half.Stored()).apply(tensor) for name, tensor in enlarged.state_dict().items()
    }
    network.load_state_dict(state)
    with torch.inference_mode():
        hidden = network.eval().encoder(torch.from_numpy(features[0])[None], None)
    assert not bool(torch.isfinite(hidden).all())


def test_the_parts_in_half_are_those_a_pack_stores_in_half() -> None:
    network = demo_network()
    names = set(network.state_dict())
    plan = half.convert(network, {}, storage_only=False)
    assert set(plan) == {name for name in names if half.is_half(name)}
    assert set(network.state_dict()) == names, "names of tensors must not change"
    kept = {name.split(".")[0] for name in names if not half.is_half(name)}
    assert {"predictor", "bias_encoder", "hotword_output_layer"} <= kept


def test_queries_beyond_half_keep_their_layer_in_float() -> None:
    network = demo_network()
    name = "encoder.encoders.0.self_attn"
    plan = half.convert(network, {f"{name}.linear_q_k_v": -2}, storage_only=False)
    assert not [tensor for tensor in plan if tensor.startswith(name)]
    assert isinstance(network.get_submodule(f"{name}.linear_out"), torch.nn.Linear)
    crossing = demo_network()
    name = "decoder.decoders.1.src_attn"
    plan = half.convert(crossing, {f"{name}.linear_q": -1}, storage_only=False)
    assert not [tensor for tensor in plan if tensor.startswith(name)]


def test_exponents_leave_room_and_are_never_positive() -> None:
    for largest in (1e-3, 1.0, 8000.0, 9000.0, 480_000.0, 1e9):
        exponent = half.exponent_for(largest)
        assert exponent <= 0
        assert largest * half.MARGIN * 2.0**exponent <= half.HALF_MAX
        assert exponent == 0 or largest * half.MARGIN * 2.0 ** (exponent + 1) > half.HALF_MAX
    assert half.exponent_for(0.0) == half.exponent_for(float("inf")) == 0

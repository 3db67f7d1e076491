"""The network against FunASR's AutoModel, and against its own promise that batch mates change nothing."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="the network needs torch; serving on a CPU does not")
pytest.importorskip("funasr", reason="the reference, FunASR, is not installed")

from app.asr.model import ParaformerNetwork  # noqa: E402
from app.asr.packing import GOLDEN_CLIP, read_clip  # noqa: E402
from app.asr.predictor import integrate_and_fire  # noqa: E402
from tests.support.network import recognise  # noqa: E402
from tests.support.pair import Pair  # noqa: E402
from tests.support.reference import random_directory  # noqa: E402

FRAME_SECONDS = 0.06


@pytest.fixture(scope="module", params=["seaco", "bicif", "paraformer"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(
        random_directory(tmp_path_factory.mktemp("random") / request.param, arch=request.param, seed=3)
    )


@pytest.fixture(scope="module")
def clips() -> list[NDArray[np.float32]]:
    speech = read_clip(GOLDEN_CLIP)
    noise = np.random.default_rng(5).normal(0, 0.05, 16_000 * 5).astype(np.float32)
    return [speech, noise, np.concatenate([speech, noise[:16_000], speech[::-1]])]


@pytest.mark.parametrize("hotwords", [0, 3, 200])
def test_same_tokens_and_times_as_funasr(pair: Pair, clips: list[NDArray[np.float32]], hotwords: int) -> None:
    if not pair.network.shape.has_hotwords:
        hotwords = 0  # these two have no such branch
    found = [pair.compare(clip, hotwords) for clip in clips]
    assert sum(comparison.tokens for comparison in found) > 20
    assert all(comparison.differing == 0 for comparison in found), (
        "differs from FunASR, and not by a near tie"
    )
    assert sum(comparison.near_ties for comparison in found) == 0
    assert max(comparison.worst_time for comparison in found) <= FRAME_SECONDS


def test_batch_mates_change_nothing(pair: Pair, clips: list[NDArray[np.float32]]) -> None:
    features = [torch.from_numpy(pair.frontend.features(clip)) for clip in clips]
    lengths = torch.tensor([len(part) for part in features])
    # Padding is noise, not zeros: whatever leaks from it would show.
    batch = torch.full((len(features), int(lengths.max()), features[0].shape[1]), 7.0)
    for row, part in zip(batch, features, strict=True):
        row[: len(part)] = part
    with torch.inference_mode():
        hidden, acoustic, counts, alphas = pair.network.encode(batch, lengths)
        ids, _ = pair.network.decode(hidden, lengths, acoustic, counts)
        fine = (
            pair.network.predictor.fine_alphas(hidden, lengths)
            if pair.network.shape.predictor.upsample
            else None
        )
        for index, part in enumerate(features):
            alone_hidden, alone_acoustic, alone_counts, alone_alphas = pair.network.encode(part[None])
            alone_ids, _ = pair.network.decode(alone_hidden, None, alone_acoustic, None)
            tokens, frames = int(alone_counts[0]), len(part)
            assert int(counts[index]) == tokens
            assert ids[index, :tokens].tolist() == alone_ids[0].tolist()
            torch.testing.assert_close(alphas[index, : frames + 1], alone_alphas[0], atol=2e-5, rtol=0)
            if fine is not None:
                alone_fine = pair.network.predictor.fine_alphas(alone_hidden, None)[0]
                torch.testing.assert_close(fine[index, : 3 * frames], alone_fine, atol=2e-5, rtol=0)


def test_integrate_and_fire_is_the_frame_by_frame_rule() -> None:
    generator = np.random.default_rng(0)
    for frames in (1, 2, 50, 700):
        alphas = generator.uniform(0, 0.9, frames + 1).astype(np.float32)
        hidden = generator.standard_normal((frames, 4)).astype(np.float32)
        tokens, counts = integrate_and_fire(torch.from_numpy(hidden)[None], torch.from_numpy(alphas)[None])
        expected = _fire_by_frame(hidden, alphas)
        assert int(counts[0]) == len(expected) == tokens.shape[1]
        np.testing.assert_allclose(tokens[0].numpy(), expected, atol=1e-4)


def _fire_by_frame(hidden: NDArray[np.float32], alphas: NDArray[np.float32]) -> NDArray[np.float64]:
    """Continuous integrate-and-fire as the paper tells it, one frame after the other."""
    fired, level = [], 0.0
    current = np.zeros(hidden.shape[1])
    for frame, alpha in zip([*hidden, np.zeros(hidden.shape[1])], alphas.astype(np.float64), strict=True):
        used = min(alpha, 1.0 - level)
        current = current + used * frame
        level += alpha
        if level >= 1.0:
            fired.append(current)
            level -= 1.0
            current = (alpha - used) * frame
    return np.array(fired).reshape(-1, hidden.shape[1])


def test_no_speech_gives_no_tokens(pair: Pair) -> None:
    quiet = ParaformerNetwork(pair.network.shape).eval()
    quiet.load_state_dict(pair.network.state_dict())
    with torch.inference_mode():
        quiet.predictor.cif_output.bias.fill_(-30.0)
    assert recognise(quiet, np.zeros((20, 560), np.float32), None)[0] == []

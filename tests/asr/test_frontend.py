"""The frontend: features equal to FunASR's, for every length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from app.asr.audio import Frontend, FrontendConfig
from app.asr.errors import PackError

GOLDEN = Path(__file__).parents[1] / "golden" / "frontend_features.npy"


def integer_sound(samples: int) -> np.ndarray:
    """Noise with a swell, made of integers only, so that it is the same on every machine."""
    state, values = 12345, []
    for index in range(samples):
        state = (1103515245 * state + 12345) % 2**31
        values.append(((state >> 16) - 16384) * (1 + (index // 400) % 8) // 16)
    return (np.array(values, np.float32) / 32768.0).astype(np.float32)


def cmvn_config() -> FrontendConfig:
    ramp = np.arange(560, dtype=np.float32)
    shift, scale = -8.0 - ramp / 280, 0.05 + ramp / 5600
    return FrontendConfig(cmvn_shift=shift.astype(np.float32), cmvn_scale=scale.astype(np.float32))


def test_features_match_the_golden_array() -> None:
    got = Frontend(cmvn_config()).features(integer_sound(8000))
    expected = np.load(GOLDEN, allow_pickle=False)
    assert got.shape == expected.shape == (8, 560)
    assert np.abs(got - expected).max() <= 1e-4


@pytest.mark.parametrize("samples", [400, 559, 560, 1360, 8000, 48123])
def test_features_equal_funasr(tmp_path: Path, samples: int) -> None:
    torch = pytest.importorskip("torch", reason="the reference frontend needs torch")
    reference = pytest.importorskip(
        "funasr.frontends.wav_frontend", reason="the reference is funasr's frontend"
    )
    config = cmvn_config()
    cmvn = tmp_path / "am.mvn"
    cmvn.write_text(
        "<AddShift>\n<LearnRateCoef> 0 [ " + " ".join(map(repr, config.cmvn_shift.tolist())) + " ]\n"
        "<Rescale>\n<LearnRateCoef> 0 [ " + " ".join(map(repr, config.cmvn_scale.tolist())) + " ]\n"
    )
    frontend = reference.WavFrontend(cmvn_file=str(cmvn), lfr_m=7, lfr_n=6, dither=0.0, window="hamming")
    waveform = integer_sound(samples)
    expected = frontend(torch.from_numpy(waveform)[None], torch.tensor([samples]))[0][0].numpy()
    got = Frontend(config).features(waveform)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= 1e-4


@pytest.mark.parametrize("samples", [0, 1, 399])
def test_less_than_a_window_gives_no_frame(samples: int) -> None:
    assert Frontend(cmvn_config()).features(np.zeros(samples, np.float32)).shape == (0, 560)


def test_features_of_silence_are_finite() -> None:
    assert np.isfinite(Frontend(cmvn_config()).features(np.zeros(1600, np.float32))).all()


def test_a_normalisation_of_the_wrong_size_is_refused() -> None:
    with pytest.raises(PackError, match="normalisation"):
        FrontendConfig(cmvn_shift=np.zeros(80, np.float32), cmvn_scale=np.ones(560, np.float32))

"""Token times: boundaries, pauses, and the one place where we differ from FunASR on purpose."""

from __future__ import annotations

import numpy as np
import pytest

from app.asr.timing import MAX_TOKEN_SECONDS, fire_steps, token_times


def _bursts(*steps: int, length: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    alphas = np.zeros(length, np.float32)
    for step in steps:
        alphas[step - 2 : step + 2] += 0.25
    return alphas


def test_boundaries_become_starts_and_ends() -> None:
    starts, ends = token_times(_bursts(20, 30, 40, length=50), 2, step_seconds=0.02)
    np.testing.assert_allclose(starts, [0.39, 0.59], atol=0.021)
    np.testing.assert_allclose(ends, [0.59, 0.79], atol=0.021)


def test_a_long_gap_is_a_token_and_a_pause() -> None:
    starts, ends = token_times(_bursts(20, 70, 80, length=90), 2, step_seconds=0.02)
    assert ends[0] - starts[0] == pytest.approx(MAX_TOKEN_SECONDS)
    assert starts[1] > 1.3


def test_the_last_token_does_not_reach_into_trailing_silence() -> None:
    alphas = _bursts(20, 30, length=500)
    starts, ends = token_times(alphas, 1, step_seconds=0.02)
    assert ends[0] - starts[0] <= MAX_TOKEN_SECONDS + 1e-6
    timestamp_tools = pytest.importorskip(
        "funasr.utils.timestamp_tools", reason="the reference is not installed"
    )
    torch = pytest.importorskip("torch", reason="FunASR's time stamps need torch")
    peaks = timestamp_tools.cif_wo_hidden(torch.from_numpy(alphas)[None], 1.0 - 1e-4)[0]
    _, reference = timestamp_tools.ts_prediction_lfr6_standard(torch.from_numpy(alphas), peaks, ["\u4e00"])
    assert reference[0][1] / 1000 > 4.0, (
        "FunASR no longer stretches the last token; ours need not differ any more"
    )


def test_weights_are_scaled_to_the_number_of_tokens() -> None:
    alphas = np.full(300, 0.01, np.float32)
    starts, ends = token_times(alphas, 9, step_seconds=0.02)
    assert len(starts) == len(ends) == 9
    assert (np.diff(starts) > 0).all() and (ends > starts).all()


@pytest.mark.parametrize(
    "alphas", [np.zeros(10, np.float32), np.ones(2, np.float32), np.zeros(0, np.float32)]
)
def test_hopeless_weights_still_give_ordered_times(
    alphas: np.ndarray[tuple[int], np.dtype[np.float32]],
) -> None:
    steps = fire_steps(alphas, 5)
    assert len(steps) == 5 and (np.diff(steps) >= 0).all()


def test_no_tokens() -> None:
    starts, ends = token_times(np.ones(10, np.float32), 0, step_seconds=0.02)
    assert len(starts) == len(ends) == 0

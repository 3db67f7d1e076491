"""When each token sounds: from CIF weights to start and end times. Pure numpy, shared by all backends.

The rule is that of FunASR's time-stamp prediction (funasr/utils/timestamp_tools.py), with one difference on purpose:
the reference stretches the last token half way into the silence behind it; here it ends as any other token does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FRAME_SECONDS = 0.06
FIRE_THRESHOLD = 1.0 - 1e-4
# A fire lies a little behind the boundary it marks; and a token longer than this is a token and a pause.
FIRE_DELAY_SECONDS = 0.03
MAX_TOKEN_SECONDS = 0.24


def token_times(
    alphas: NDArray[np.float32], tokens: int, *, step_seconds: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Starts and ends, both (tokens,), in seconds from the segment's start.

    Args:
        alphas: (steps,) boundary weights of one segment; their sum is scaled to `tokens` + 1, the boundaries.
        tokens: number of tokens, without the end-of-sentence token.
        step_seconds: length of one step, 0.02 s for the up-sampled branch, 0.06 s for plain CIF weights.
    """
    if tokens == 0:
        return np.zeros(0, np.float32), np.zeros(0, np.float32)
    boundaries = fire_steps(alphas, tokens + 1) * step_seconds - FIRE_DELAY_SECONDS
    boundaries = np.maximum(boundaries, 0.0)
    starts = boundaries[:-1]
    ends = np.minimum(boundaries[1:], starts + MAX_TOKEN_SECONDS)
    return starts.astype(np.float32), ends.astype(np.float32)


def fire_steps(alphas: NDArray[np.float32], fires: int) -> NDArray[np.float64]:
    """The steps at which the running sum of `alphas` passes 1, 2, ... `fires` thresholds, (fires,)."""
    total = float(alphas.sum(dtype=np.float64))
    if total <= 0.0 or len(alphas) < fires:
        return np.linspace(0, max(len(alphas) - 1, 0), fires)
    running = np.cumsum(alphas, dtype=np.float64) * (fires / total)
    targets = FIRE_THRESHOLD * np.arange(1, fires + 1)
    steps = np.searchsorted(running, targets, side="left").astype(np.float64)
    # One fire a step at most, as in the frame-by-frame loop of the reference.
    order = np.arange(fires)
    fired: NDArray[np.float64] = np.minimum(np.maximum.accumulate(steps - order) + order, len(alphas) - 1)
    return fired

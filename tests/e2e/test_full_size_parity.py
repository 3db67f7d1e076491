"""Our network against FunASR's AutoModel at full size: 50 and 16 layers, vocabulary 8404, random weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the network needs torch")
pytest.importorskip("funasr", reason="the reference, FunASR, is not installed")

from app.asr.packing import GOLDEN_CLIP, read_clip  # noqa: E402
from tests.support.pair import Pair  # noqa: E402
from tests.support.reference import random_directory  # noqa: E402

pytestmark = pytest.mark.e2e
FRAME_SECONDS = 0.06


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_full_size_network_gives_funasr_tokens_and_times(seed: int, tmp_path: Path) -> None:
    directory = random_directory(tmp_path / "model", arch="seaco", size="full", seed=seed)
    pair = Pair(directory)
    speech = read_clip(GOLDEN_CLIP)
    noise = np.random.default_rng(seed).normal(0, 0.05, 16_000 * 8).astype(np.float32)
    results = [pair.compare(clip, hotwords) for clip in (speech, noise) for hotwords in (0, 3, 200)]
    tokens, ties = sum(r.tokens for r in results), sum(r.near_ties for r in results)
    print(
        f"seed {seed}: {tokens} tokens, {ties} near ties, worst time {max(r.worst_time for r in results):.3f} s"
    )
    assert tokens > 100
    assert sum(r.differing for r in results) == 0
    assert ties <= tokens // 100
    assert max(r.worst_time for r in results) <= FRAME_SECONDS
    shutil.rmtree(directory)  # 1 GB each

"""Punctuation against FunASR's AutoModel at full size: 272,727 words, 4 layers of 256, random weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the network needs torch")
pytest.importorskip("funasr", reason="the reference, FunASR, is not installed")

from app.asr.packing import pack_model
from app.asr.punctuation import Punctuation
from app.asr.tokens import written_line
from tests.support.punctuation import (
    PunctuationReference,
    checkpoint,
    plain,
    punctuated,
    words_from,
)

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("seed", [1, 2])
def test_full_size_gives_funasr_s_marks(seed: int, tmp_path: Path) -> None:
    directory = checkpoint(tmp_path / "model", size="full", seed=seed)
    reference = PunctuationReference(directory)
    exact, rounded = (
        Punctuation.open(pack_model(str(directory), tmp_path / name, name, lambda _: None))
        for name in ("fp32", "int8")
    )
    for count in (7, 20, 21, 400, 2000):
        words = words_from(directory, count, seed=count + seed)
        found = punctuated(words, exact)
        assert written_line(found) == reference.punctuated(plain(words))
    near = punctuated(words, rounded)
    same = sum(one.mark == other.mark for one, other in zip(found, near, strict=True))
    print(f"seed {seed}: {same} of {len(words)} marks of int8 are those of fp32")
    assert same > 0.97 * len(words)
    shutil.rmtree(directory)

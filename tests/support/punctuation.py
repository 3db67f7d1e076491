"""FunASR's AutoModel for punctuation as the reference, and texts for both."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from app.asr.marks import Marker, MarkStream
from app.asr.tokens import Word, written_line
from scripts.random_punctuation import SHAPES, write_directory


class PunctuationReference:
    """AutoModel on a CT-Transformer's directory."""

    def __init__(self, directory: Path) -> None:
        from funasr import AutoModel

        with contextlib.redirect_stdout(io.StringIO()):
            self._model = AutoModel(
                model=str(directory),
                device="cpu",
                disable_update=True,
                disable_pbar=True,
                log_level="ERROR",
                ncpu=1,
            )

    def punctuated(self, text: str) -> str:
        """What AutoModel makes of a recording's text: its words as they were, and the marks."""
        from funasr.auto.auto_model import _punctuate_surface_text

        with contextlib.redirect_stdout(io.StringIO()):
            [found] = self._model.generate(input=text)
        written = _punctuate_surface_text(text, found["punc_array"], self._model.model)
        assert isinstance(written, str)
        return written


def checkpoint(directory: Path, *, never: Sequence[int] = (), size: str = "tiny", seed: int = 0) -> Path:
    """A random CT-Transformer that never puts some of the marks."""
    write_directory(SHAPES[size], seed, directory)
    if never:
        state: dict[str, Any] = torch.load(directory / "model.pt", weights_only=True)
        state["decoder.bias"][list(never)] = -100.0
        torch.save(state, directory / "model.pt")
    return directory


def words_from(directory: Path, count: int, seed: int) -> list[Word]:
    """Words as our recogniser gives them: characters, Latin words, digits one by one, some that no table has."""
    tokens = json.loads((directory / "tokens.json").read_text(encoding="utf-8"))
    characters = [token for token in tokens if not token.isascii()]
    latin = [token for token in tokens if token.isalpha() and token.isascii()][:2000]
    rng = np.random.default_rng(seed)
    kinds = rng.choice(4, count, p=[0.8, 0.1, 0.07, 0.03])
    pools = (characters, latin, list("0123456789"), ["龘", "AI", "qzxqzx", "it's"])
    return [Word(str(rng.choice(pools[kind])), n * 0.25, n * 0.25 + 0.2) for n, kind in enumerate(kinds)]


def punctuated(words: Sequence[Word], model: Marker) -> list[Word]:
    """The words with ours."""
    stream = MarkStream(model)
    return [*stream.add(words), *stream.flush()]


def plain(words: Sequence[Word]) -> str:
    """The text that the reference is given."""
    return written_line([word._replace(mark="") for word in words])

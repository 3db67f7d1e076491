"""A punctuation model on the CPU: a pack's graph with onnxruntime, the table of embeddings read row by row.

Here: opening, with a self-check on the pack's golden text, and the two steps that marks.py asks for. Never on a GPU:
twenty tokens at a time are a few milliseconds of one processor, and the memory of a small card is for speech.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.asr.catalogue import punctuation_directory
from app.asr.errors import PackError
from app.asr.onnx_backend import open_session, run_session
from app.asr.pack import REMAKE
from app.asr.punctuation_pack import PunctuationPack

# Of the golden text's marks; another processor's 8-bit arithmetic may tip one that was close.
_LEAST_AGREEMENT = 0.9


class Punctuation:
    """A loaded model, without state: several threads, and texts, may share it.

    Raises:
        PackError: the graph or the table cannot be used.
    """

    def __init__(self, pack: PunctuationPack) -> None:
        manifest = pack.manifest
        self.name, self.precision = manifest.name, manifest.precision
        self.marks, self.sentence_end = manifest.shape.marks, manifest.shape.sentence_end
        self._table = pack.table()
        # One thread: the matrices are so small that a second one costs more than it gains.
        self._session = open_session(pack.graph, threads=1)

    @classmethod
    def open(cls, directory: Path) -> Punctuation:
        """Opens, checks and loads a pack.

        Raises:
            PackError: it is missing or damaged, or computes other marks here than where it was packed.
        """
        pack = PunctuationPack.open(directory)
        model, golden = cls(pack), pack.manifest.golden
        found = model.best(model.rows(golden.tokens))
        same = sum(mine == theirs for mine, theirs in zip(found, golden.packed_marks, strict=False))
        if same < _LEAST_AGREEMENT * len(golden.tokens) or len(golden.packed_marks) != len(golden.tokens):
            raise PackError(
                f"The punctuation pack {directory} gives {same} of {len(golden.tokens)} marks of its golden text",
                fix=REMAKE,
            )
        return model

    def rows(self, tokens: Sequence[str]) -> NDArray[np.float32]:
        """The embeddings of tokens, (n, width)."""
        return self._table.rows(tokens)

    def best(self, rows: NDArray[np.float32]) -> list[int]:
        """For each of the tokens whose embeddings these are, which of `marks` belongs behind it.

        Raises:
            ResourceError: it does not fit into memory.
        """
        [scores] = run_session(self._session, {"rows": rows[None]})
        return [int(mark) for mark in np.argmax(scores[0], axis=1)]


def open_punctuation(wish: str) -> Punctuation | None:
    """The model for what a user said: "off", "auto" (the catalogue's, where its pack is here), a name or a directory.

    Raises:
        PackError: it is missing, damaged, or no punctuation pack.
    """
    directory = punctuation_directory(wish)
    return None if directory is None else Punctuation.open(directory)

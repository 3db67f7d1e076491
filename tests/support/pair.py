"""The same weights in FunASR and in our network, and the comparison of what both make of a clip."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.asr.audio import Frontend
from app.asr.funasr_source import read_source
from app.asr.packing import load_network
from tests.support.network import recognise
from tests.support.reference import Reference

# Two scores closer than this may be ordered either way by the order of additions.
NEAR_TIE = 1e-3


@dataclass(frozen=True)
class Comparison:
    """Tokens compared, those that differ by a near tie, those that differ otherwise, and the worst time in seconds."""

    tokens: int
    near_ties: int
    differing: int
    worst_time: float


class Pair:
    """The same weights in both implementations."""

    def __init__(self, directory: Path, device: str = "cpu") -> None:
        self.reference = Reference(directory, device)
        source = read_source(directory)
        self.network = load_network(source)
        self.frontend = Frontend(source.frontend)
        self.body = [t for t in source.tokens if len(t) == 1 and "\u4e00" <= t <= "\u9fff"]

    def words(self, count: int) -> list[str]:
        chooser = random.Random(count)
        return ["".join(chooser.choices(self.body, k=chooser.randint(2, 4))) for _ in range(count)]

    def ids(self, words: list[str]) -> list[list[int]]:
        return [[self.reference.tokens.index(character) for character in word] for word in words]

    def margins(self, clip: NDArray[np.float32], words: list[list[int]]) -> NDArray[np.float64]:
        """How far each token's score is above the next one's, as our network finds it on the CPU."""
        return recognise(self.network, self.frontend.features(clip), words)[2]

    def compare(self, clip: NDArray[np.float32], hotwords: int) -> Comparison:
        """One clip alone through both. Another number of tokens counts as all of them differing."""
        words = self.words(hotwords)
        [(ids, times)] = self.reference.recognise([clip], words or None)
        ours, our_times, margins = recognise(self.network, self.frontend.features(clip), self.ids(words))
        if len(ours) != len(ids):
            return Comparison(len(ids), 0, max(len(ids), len(ours)), 0.0)
        wrong = [index for index, (mine, theirs) in enumerate(zip(ours, ids, strict=True)) if mine != theirs]
        ties = sum(bool(margins[index] < NEAR_TIE) for index in wrong)
        worst = 0.0
        if len(times) and self.network.shape.predictor.upsample:
            apart = np.abs(our_times - times)
            apart[-1, 1] = 0.0  # the last token's end differs on purpose: see test_timing
            worst = float(apart.max())
        return Comparison(len(ids), ties, len(wrong) - ties, worst)

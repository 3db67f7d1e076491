"""Judging a model directory through funasr.AutoModel on held-out speech.

Lives here: error rates, name recall, time errors, the conditions of the report. Not here: the held-out speech itself.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import grammar
from .heldout import Utterance, join, utterances
from .tapes import SAMPLE_RATE, disturb, gap_seconds


def distance(left: str, right: str) -> int:
    """Edit distance in characters."""
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        previous, row[0] = row[0], i
        for j, b in enumerate(right, 1):
            previous, row[j] = row[j], min(previous + (a != b), row[j] + 1, row[j - 1] + 1)
    return row[-1]


@dataclass(frozen=True)
class Score:
    """Result of one condition: error rates in per cent, sentences and names right of `utterances`."""

    utterances: int
    cer: float
    cer_sounds_alike_equal: float
    sentences_right: int
    names_right: int | None


class Judge:
    """A model directory opened by funasr.AutoModel."""

    def __init__(self, directory: Path, threads: int) -> None:
        from funasr import AutoModel  # imports every FunASR model: seconds

        self._model: Any = AutoModel(
            model=str(directory),
            disable_update=True,
            disable_pbar=True,
            device="cpu",
            ncpu=threads,
            log_level="ERROR",
        )

    def hear(
        self, samples: NDArray[np.float32], hotwords: Sequence[str] = ()
    ) -> tuple[str, list[tuple[float, float]]]:
        """Text, and start and end of each character in seconds."""
        options = {"hotword": " ".join(hotwords)} if hotwords else {}
        found = self._model.generate(input=samples, **options)
        if not found or not found[0]:
            return "", []
        times = [(start / 1000, end / 1000) for start, end in found[0].get("timestamp", [])]
        return str(found[0]["text"]).replace(" ", ""), times

    def score(self, spoken: Sequence[Utterance], offer: Callable[[Utterance], Sequence[str]]) -> Score:
        """Recognise all utterances, each with the hot words that `offer` gives it."""
        errors = alike = characters = right = names = 0
        for utterance in spoken:
            text, _ = self.hear(utterance.samples, offer(utterance))
            errors += distance(utterance.text, text)
            alike += distance(grammar.canonical(utterance.text), grammar.canonical(text))
            characters += len(utterance.text)
            right += text == utterance.text
            names += bool(utterance.name) and utterance.name in text
        return Score(
            len(spoken),
            round(100 * errors / characters, 2),
            round(100 * alike / characters, 2),
            right,
            names if any(u.name for u in spoken) else None,
        )


def absent(text: str, count: int, rng: random.Random) -> list[str]:
    """Names that were not said: none sounds like a part of `text`."""
    words: list[str] = []
    while len(words) < count:
        name = grammar.random_name(rng, 0.3)
        if grammar.canonical(name) not in grammar.canonical(text) and name not in words:
            words.append(name)
    return words


def long_recording(seconds: float, seed: int, *, gated: bool = False) -> Utterance:
    """Plain held-out sentences joined with pauses of 0-4 s up to about `seconds`.

    One noise lies under all of it, or, `gated`, each sentence has its own and the pauses are digital silence.
    """
    rng = random.Random(f"long/{seed}")
    spoken = utterances("plain", int(seconds / 2), seed=1000 + seed, clean=not gated)
    chosen: list[Utterance] = []
    gaps: list[float] = []
    total = 0.0
    for utterance in spoken:
        gap = gap_seconds(rng)
        if total + utterance.samples.size / SAMPLE_RATE + gap > seconds:
            break
        chosen.append(utterance)
        gaps.append(gap)
        total += utterance.samples.size / SAMPLE_RATE + gap
    parts = [u.samples for u in chosen]
    if not gated:
        parts = [
            part * np.float32(0.05 * 10 ** (rng.uniform(-4, 0) / 20) / np.sqrt(np.mean(part**2)))
            for part in parts
        ]
    samples, offsets = join(parts, gaps)
    if not gated:
        samples = disturb(samples, np.random.default_rng(seed))
    starts = np.concatenate([u.starts + o / SAMPLE_RATE for u, o in zip(chosen, offsets, strict=True)])
    return Utterance(samples, "".join(u.text for u in chosen), "", "mixed", starts)


def time_errors(judge: Judge, spoken: Sequence[Utterance]) -> dict[str, float]:
    """Error of character starts in milliseconds, over utterances recognised with the right length."""
    errors: list[float] = []
    for utterance in spoken:
        text, times = judge.hear(utterance.samples)
        if len(text) == len(utterance.text) == len(times):
            errors += [
                1000 * (heard[0] - true) for heard, true in zip(times, utterance.starts.tolist(), strict=True)
            ]
    if not errors:
        return {"characters": 0}
    size = np.abs(np.array(errors))
    return {
        "characters": len(errors),
        "mean_ms": round(float(size.mean()), 1),
        "p90_ms": round(float(np.percentile(size, 90)), 1),
        "bias_ms": round(float(np.mean(errors)), 1),
    }


def long_scores(judge: Judge, lengths: Sequence[float], each: int) -> dict[str, Any]:
    """Error rate of long recordings in one piece, without voice activity detection, and times in them."""
    out: dict[str, Any] = {}
    for seconds in lengths:
        for gated in (False, True):
            spoken = [long_recording(seconds, seed, gated=gated) for seed in range(each)]
            title = f"{seconds:g} s, {'noise that comes and goes' if gated else 'one noise'}"
            out[title] = {**asdict(judge.score(spoken, lambda _: ())), "starts": time_errors(judge, spoken)}
    return out


@dataclass(frozen=True)
class Amounts:
    """How much is heard: utterances of each set, and lengths of the long recordings in seconds."""

    plain: int
    rare: int
    named: int
    long_seconds: tuple[float, ...]


def report(directory: Path, threads: int, log: Callable[[str], None], amounts: Amounts) -> dict[str, Any]:
    """All figures of a model directory."""
    judge = Judge(directory, threads)
    sets = {
        "plain": utterances("plain", amounts.plain),
        "rare": utterances("rare", amounts.rare),
        "named": utterances("named", amounts.named),
    }
    rng = random.Random(17)
    none: Callable[[Utterance], Sequence[str]] = lambda _: ()  # noqa: E731
    foreign: Callable[[Utterance], Sequence[str]] = lambda u: absent(u.text, 10, rng)  # noqa: E731

    def among(count: int) -> Callable[[Utterance], Sequence[str]]:
        def words(utterance: Utterance) -> Sequence[str]:
            mixed = [utterance.name, *absent(utterance.text, count, rng)]
            rng.shuffle(mixed)
            return mixed

        return words

    conditions = (
        ("plain", "no hot words", none),
        ("plain", "10 absent hot words", foreign),
        ("named", "no hot words", none),
        ("named", "10 absent hot words", foreign),
        ("named", "right hot word", among(0)),
        ("rare", "no hot words", none),
        ("rare", "right hot word", among(0)),
        ("rare", "right among 10 others", among(10)),
        ("rare", "right among 59 others", among(59)),
    )
    scores: dict[str, Any] = {}
    for kind, title, offer in conditions:
        started = time.monotonic()
        score = judge.score(sets[kind], offer)
        scores[f"{kind}, {title}"] = asdict(score)
        log(f"{kind}, {title}: {score} {time.monotonic() - started:.0f}s")
    times = time_errors(judge, sets["plain"])
    log(f"times {times}")
    lengths = long_scores(judge, amounts.long_seconds, 3)
    log(f"long {lengths}")
    silence = judge.hear(np.zeros(3 * SAMPLE_RATE, np.float32))[0]
    return {"scores": scores, "starts": times, "long": lengths, "silence": silence}

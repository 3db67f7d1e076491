"""The held-out set, and error rates against it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.asr.audio import AudioReader

HELDOUT = Path(__file__).resolve().parents[1] / "data" / "heldout"


@dataclass(frozen=True)
class Utterance:
    """One held-out sentence; `name` is the rare name in it, if any."""

    samples: NDArray[np.float32]
    text: str
    name: str | None


def read_samples(path: Path) -> NDArray[np.float32]:
    """All samples of a file, 16 kHz mono."""
    with AudioReader(path) as reader:
        return np.concatenate(list(reader.blocks()))


@cache
def heldout(kind: str) -> tuple[Utterance, ...]:
    """The set `plain` or `rare`."""
    listed = json.loads((HELDOUT / "heldout.json").read_text(encoding="utf-8"))["utterances"]
    chosen = [item for item in listed if item["set"] == kind]
    files = {name: read_samples(HELDOUT / name) for name in {item["file"] for item in chosen}}
    return tuple(
        Utterance(files[item["file"]][item["start"] : item["end"]], item["text"], item["name"])
        for item in chosen
    )


def edit_distance(found: Sequence[str], wanted: Sequence[str]) -> int:
    """Levenshtein distance."""
    row = list(range(len(wanted) + 1))
    for index, left in enumerate(found, 1):
        before, row[0] = row[0], index
        for column, right in enumerate(wanted, 1):
            before, row[column] = (
                row[column],
                min(row[column] + 1, row[column - 1] + 1, before + (left != right)),
            )
    return row[-1]


@dataclass(frozen=True)
class Score:
    """Character error rate and the share of names that came out right."""

    error_rate: float
    recall: float


def score(utterances: Iterable[Utterance], recognise: Callable[[Utterance], str]) -> Score:
    """Runs a recogniser over utterances."""
    errors = characters = hits = named = 0
    for utterance in utterances:
        text = recognise(utterance)
        errors += edit_distance(text, utterance.text)
        characters += len(utterance.text)
        if utterance.name is not None:
            named += 1
            hits += utterance.name in text
    return Score(errors / characters, hits / named if named else 0.0)

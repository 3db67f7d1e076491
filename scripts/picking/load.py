"""What is sent to a fleet: files of a few lengths, at moments of chance, so many hours of audio a day."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from scripts.picking.errors import InputError

# The crowd of `make bench-service`: 64 files, 87 s on average.
DEFAULT_FILES = "2:12,5:8,10:8,30:16,60:12,300:6,1200:2"
_LONGEST = 7 * 86400.0


@dataclass(frozen=True)
class Files:
    """Lengths in seconds, and how many of each there are among the files."""

    seconds: tuple[float, ...]
    weights: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Seconds of audio of a file, on average."""
        return sum(length * share for length, share in zip(self.seconds, self.shares))

    @property
    def shares(self) -> tuple[float, ...]:
        """The weights as parts of 1."""
        return tuple(weight / sum(self.weights) for weight in self.weights)


def files_of(text: str) -> Files:
    """Reads "LENGTH:WEIGHT,LENGTH:WEIGHT"; a weight that is left out is 1.

    Raises:
        InputError: it is something else, or a length is not above 0 and below a week.
    """
    seconds, weights = [], []
    for part in text.split(","):
        found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)(?::(\d{1,9}(?:\.\d{1,9})?))?", part.strip())
        length, weight = (float(found[1]), float(found[2] or 1)) if found else (0.0, 0.0)
        if not 0 < length <= _LONGEST or weight <= 0:
            raise InputError(
                f"--files {text!r}: {part.strip()!r} is no length with a weight",
                f"Give lengths in seconds and how many there are of each, such as {DEFAULT_FILES}.",
            )
        seconds.append(length)
        weights.append(weight)
    return Files(tuple(seconds), tuple(weights))


def poisson(files: Files, per_second: float, count: int, seed: int) -> Iterator[tuple[float, float]]:
    """Arrivals that know nothing of one another: (seconds since the start, seconds of audio).

    Args:
        per_second: files a second, on average.
        seed: the same gives the same arrivals.
    """
    chance, now = random.Random(seed), 0.0
    lengths = chance.choices(files.seconds, files.weights, k=count)
    for length in lengths:
        now += chance.expovariate(per_second)
        yield now, length

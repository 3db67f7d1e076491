"""The worker process around a backend that fails where it is told to: `python -m tests.fakes.faulty_worker FD OPTIONS`.

The option `model` names a file with a line for each failure to come: the call (prepare, encode_hotwords, recognise) and
the class of the error. A line is eaten by its call, so that the next process goes on where this one ended.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.asr.backend import EncodedHotwords
from app.asr.engine import EngineOptions
from app.asr.errors import DeviceLostError, DeviceMemoryError
from app.asr.joining import Recognition
from app.asr.memory import MIB, Budget, CostModel
from app.asr.opening import Opened
from app.asr.running import Station
from app.asr.written_text import TextVocabulary
from app.service import worker_main
from tests.fakes.backend import FakeBackend, FakeMemory

COST = CostModel(fixed=1 * MIB, per_frame=20_000)


@dataclass
class FaultyBackend(FakeBackend):
    """Fails as `plan` says."""

    plan: Path = Path()

    def _perhaps_fail(self, call: str) -> None:
        lines = self.plan.read_text(encoding="ascii").splitlines()
        if not lines or lines[0].split()[0] != call:
            return
        self.plan.write_text("\n".join(lines[1:]), encoding="ascii")
        kind = lines[0].split()[1]
        if kind == "lost":
            raise DeviceLostError("CUDA error: unspecified launch failure", fix="none")
        if kind == "memory":
            raise DeviceMemoryError("CUDA out of memory", fix="none")
        raise RuntimeError("something nobody thought of")

    def prepare(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        self._perhaps_fail("prepare")
        return super().prepare(samples)

    def encode_hotwords(self, words: Sequence[Sequence[int]]) -> EncodedHotwords:
        self._perhaps_fail("encode_hotwords")
        return super().encode_hotwords(words)

    def recognise(
        self, batch: Sequence[NDArray[np.float32]], hotwords: EncodedHotwords | None
    ) -> list[Recognition]:
        self._perhaps_fail("recognise")
        return super().recognise(batch, hotwords)


def opened(options: EngineOptions) -> Opened:
    """A model on a device that will fail."""
    backend = FaultyBackend(FakeMemory(60 * MIB), COST, device="cuda:0", plan=Path(options.model))
    station = Station(backend, Budget(backend.memory, limit=None, working=8 * MIB, reserve=0), COST)
    directory = Path(options.model).parent  # so that ids are told, not words
    return Opened("fake", TextVocabulary(), True, station, None, directory=directory)


if __name__ == "__main__":
    vars(worker_main)["open_model"] = opened
    sys.exit(worker_main.main(sys.argv[1:]))

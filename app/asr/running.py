"""Running prepared segments within the memory there is, whatever happens.

Here: the loop that plans a batch, runs it, and knows what to do when it did not fit: release, halve, retry, remember,
count; cut a segment that cannot fit alone; then go on with another backend, with the reason; then refuse.
What a batch costs is memory.py's, how batches are formed batching.py's, what runs them a backend's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from app.asr.backend import Backend, EncodedHotwords
from app.asr.batching import BatchLimits, cut_frames, next_batch
from app.asr.errors import AsrError, DeviceMemoryError, MemoryShortageError, NumericError
from app.asr.joining import Joiner, Recognition
from app.asr.memory import SIDE_BY_SIDE_BYTES, BatchShape, Budget, CostModel
from app.asr.timing import FRAME_SECONDS

Prepared = NDArray[np.float32]

# A segment that does not fit is cut into pieces that hear this much of each other, and no shorter than that.
OVERLAP_FRAMES = 34  # 2 s
SHORTEST_PIECE_FRAMES = 4 * OVERLAP_FRAMES
_RETRIES = 8


@dataclass
class RunStatistics:
    """What has been run so far; padded frames include the real ones."""

    batches: int = 0
    segments: int = 0
    frames: int = 0
    padded_frames: int = 0
    out_of_memory: int = 0
    budget_bytes: int | None = None  # for the newest batch, beside the weights
    predicted_bytes: int | None = None  # the most that was to be held at once, weights included
    cut_segments: int = 0
    fallbacks: list[str] = field(default_factory=list)

    @property
    def padding(self) -> float:
        """Share of the frames that was padding."""
        return 1.0 - self.frames / self.padded_frames if self.padded_frames else 0.0


@dataclass
class Station:
    """A backend with its cost model and budget; `cost` None plans nothing and runs one segment at a time.

    `longest_seconds` is what the model can take at once, where it has such a limit.
    """

    backend: Backend
    budget: Budget | None = None
    cost: CostModel | None = None
    longest_seconds: float | None = None


# Called with why the present backend cannot go on; gives the next one, or raises when there is none.
Fallback = Callable[[AsrError], Station]


class BatchRunner:
    """Runs segments on a station. One instance belongs to one thread.

    Args:
        station: where to run.
        batch_size: segments at once at most, whatever memory there is.
        fallback: where to go on when the station cannot.
    """

    def __init__(self, station: Station, *, batch_size: int | None, fallback: Fallback | None = None) -> None:
        self._station, self._batch_size, self._fallback = station, batch_size, fallback
        self.statistics = RunStatistics()

    @property
    def backend(self) -> Backend:
        """The backend in use now."""
        return self._station.backend

    def longest_seconds(self, hotwords: EncodedHotwords | None) -> float | None:
        """The longest segment that fits right now; None where there is no limit. Cutting files no longer than that
        is better than cutting a segment later, as silences are known then."""
        budget, cost = self._station.budget, self._station.cost
        if budget is None or cost is None:
            return self._station.longest_seconds
        return cost.longest(budget.now(), len(hotwords) if hotwords is not None else 0) * FRAME_SECONDS

    @property
    def most_rows(self) -> int:
        """Segments that it is worth offering at once."""
        if self._station.cost is None:
            return 1
        return min(self._station.backend.most_rows, self._batch_size or self._station.backend.most_rows)

    def run(self, segments: Sequence[Prepared], hotwords: EncodedHotwords | None) -> list[Recognition]:
        """All segments, each on its own terms, in the order given.

        Raises:
            MemoryShortageError: a segment does not fit anywhere now.
            DeviceLostError: the device failed.
        """
        found: dict[int, Recognition] = {}
        waiting = list(range(len(segments)))
        hotwords = self._translated(hotwords)
        while waiting:
            try:
                places, results = self._step([segments[index] for index in waiting], hotwords)
            except (DeviceMemoryError, NumericError) as error:
                self._go_elsewhere(error)
                hotwords = self._translated(hotwords)
                continue
            for place, result in zip(places, results, strict=True):
                found[waiting[place]] = result
            waiting = [index for index in waiting if index not in found]
        return [found[index] for index in range(len(segments))]

    def _step(
        self, waiting: Sequence[Prepared], hotwords: EncodedHotwords | None
    ) -> tuple[list[int], list[Recognition]]:
        """Runs one batch; gives the places it took of `waiting`, and their results."""
        lengths = [len(segment) for segment in waiting]
        for _ in range(_RETRIES):
            places = self._next(lengths, hotwords)
            if not places:
                longest = max(range(len(lengths)), key=lambda place: lengths[place])
                return [longest], [self._in_pieces(waiting[longest], hotwords)]
            try:
                return places, self._attempt([waiting[place] for place in places], hotwords)
            except DeviceMemoryError:
                alone = len(places) == 1 and lengths[places[0]] <= SHORTEST_PIECE_FRAMES
                if alone or self._station.cost is None:
                    raise
        raise DeviceMemoryError(
            f"{self.backend.device} ran out of memory {_RETRIES} times, with ever smaller batches",
            fix="Stop other programs on it, or use --device cpu.",
        )

    def _next(self, lengths: Sequence[int], hotwords: EncodedHotwords | None) -> list[int]:
        budget, cost = self._station.budget, self._station.cost
        if budget is None or cost is None:
            return [0]
        count = len(hotwords) if hotwords is not None else 0
        together = None if self.backend.pads else SIDE_BY_SIDE_BYTES
        return next_batch(lengths, cost, BatchLimits(budget.now(), self.most_rows, count, together))

    def _attempt(self, batch: Sequence[Prepared], hotwords: EncodedHotwords | None) -> list[Recognition]:
        """Runs a batch; when it does not fit, that is counted and remembered before the error goes on."""
        backend, budget, cost = self._station.backend, self._station.budget, self._station.cost
        longest = max(len(segment) for segment in batch)
        shape = BatchShape(len(batch), longest, len(hotwords) if hotwords is not None else 0)
        self._note_plan(shape)
        try:
            results = backend.recognise(batch, hotwords)
        except DeviceMemoryError:
            self.statistics.out_of_memory += 1
            backend.release()
            if budget is not None and cost is not None:
                budget.did_not_fit(cost.bytes(shape), int(cost.least))
            raise
        if budget is not None:
            budget.fitted()
        self.statistics.batches += 1
        self.statistics.segments += len(batch)
        frames = sum(len(segment) for segment in batch)
        self.statistics.frames += frames
        self.statistics.padded_frames += len(batch) * longest if backend.pads else frames
        return results

    def _note_plan(self, shape: BatchShape) -> None:
        """Keeps what was planned, so that it can be compared with what was taken."""
        budget, cost, found = self._station.budget, self._station.cost, self.statistics
        if budget is None or cost is None:
            return
        found.budget_bytes = budget.now()
        predicted = self.backend.memory.held() + cost.bytes(shape)
        found.predicted_bytes = max(found.predicted_bytes or 0, predicted)

    def _in_pieces(self, segment: Prepared, hotwords: EncodedHotwords | None) -> Recognition:
        """One segment that does not fit alone, cut where it must be and joined again."""
        budget, cost = self._station.budget, self._station.cost
        most = len(segment)
        if budget is not None and cost is not None:
            most = cost.longest(budget.now(), len(hotwords) if hotwords is not None else 0)
        if most < SHORTEST_PIECE_FRAMES:
            raise DeviceMemoryError(
                f"{self.backend.device} has no room for {FRAME_SECONDS * SHORTEST_PIECE_FRAMES:.0f} s of audio",
                fix="Stop other programs on it, raise --vram-limit, or use --device cpu.",
            )
        self.statistics.cut_segments += 1
        joiner, tokens, end = Joiner(), [], 0
        # Features are logarithms of energy, or samples: either way the mean of what is far from zero is loud.
        loudness = segment.reshape(len(segment), -1).mean(axis=1)
        for first, last in cut_frames(loudness, most, OVERLAP_FRAMES):
            [found] = self.run([segment[first:last]], hotwords)
            overlap = max(0, end - first)
            seconds = (first * FRAME_SECONDS, overlap * FRAME_SECONDS, (last - first) * FRAME_SECONDS)
            tokens.append(joiner.add(*seconds, found))
            end = last
        tokens.append(joiner.flush())
        return Recognition(
            ids=np.concatenate([part.ids for part in tokens]),
            starts=np.concatenate([part.starts for part in tokens]).astype(np.float32),
            ends=np.concatenate([part.ends for part in tokens]).astype(np.float32),
        )

    def _go_elsewhere(self, error: AsrError) -> None:
        if self._fallback is None:
            if isinstance(error, NumericError):
                raise error
            raise MemoryShortageError(error.problem, fix=error.fix) from error
        self._station = self._fallback(error)
        self.statistics.budget_bytes = self.statistics.predicted_bytes = None  # those of another device
        self.statistics.fallbacks.append(error.problem)

    def _translated(self, hotwords: EncodedHotwords | None) -> EncodedHotwords | None:
        """Hot words as the present backend takes them."""
        if hotwords is None or hotwords.owner is self.backend:
            return hotwords
        return self.backend.encode_hotwords(hotwords.words)

"""The pipeline in reading order: file -> blocks -> segments -> features -> tokens -> words (with marks) -> utterances.

Decoding, finding speech and features run in a thread of their own, a few segments ahead of the network; the queue
between them is bounded, so that a ten-hour file takes the memory of a one-minute file. The words of a segment are
given out while later audio is still being decoded.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from app.asr.audio import SAMPLE_RATE, AudioReader
from app.asr.backend import Backend, EncodedHotwords
from app.asr.engine import (
    DEFAULT_JOIN_SECONDS,
    DEFAULT_SEGMENT_SECONDS,
    MIN_SEGMENT_SECONDS,
    EngineOptions,
)
from app.asr.errors import AsrError, InputError
from app.asr.hotwords import HotwordSet
from app.asr.joining import Joiner
from app.asr.marks import described
from app.asr.opening import Opened, open_model, open_next
from app.asr.punctuation import Punctuation, open_punctuation
from app.asr.running import BatchRunner, RunStatistics, Station
from app.asr.segments import cut
from app.asr.selfcheck import Verdict
from app.asr.tokens import Vocabulary
from app.asr.transcript import Utterance
from app.asr.utterances import UtteranceBuilder

_SEGMENTS_AHEAD = 2
_ESTIMATED = "this model gives no times of words; those written here are spread evenly over the speech"
# A window of segments is offered to the backend at once, which makes batches of it. The first is one segment, so that
# words come soon; each next one is so many times larger, up to what the backend gains from.
_WINDOW_GROWTH = 4


@dataclass(frozen=True)
class _Prepared:
    """A segment ready for the backend; samples are no longer needed."""

    start_seconds: float
    overlap_seconds: float
    duration_seconds: float
    features: NDArray[np.float32]


@dataclass(frozen=True)
class _Machinery:
    """What every file of an engine shares."""

    runner: BatchRunner
    vocabulary: Vocabulary
    punctuation: Punctuation | None
    max_seconds: float
    join_seconds: float


class Transcriber:
    """A loaded model. Use it from one thread, for one file at a time."""

    def __init__(self, opened: Opened, options: EngineOptions) -> None:
        self._opened, self._options = opened, options
        self._machinery = _Machinery(
            runner=BatchRunner(opened.station, batch_size=options.batch_size, fallback=self._go_on),
            vocabulary=opened.vocabulary,
            punctuation=open_punctuation(options.punctuation),
            max_seconds=options.segment_seconds or DEFAULT_SEGMENT_SECONDS,
            join_seconds=options.segment_seconds or DEFAULT_JOIN_SECONDS,
        )

    @classmethod
    def open(cls, options: EngineOptions) -> Transcriber:
        """Finds, checks and loads a model, on the device that suits it best.

        Raises:
            PackError: it is missing, damaged, or of another precision than asked for.
            DeviceError: the device asked for cannot be used.
            ResourceError: it would not fit into the memory this process may use.
        """
        return cls(open_model(options), options)

    def _go_on(self, error: AsrError) -> Station:
        self._opened = open_next(self._opened, self._options, error)
        return self._opened.station

    @property
    def model(self) -> str:
        """Name of the model."""
        return self._opened.name

    @property
    def precision(self) -> str:
        """Precision it runs in."""
        return self._machinery.runner.backend.precision

    @property
    def device(self) -> str:
        """Device it runs on."""
        return self._machinery.runner.backend.device

    @property
    def reasons(self) -> Sequence[str]:
        """Why it runs there and in that precision, and why not elsewhere."""
        return self._opened.reasons

    @property
    def verdict(self) -> Verdict | None:
        """Of the self-check at start; None when the model has no golden clip."""
        return self._opened.verdict

    @property
    def statistics(self) -> RunStatistics:
        """What was run so far."""
        return self._machinery.runner.statistics

    @property
    def device_peak_bytes(self) -> int | None:
        """The most GPU memory that was held at once; None on a CPU."""
        return self._opened.station.backend.memory.peak() if self.device != "cpu" else None

    @property
    def vocabulary(self) -> Vocabulary:
        """Its tokens."""
        return self._machinery.vocabulary

    @property
    def punctuation(self) -> str:
        """A clause that says whether and by what model text is punctuated."""
        return described(self._machinery.punctuation, self.vocabulary)

    def transcribe(self, source: Path, hotwords: HotwordSet | None = None) -> FileTranscription:
        """Begins with a file.

        Raises:
            InputError: hot words for a model without them, or loaded without them.
        """
        encoded = None
        if hotwords is not None and hotwords.ids:
            if not self._opened.has_hotwords:
                raise InputError(f"The model {self.model} has no hot words", fix="Leave --hotwords out.")
            if not self._options.hotwords:
                raise InputError(
                    "The hot-word part was not loaded", fix="Start again without `--hotwords off`."
                )
            encoded = self._machinery.runner.backend.encode_hotwords(hotwords.ids)
        return FileTranscription(self._machinery, source, encoded)

    def __enter__(self) -> Transcriber:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Nothing to close: sessions go with the object."""


class FileTranscription:
    """One file on its way; iterate once over its utterances."""

    def __init__(self, machinery: _Machinery, source: Path, hotwords: EncodedHotwords | None) -> None:
        self._machinery = machinery
        self._hotwords = hotwords
        self._started = time.perf_counter()
        self._reader = AudioReader(source)
        self._decoded_samples = 0
        self._done_seconds = 0.0
        self.elapsed_seconds = 0.0

    @property
    def audio_seconds(self) -> float:
        """Length of what has been decoded so far; of the file, when all utterances have been given."""
        return self._decoded_samples / SAMPLE_RATE

    @property
    def rtf(self) -> float:
        """Real-time factor: seconds of work for a second of audio."""
        return self.elapsed_seconds / self.audio_seconds if self._decoded_samples else 0.0

    @property
    def notes(self) -> Sequence[str]:
        """Sentences about damage in the file that was worked around; complete at the end."""
        spread = getattr(self._machinery.runner.backend, "times_are_estimated", False)
        return [*self._reader.notes, *([_ESTIMATED] if spread else [])]

    @property
    def progress(self) -> tuple[float, float | None]:
        """Seconds recognised, and the length the file gives for itself (None if it gives none)."""
        return self._done_seconds, self._reader.info.duration_seconds

    def __iter__(self) -> Iterator[Utterance]:
        joiner = Joiner()
        builder = UtteranceBuilder(self._machinery.vocabulary, self._machinery.punctuation)
        runner = self._machinery.runner
        prepared = _Ahead(self._prepare(runner.backend), max(_SEGMENTS_AHEAD, runner.most_rows))
        try:
            for window in _windows(prepared, runner):
                results = runner.run([part.features for part in window], self._hotwords)
                for part, found in zip(window, results, strict=True):
                    settled = joiner.add(
                        part.start_seconds, part.overlap_seconds, part.duration_seconds, found
                    )
                    self._done_seconds = part.start_seconds + part.duration_seconds
                    yield from builder.add(settled)
            yield from builder.add(joiner.flush())
            yield from builder.flush()
        finally:
            prepared.close()
            self._reader.close()
            self.elapsed_seconds = time.perf_counter() - self._started

    def _prepare(self, backend: Backend) -> Iterator[_Prepared]:
        """Runs in the thread ahead: everything before the backend's own work."""
        fits = self._machinery.runner.longest_seconds(self._hotwords)
        longest = self._machinery.max_seconds
        if fits is not None:
            longest = max(MIN_SEGMENT_SECONDS, min(longest, fits))
        join = min(longest, self._machinery.join_seconds)
        parts = cut(self._blocks(), max_seconds=longest, join_seconds=join)
        for segment in parts:
            yield _Prepared(
                start_seconds=segment.start / SAMPLE_RATE,
                overlap_seconds=segment.overlap / SAMPLE_RATE,
                duration_seconds=len(segment.samples) / SAMPLE_RATE,
                features=backend.prepare(segment.samples),
            )

    def _blocks(self) -> Iterator[NDArray[np.float32]]:
        for block in self._reader.blocks():
            self._decoded_samples += len(block)
            yield block


def _windows(prepared: Iterable[_Prepared], runner: BatchRunner) -> Iterator[list[_Prepared]]:
    """Segments in portions that grow from one to what the backend takes at once, whenever they arrive: which
    segments share a batch then depends on the file alone."""
    window: list[_Prepared] = []
    size = 1
    for part in prepared:
        window.append(part)
        if len(window) >= min(size, runner.most_rows):
            yield window
            window, size = [], size * _WINDOW_GROWTH
    if window:
        yield window


class _Ahead:
    """Runs an iterator in a thread, a bounded number of items ahead; its exception comes out where it is consumed."""

    _END = object()

    def __init__(self, items: Iterator[_Prepared], most: int) -> None:
        self._queue: queue.Queue[object] = queue.Queue(maxsize=most)
        self._stop = threading.Event()
        self._items = items
        self._thread = threading.Thread(target=self._fill, name="asr-prepare", daemon=True)
        self._thread.start()

    def _fill(self) -> None:
        last: object = self._END
        try:
            for item in self._items:
                if not self._put(item):
                    return
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the consumer
            last = error
        self._put(last)

    def _put(self, item: object) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def __iter__(self) -> Iterator[_Prepared]:
        while True:
            item = self._queue.get()
            if isinstance(item, _Prepared):
                yield item
            elif isinstance(item, Exception):
                raise item
            else:
                return

    def close(self) -> None:
        """Stops the thread; what it has prepared is dropped."""
        self._stop.set()
        self._thread.join()

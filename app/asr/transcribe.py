"""The pipeline in reading order: file -> blocks -> segments -> features -> tokens -> words -> utterances.

Decoding, finding speech and features run in a thread of their own, a few segments ahead of the network; the queue
between them is bounded, so that a ten-hour file takes the memory of a one-minute file. The words of a segment are
given out while later audio is still being decoded.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from app.asr.audio import SAMPLE_RATE, AudioReader, Frontend
from app.asr.backend import Backend, EncodedHotwords
from app.asr.catalogue import find_pack
from app.asr.engine import DEFAULT_JOIN_SECONDS, DEFAULT_SEGMENT_SECONDS, EngineOptions
from app.asr.errors import InputError, PackError, ResourceError
from app.asr.host import cpu_grant, memory_grant
from app.asr.hotwords import HotwordSet
from app.asr.joining import Joiner, TimedTokens
from app.asr.onnx_backend import OnnxBackend
from app.asr.pack import WEIGHTS, Pack
from app.asr.segments import cut
from app.asr.tokens import Vocabulary, Word, WordAssembler
from app.asr.transcript import Utterance

# A pause of this length between two words ends an utterance.
UTTERANCE_PAUSE_SECONDS = 0.5
UTTERANCE_WORDS = 80
_SEGMENTS_AHEAD = 2
# Interpreter, libraries and activations beside the weights, and what loading needs over the size of the weights.
_BASE_BYTES = 250 << 20
_LOAD_FACTOR = {"int8": 1.2, "fp32": 2.2, "fp16": 4.4}


@dataclass(frozen=True)
class _Prepared:
    """A segment ready for the network; samples are no longer needed."""

    start_seconds: float
    overlap_seconds: float
    duration_seconds: float
    features: NDArray[np.float32]


@dataclass(frozen=True)
class _Machinery:
    """What every file of an engine shares."""

    backend: Backend
    frontend: Frontend
    vocabulary: Vocabulary
    max_seconds: float
    join_seconds: float


class Transcriber:
    """A loaded model on the CPU. Use it from one thread, for one file at a time."""

    def __init__(self, pack: Pack, backend: Backend, options: EngineOptions) -> None:
        self._pack = pack
        self._hotwords_loaded = options.hotwords
        self._machinery = _Machinery(
            backend=backend,
            frontend=Frontend(pack.frontend),
            vocabulary=pack.vocabulary,
            max_seconds=options.segment_seconds or DEFAULT_SEGMENT_SECONDS,
            join_seconds=options.segment_seconds or DEFAULT_JOIN_SECONDS,
        )

    @classmethod
    def open(cls, options: EngineOptions) -> Transcriber:
        """Finds, checks and loads a pack.

        Raises:
            PackError: it is missing, damaged, or of another precision than asked for.
            ResourceError: it would not fit into the memory this process may use.
        """
        pack = Pack.open(find_pack(options.model, options.precision))
        if options.precision not in ("auto", pack.precision):
            raise PackError(
                f"{pack.directory} is an {pack.precision} pack, and {options.precision} was asked for",
                fix="Leave --precision at auto, or make such a pack.",
            )
        _check_memory(pack)
        backend = OnnxBackend(pack, threads=options.threads or cpu_grant().cores)
        return cls(pack, backend, options)

    @property
    def model(self) -> str:
        """Name of the model."""
        return self._pack.name

    @property
    def precision(self) -> str:
        """Precision it runs in."""
        return self._machinery.backend.precision

    @property
    def vocabulary(self) -> Vocabulary:
        """Its tokens."""
        return self._machinery.vocabulary

    def transcribe(self, source: Path, hotwords: HotwordSet | None = None) -> FileTranscription:
        """Begins with a file.

        Raises:
            InputError: hot words for a model without them, or loaded without them.
        """
        encoded = None
        if hotwords is not None and hotwords.ids:
            if not self._pack.manifest.architecture.has_hotwords:
                raise InputError(f"The model {self.model} has no hot words", fix="Leave --hotwords out.")
            if not self._hotwords_loaded:
                raise InputError(
                    "The hot-word part was not loaded", fix="Start again without `--hotwords off`."
                )
            encoded = self._machinery.backend.encode_hotwords(hotwords.ids)
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
        return self._reader.notes

    @property
    def progress(self) -> tuple[float, float | None]:
        """Seconds recognised, and the length the file gives for itself (None if it gives none)."""
        return self._done_seconds, self._reader.info.duration_seconds

    def __iter__(self) -> Iterator[Utterance]:
        joiner, builder = Joiner(), _UtteranceBuilder(self._machinery.vocabulary)
        prepared = _Ahead(self._prepare())
        try:
            for part in prepared:
                found = self._machinery.backend.recognise(part.features, self._hotwords)
                settled = joiner.add(part.start_seconds, part.overlap_seconds, part.duration_seconds, found)
                self._done_seconds = part.start_seconds + part.duration_seconds
                yield from builder.add(settled)
            yield from builder.add(joiner.flush())
            yield from builder.flush()
        finally:
            prepared.close()
            self._reader.close()
            self.elapsed_seconds = time.perf_counter() - self._started

    def _prepare(self) -> Iterator[_Prepared]:
        """Runs in the thread ahead: everything before the network."""
        parts = cut(
            self._blocks(), max_seconds=self._machinery.max_seconds, join_seconds=self._machinery.join_seconds
        )
        for segment in parts:
            yield _Prepared(
                start_seconds=segment.start / SAMPLE_RATE,
                overlap_seconds=segment.overlap / SAMPLE_RATE,
                duration_seconds=len(segment.samples) / SAMPLE_RATE,
                features=self._machinery.frontend.features(segment.samples),
            )

    def _blocks(self) -> Iterator[NDArray[np.float32]]:
        for block in self._reader.blocks():
            self._decoded_samples += len(block)
            yield block


class _Ahead:
    """Runs an iterator in a thread, a bounded number of items ahead; its exception comes out where it is consumed."""

    _END = object()

    def __init__(self, items: Iterator[_Prepared]) -> None:
        self._queue: queue.Queue[object] = queue.Queue(maxsize=_SEGMENTS_AHEAD)
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


class _UtteranceBuilder:
    """Settled tokens in, utterances out: words up to a pause, or up to so many that a reader should not wait longer."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._assembler = WordAssembler(vocabulary)
        self._words: list[Word] = []

    def add(self, tokens: TimedTokens) -> Iterator[Utterance]:
        for word in self._assembler.add(tokens.ids, tokens.starts, tokens.ends):
            if self._words and self._ends_before(word):
                yield self._close()
            self._words.append(word)

    def flush(self) -> Iterator[Utterance]:
        self._words += self._assembler.flush()
        if self._words:
            yield self._close()

    def _ends_before(self, word: Word) -> bool:
        pause = word.start - self._words[-1].end
        return pause >= UTTERANCE_PAUSE_SECONDS or len(self._words) >= UTTERANCE_WORDS

    def _close(self) -> Utterance:
        words, self._words = tuple(self._words), []
        return Utterance(words[0].start, words[-1].end, words)


def _check_memory(pack: Pack) -> None:
    available = memory_grant().available
    if available is None:
        return
    needed = _BASE_BYTES + int(_LOAD_FACTOR[pack.precision] * pack.path(WEIGHTS).stat().st_size)
    if needed > available:
        raise ResourceError(
            f"Loading {pack.name} ({pack.precision}) may need {needed >> 20} MB of memory, "
            f"and this process may use {available >> 20} MB",
            fix="Raise the memory limit, stop other programs, or use an int8 pack.",
        )

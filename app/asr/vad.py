"""Where in a stream of samples somebody speaks.

Lives here: level adjustment, hysteresis, padding, and the bookkeeping that makes the result the same for
any block size. The network that gives the probabilities is silero.py; making segments is segments.py.

The settings lean to keeping: noise kept costs a little time, a lost word is lost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from app.asr.resampling import SAMPLE_RATE, Samples
from app.asr.silero import CHUNK, Scorer, make_scorer

BATCH = 16 * CHUNK  # samples scored at once; always the same, so that rounding is too


@dataclass(frozen=True)
class SpeechSpan:
    """Speech from sample `start` up to, not including, sample `end`."""

    start: int
    end: int


@dataclass(frozen=True)
class VadOptions:
    """How probabilities become spans."""

    start_probability: float = 0.3  # a chunk of 32 ms at or above this begins speech
    stop_probability: float = 0.15  # speech goes on while chunks are at or above this
    min_silence_seconds: float = 0.35  # shorter pauses do not end speech; must not be less than the padding
    min_speech_seconds: float = 0.06  # what is shorter is a click
    padding_seconds: float = 0.25  # added before and after, as far as the neighbours leave room
    target_peak: float = 0.25  # quiet recordings are scored as if their peak were this
    max_gain: float = 32.0  # but never raised by more than 30 dB
    peak_half_life_seconds: float = 10.0  # how slowly a loud moment is forgotten


class SpeechDetector:
    """Streaming detector; feed it with push(), end with flush(), then throw it away.

    Attributes:
        settled: all speech before this sample is known: it lies in spans given out, or after `running`.
        running: first sample of speech that has not ended yet, or None.
    """

    def __init__(self, options: VadOptions | None = None, scorer: Scorer | None = None) -> None:
        self._options = options or VadOptions()
        self._scorer = scorer or make_scorer()
        self._pending: Samples = np.zeros(0, np.float32)
        self._received = 0  # samples
        self._scored = 0  # chunks
        self._peak = 0.0
        self._begin: int | None = None  # chunk that began the running speech
        self._voiced = 0  # chunk after the last one of the running speech
        self._last_end = 0  # sample
        self._padding = round(self._options.padding_seconds * SAMPLE_RATE)
        self._silence = max(1, math.ceil(self._options.min_silence_seconds * SAMPLE_RATE / CHUNK))
        self._forget = 0.5 ** (CHUNK / SAMPLE_RATE / self._options.peak_half_life_seconds)

    @property
    def running(self) -> int | None:
        return None if self._begin is None else self._padded_start(self._begin)

    @property
    def settled(self) -> int:
        running = self.running
        return self._padded_start(self._scored) if running is None else running

    def push(self, block: Samples) -> list[SpeechSpan]:
        """Spans that ended, given float32 samples of shape (n,) that follow the previous ones."""
        self._received += len(block)
        self._pending = np.concatenate([self._pending, block])
        spans: list[SpeechSpan] = []
        usable = len(self._pending) // BATCH * BATCH
        for start in range(0, usable, BATCH):
            spans += self._score(self._pending[start : start + BATCH], BATCH // CHUNK)
        self._pending = self._pending[usable:].copy()
        return spans

    def flush(self) -> list[SpeechSpan]:
        """Spans that the end of the stream ends."""
        spans: list[SpeechSpan] = []
        if len(self._pending):
            batch = np.zeros(BATCH, np.float32)
            batch[: len(self._pending)] = self._pending
            spans = self._score(batch, math.ceil(len(self._pending) / CHUNK))
            self._pending = self._pending[:0]
        return spans + self._close()

    def _score(self, batch: Samples, count: int) -> list[SpeechSpan]:
        chunks = batch.reshape(-1, CHUNK)
        probabilities = self._scorer.score(chunks * self._gains(chunks)[:, np.newaxis])
        spans: list[SpeechSpan] = []
        for probability in probabilities[:count]:
            spans += self._step(float(probability))
        return spans

    def _gains(self, chunks: Samples) -> Samples:
        """Each chunk's gain from the loudest sample lately heard, the chunk itself included."""
        gains = np.empty(len(chunks), np.float32)
        for index, peak in enumerate(np.abs(chunks).max(axis=1)):
            self._peak = max(float(peak), self._peak * self._forget)
            wanted = self._options.target_peak / max(self._peak, 1e-9)
            gains[index] = min(max(wanted, 1.0), self._options.max_gain)
        return gains

    def _step(self, probability: float) -> list[SpeechSpan]:
        chunk, self._scored = self._scored, self._scored + 1
        if self._begin is None:
            if probability >= self._options.start_probability:
                self._begin, self._voiced = chunk, chunk + 1
        elif probability >= self._options.stop_probability:
            self._voiced = chunk + 1
        elif self._scored - self._voiced >= self._silence:
            return self._close()
        return []

    def _close(self) -> list[SpeechSpan]:
        begin, self._begin = self._begin, None
        if begin is None or (self._voiced - begin) * CHUNK < self._options.min_speech_seconds * SAMPLE_RATE:
            return []
        span = SpeechSpan(
            self._padded_start(begin), min(self._received, self._voiced * CHUNK + self._padding)
        )
        self._last_end = span.end
        return [span]

    def _padded_start(self, chunk: int) -> int:
        return max(self._last_end, chunk * CHUNK - self._padding)

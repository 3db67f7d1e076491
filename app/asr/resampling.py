"""Samples between two shapes: any sample format and channels to mono, any rate to 16 kHz.

Lives here: the mixer and the resampler, fed by audio.py frame by frame. No files, no containers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import av
import av.error
import av.filter
import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]

SAMPLE_RATE = 16_000  # Hz, what the network hears

_LIMIT_BEFORE_MIXING = 8.0  # times full scale; keeps the resampler's sums finite
_FLUSH_SECONDS = 0.2  # silence pushed through the resampler so that the last real sample comes out
_MANY_PLANES = 8


class Mixer:
    """One decoded frame of any sample format and channel count as its channels' mean, shape (samples,)."""

    def __init__(self) -> None:
        self._packers: dict[tuple[str, str, int], av.AudioResampler] = {}

    def __call__(self, frame: Any) -> Samples:
        channels = max(1, len(frame.layout.channels))
        if frame.format.is_planar and channels >= _MANY_PLANES:
            parts = self._packed(frame)
        else:
            parts = [frame]
        mixed = [_mean(part.to_ndarray(), 1 if part.format.is_planar else channels) for part in parts]
        return mixed[0] if len(mixed) == 1 else np.concatenate([*mixed, np.zeros(0, np.float32)])

    def _packed(self, frame: Any) -> list[Any]:
        """PyAV 18 reads past the end of eight or more planes and dies: let FFmpeg interleave them first."""
        key = (frame.format.name, frame.layout.name, frame.sample_rate)
        if key not in self._packers:
            self._packers = {key: av.AudioResampler(format="flt")}
        return list(self._packers[key].resample(frame))


def _mean(raw: NDArray[Any], interleaved: int) -> Samples:
    """Mean over channels of (channels, samples), or of (1, samples * interleaved); full scale becomes 1."""
    if interleaved > 1:
        raw = raw.reshape(-1, interleaved).T
    if raw.dtype.kind == "u":
        values = (raw.astype(np.float32) - 128.0) / 128.0  # 8-bit is the only unsigned format
    elif raw.dtype.kind == "i":
        values = raw.astype(np.float32) / np.float32(2.0 ** (8 * raw.dtype.itemsize - 1))
    else:
        bounded = np.clip(raw, -_LIMIT_BEFORE_MIXING, _LIMIT_BEFORE_MIXING)
        values = np.where(np.isfinite(raw), bounded, 0.0).astype(np.float32)
    mono: Samples = values[0] if len(values) == 1 else values.mean(axis=0, dtype=np.float32)
    return mono


class Resampler:
    """Mono float32 from `rate` to 16 kHz through libswresample, made exact in length."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._taken = 0  # samples in
        self._given = 0  # samples out
        self._graph: av.filter.Graph | None = None if rate == SAMPLE_RATE else _resampling_graph(rate)

    def push(self, mono: Samples) -> Iterator[Samples]:
        self._taken += len(mono)
        yield from self._through(mono)

    def finish(self) -> Iterator[Samples]:
        """What is still inside; silence is pushed after it, and cut off, to fix the count."""
        if self._graph is not None:
            yield from self._through(np.zeros(math.ceil(_FLUSH_SECONDS * self.rate), np.float32))
            yield from self._through(None)

    def _through(self, mono: Samples | None) -> Iterator[Samples]:
        for piece in [mono] if self._graph is None else self._filtered(mono):
            if piece is None:
                continue
            allowed = -(-self._taken * SAMPLE_RATE // self.rate) - self._given
            piece = np.clip(piece[: max(0, allowed)], -1.0, 1.0)
            self._given += len(piece)
            yield piece

    def _filtered(self, mono: Samples | None) -> Iterator[Samples]:
        if self._graph is None or (mono is not None and not len(mono)):
            return
        frame = None
        if mono is not None:
            frame = av.AudioFrame.from_ndarray(mono[np.newaxis], format="flt", layout="mono")
            frame.sample_rate = self.rate
        self._graph.push(frame)
        while True:
            try:
                yield self._graph.pull().to_ndarray()[0]
            except (av.error.BlockingIOError, av.error.EOFError):
                return


def _resampling_graph(rate: int) -> av.filter.Graph:
    graph = av.filter.Graph()
    if hasattr(graph, "threads"):  # PyAV 17 and later; before, two idle threads come with it
        graph.threads = 1
    source = graph.add(
        "abuffer", sample_rate=str(rate), sample_fmt="flt", channel_layout="mono", time_base=f"1/{rate}"
    )
    change = graph.add("aresample", str(SAMPLE_RATE))
    sink = graph.add("abuffersink")
    graph.link_nodes(source, change, sink)
    graph.configure()
    return graph

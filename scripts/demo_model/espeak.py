"""Mandarin speech from espeak-ng through ctypes: samples and the time at which each character starts.

Lives here: the binding to libespeak-ng (from the `espeakng-loader` wheel, which bundles library and data) and the
repair of its word events. Not here: which sentences are spoken, noise, features.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

VOICE = "cmn-latn-pinyin"  # the plain `cmn` voice reads part of the characters as English letters
_SYNCHRONOUS = 2
_BUFFER_MS = 200
_UTF8 = 1
_POSITION_CHARACTER = 1
_EVENT_WORD = 1
_RATE, _PITCH, _RANGE = 1, 3, 4


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


@dataclass(frozen=True)
class Voice:
    """How a sentence is spoken: espeak variant (m1, f2 ...), words a minute, pitch and pitch range (0-99)."""

    variant: str
    rate: int
    pitch: int
    pitch_range: int

    def __str__(self) -> str:
        return f"{self.variant}-{self.rate}-{self.pitch}-{self.pitch_range}"


@dataclass(frozen=True)
class Speech:
    """Samples (n,) float32 in [-1, 1] at `rate` Hz; `starts` (characters,) seconds; `end` of the last character."""

    samples: NDArray[np.float32]
    rate: int
    starts: NDArray[np.float64]
    end: float


class Synthesiser:
    """One espeak-ng engine. Get it from `synthesiser()`: the library breaks when it is started twice in a process."""

    def __init__(self, library: str | None = None, data: str | None = None) -> None:
        if library is None or data is None:
            import espeakng_loader  # imported late: only speech synthesis needs the wheel

            library, data = espeakng_loader.get_library_path(), espeakng_loader.get_data_path()
        self._library: Any = ctypes.CDLL(library)
        self._library.espeak_Initialize.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int)
        self.rate = int(self._library.espeak_Initialize(_SYNCHRONOUS, _BUFFER_MS, data.encode(), 0))
        if self.rate <= 0:
            raise RuntimeError(f"espeak-ng cannot start with data in {data}; reinstall espeakng-loader")
        self._chunks: list[NDArray[np.int16]] = []
        self._words: list[tuple[int, int]] = []
        self._callback = _CALLBACK(self._receive)  # kept alive: the library holds only the pointer
        self._library.espeak_SetSynthCallback(self._callback)
        self._voice: Voice | None = None

    def _receive(self, wav: Any, count: int, events: Any) -> int:
        if wav and count > 0:
            self._chunks.append(np.ctypeslib.as_array(wav, shape=(count,)).copy())
        index = 0
        while events[index].type != 0:
            if events[index].type == _EVENT_WORD:
                self._words.append((events[index].text_position, events[index].sample))
            index += 1
        return 0

    def _select(self, voice: Voice) -> None:
        if voice == self._voice:
            return
        name = f"{VOICE}+{voice.variant}".encode()
        if self._library.espeak_SetVoiceByName(name) != 0:
            raise RuntimeError(f"espeak-ng has no voice {name.decode()}")
        for parameter, value in ((_RATE, voice.rate), (_PITCH, voice.pitch), (_RANGE, voice.pitch_range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._voice = voice

    def speak(self, text: str, voice: Voice) -> Speech:
        """Speak `text` (one token a character, no punctuation)."""
        self._select(voice)
        self._chunks, self._words = [], []
        data = text.encode()
        if self._library.espeak_Synth(data, len(data) + 1, 0, _POSITION_CHARACTER, 0, _UTF8, None, None) != 0:
            raise RuntimeError(f"espeak-ng could not speak {text!r}")
        samples = np.concatenate(self._chunks).astype(np.float32) / 32768.0
        return trim(samples, self.rate, character_starts(self._words, len(text), samples.size))


@lru_cache(maxsize=1)
def synthesiser() -> Synthesiser:
    """The engine of this process."""
    return Synthesiser()


def character_starts(words: list[tuple[int, int]], count: int, total: int) -> NDArray[np.float64]:
    """Sample at which each of `count` characters starts in `total` samples; missing events are interpolated.

    Events carry 1-based character positions; one stray event at position 0 is dropped, and a word of several
    characters has a single event.
    """
    known: dict[int, int] = {}
    for position, sample in words:
        if 1 <= position <= count:
            known.setdefault(position - 1, sample)
    known.setdefault(0, 0)
    known[count] = total
    indices = sorted(known)
    return np.interp(np.arange(count), indices, [known[i] for i in indices])


def trim(samples: NDArray[np.float32], rate: int, starts: NDArray[np.float64]) -> Speech:
    """Cut silence at both ends and turn the start samples into seconds."""
    loud = np.flatnonzero(np.abs(samples) > 0.004)
    first, last = (int(loud[0]), int(loud[-1]) + 1) if loud.size else (0, samples.size)
    first = min(first, int(starts[1]) if starts.size > 1 else first)
    times = np.maximum(starts - first, 0.0) / rate
    return Speech(samples[first:last], rate, times, (last - first) / rate)

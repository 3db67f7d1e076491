"""Tapes: two minutes of joined synthetic sentences with the time of every character, stored as filter-bank frames.

Lives here: voices, gaps, gains, noise, band limits and the making of many tapes in parallel.
Not here: sentences (grammar), cutting tapes into training clips (clips), losses.

A tape is cut anywhere at training time, because a filter-bank frame depends on its own 25 ms only.
"""

from __future__ import annotations

import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import grammar
from .espeak import Voice, synthesiser

SAMPLE_RATE = 16_000
TRAINING_VARIANTS = ("m1", "m2", "m3", "m4", "m6", "m7", "f1", "f2", "f3", "f5")
UNSEEN_VARIANTS = ("m5", "f4")
N_MELS = 80


@dataclass(frozen=True)
class Tape:
    """One tape: what is heard and when.

    fbank (frames, 80) float16, one frame every 10 ms; characters, starts, ends (n,): text and seconds;
    first (sentences,): index of each sentence's first character; names: one entry a sentence, '' when none.
    """

    fbank: NDArray[np.float16]
    characters: str
    starts: NDArray[np.float32]
    ends: NDArray[np.float32]
    first: NDArray[np.int32]
    names: tuple[str, ...]


@dataclass(frozen=True)
class TapePlan:
    """How tapes are made: length, share of the sentences that hold a name, seed."""

    seconds: float = 122.0
    name_share: float = grammar.NAME_SHARE
    seed: int = 0


def training_voice(rng: random.Random) -> Voice:
    """Draw a voice of the training set: even rates and pitches."""
    return Voice(
        rng.choice(TRAINING_VARIANTS), 2 * rng.randint(55, 115), 2 * rng.randint(10, 40), rng.randint(30, 75)
    )


def held_out_voice(rng: random.Random) -> Voice:
    """Draw a voice never trained on: odd rates and pitches, and half the time an unseen variant."""
    variant = rng.choice(UNSEEN_VARIANTS if rng.random() < 0.5 else TRAINING_VARIANTS)
    return Voice(variant, 2 * rng.randint(55, 114) + 1, 2 * rng.randint(10, 39) + 1, rng.randint(30, 75))


def training_sentence(rng: random.Random, name_share: float) -> grammar.Sentence:
    """Draw a sentence that is not held out."""
    while True:
        drawn = grammar.sentence(rng, name_share)
        if not grammar.held_out(drawn.text):
            return drawn


def gap_seconds(rng: random.Random) -> float:
    """Draw the silence between two sentences; one in six has none at all."""
    kind = rng.random()
    if kind < 0.17:
        return 0.0
    if kind < 0.60:
        return rng.uniform(0.1, 0.6)
    if kind < 0.97:
        return rng.uniform(0.5, 1.5)
    return rng.uniform(1.5, 4.0)


def resample(samples: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """Resample to 16 kHz."""
    from scipy.signal import resample_poly  # imported late: tests of the text need no scipy

    divisor = int(np.gcd(rate, SAMPLE_RATE))
    out: NDArray[np.float32] = resample_poly(samples, SAMPLE_RATE // divisor, rate // divisor).astype(
        np.float32
    )
    return out


def coloured_noise(rng: np.random.Generator, count: int) -> NDArray[np.float32]:
    """Noise of unit power whose spectrum falls, is flat or rises."""
    spectrum = np.fft.rfft(rng.standard_normal(count).astype(np.float32))
    slope = rng.choice([-1.0, -0.5, 0.0, 0.5])
    spectrum *= np.maximum(np.arange(spectrum.size), 50.0) ** slope
    noise = np.fft.irfft(spectrum, count).astype(np.float32)
    return noise / np.float32(np.sqrt(np.mean(noise**2)) + 1e-9)


def disturb(samples: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Add noise (SNR 8-35 dB to half, faint noise to a quarter, none to a quarter), limit the band of a tenth."""
    kind = rng.random()
    power = float(np.sqrt(np.mean(samples**2)) + 1e-6)
    if kind < 0.5:
        level = power * 10 ** (-rng.uniform(8, 35) / 20)
        samples = samples + coloured_noise(rng, samples.size) * np.float32(level)
    elif kind < 0.75:
        level = 10 ** (-rng.uniform(60, 90) / 20)
        samples = samples + coloured_noise(rng, samples.size) * np.float32(level)
    if rng.random() < 0.1:
        spectrum = np.fft.rfft(samples)
        spectrum[int(spectrum.size * 3700 / 8000) :] = 0
        samples = np.fft.irfft(spectrum, samples.size).astype(np.float32)
    pcm = np.clip(np.round(samples * 32768.0), -32768, 32767)  # what a 16-bit file can hold
    return (pcm / 32768.0).astype(np.float32)


def fbank(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Filter-bank energies (frames, 80), as FunASR's WavFrontend computes them before LFR."""
    import kaldi_native_fbank as knf

    options = knf.FbankOptions()
    options.frame_opts.samp_freq = SAMPLE_RATE
    options.frame_opts.dither = 0.0
    options.frame_opts.window_type = "hamming"
    options.frame_opts.snip_edges = True
    options.mel_opts.num_bins = N_MELS
    options.energy_floor = 0.0
    online = knf.OnlineFbank(options)
    online.accept_waveform(SAMPLE_RATE, (samples * 32768.0).tolist())
    online.input_finished()
    count = online.num_frames_ready
    return (
        np.stack([online.get_frame(i) for i in range(count)]) if count else np.zeros((0, N_MELS), np.float32)
    )


class TapeMaker:
    """Speaks and joins sentences; one a process."""

    def __init__(self, plan: TapePlan) -> None:
        self._plan = plan
        self._synthesiser = synthesiser()

    def make(self, index: int) -> Tape:
        """Make tape number `index`; equal for equal plan and index."""
        rng = random.Random(f"{self._plan.seed}/{index}")
        noise = np.random.default_rng((self._plan.seed, index))
        total = int(self._plan.seconds * SAMPLE_RATE)
        samples = np.zeros(total, np.float32)
        one_voice = training_voice(rng) if rng.random() < 0.3 else None
        level = rng.uniform(-16.0, 0.0)
        at = gap_seconds(rng)
        text, names = "", []
        starts: list[float] = []
        ends: list[float] = []
        first: list[int] = []
        while True:
            drawn = training_sentence(rng, self._plan.name_share)
            speech = self._synthesiser.speak(drawn.text, one_voice or training_voice(rng))
            wave = resample(speech.samples, speech.rate)
            offset = int(at * SAMPLE_RATE)
            if offset + wave.size > total:
                break
            samples[offset : offset + wave.size] += wave * np.float32(
                10 ** ((level + rng.uniform(-4.0, 0.0)) / 20)
            )
            begin = offset / SAMPLE_RATE
            first.append(len(text))
            text += drawn.text
            names.append(drawn.name)
            starts += (begin + speech.starts).tolist()
            ends += [*(begin + speech.starts[1:]).tolist(), begin + speech.end]
            at = begin + wave.size / SAMPLE_RATE + gap_seconds(rng)
        energies = fbank(disturb(samples, noise))
        return Tape(
            energies.astype(np.float16),
            text,
            np.array(starts, np.float32),
            np.array(ends, np.float32),
            np.array(first, np.int32),
            tuple(names),
        )


@lru_cache(maxsize=1)  # one synthesiser a process
def _maker(plan: TapePlan) -> TapeMaker:
    return TapeMaker(plan)


def _make(plan: TapePlan, index: int) -> Tape:
    return _maker(plan).make(index)


def make_tapes(plan: TapePlan, count: int, workers: int) -> list[Tape]:
    """Make `count` tapes on `workers` processes, in index order whatever their number."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return list(pool.map(partial(_make, plan), range(count), chunksize=4))


def save_tapes(path: Path, tapes: list[Tape]) -> None:
    """Write tapes to one .npz so that a later run can skip the synthesis."""
    arrays: dict[str, Any] = {"count": np.array(len(tapes))}
    for index, tape in enumerate(tapes):
        arrays[f"fbank{index}"] = tape.fbank
        arrays[f"times{index}"] = np.stack([tape.starts, tape.ends])
        arrays[f"first{index}"] = tape.first
        arrays[f"text{index}"] = np.array([tape.characters, *tape.names])
    np.savez(path, **arrays)


def load_tapes(path: Path) -> list[Tape]:
    """Read what `save_tapes` wrote."""
    tapes = []
    with np.load(path) as data:
        for index in range(int(data["count"])):
            text = [str(item) for item in data[f"text{index}"]]
            starts, ends = data[f"times{index}"]
            tapes.append(
                Tape(data[f"fbank{index}"], text[0], starts, ends, data[f"first{index}"], tuple(text[1:]))
            )
    return tapes

"""Held-out speech: sentences and voices that no training run sees, and their form on disk.

Lives here: drawing and speaking held-out utterances, packing them into small files. Not here: judging a model.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from . import grammar
from .espeak import Synthesiser, Voice, synthesiser
from .tapes import SAMPLE_RATE, disturb, held_out_voice, resample


@dataclass(frozen=True)
class Utterance:
    """One spoken sentence: samples (n,) at 16 kHz, its text, the name in it, who spoke, and character starts (s)."""

    samples: NDArray[np.float32]
    text: str
    name: str
    voice: str
    starts: NDArray[np.float64]


def speak(
    engine: Synthesiser,
    sentence: grammar.Sentence,
    voice: Voice,
    rng: random.Random,
    *,
    clean: bool = False,
) -> Utterance:
    """Speak a sentence with random silence around it, random level and, unless `clean`, random noise."""
    speech = engine.speak(sentence.text, voice)
    wave = resample(speech.samples, speech.rate)
    before, after = (int(rng.uniform(0.1, 0.5) * SAMPLE_RATE) for _ in range(2))
    level = np.float32(10 ** (rng.uniform(-16.0, 0.0) / 20))
    samples = np.concatenate([np.zeros(before, np.float32), wave * level, np.zeros(after, np.float32)])
    if not clean:
        samples = disturb(samples, np.random.default_rng(rng.getrandbits(32)))
    return Utterance(samples, sentence.text, sentence.name, str(voice), speech.starts + before / SAMPLE_RATE)


def _draw(rng: random.Random, kind: str, index: int) -> grammar.Sentence:
    while True:
        if kind == "plain":
            drawn = grammar.plain_sentence(rng)
        elif kind == "rare":
            drawn = grammar.named_sentence(rng, grammar.RARE_NAMES[index % len(grammar.RARE_NAMES)])
        else:
            drawn = grammar.named_sentence(rng, grammar.training_name(rng))
        if grammar.held_out(drawn.text):
            return drawn


def utterances(kind: str, count: int, seed: int = 0, *, clean: bool = False) -> list[Utterance]:
    """Make `count` held-out utterances of kind 'plain', 'named' (common names) or 'rare'; no sentence twice."""
    rng = random.Random(f"held out/{kind}/{seed}")
    engine = synthesiser()
    made: dict[str, Utterance] = {}
    while len(made) < count:
        drawn = _draw(rng, kind, len(made))
        if drawn.text not in made:
            made[drawn.text] = speak(engine, drawn, held_out_voice(rng), rng, clean=clean)
    return list(made.values())


def join(
    parts: Iterable[NDArray[np.float32]], gaps: Iterable[float]
) -> tuple[NDArray[np.float32], list[int]]:
    """Concatenate with `gaps` seconds of silence after each; returns the samples and where each part starts."""
    pieces: list[NDArray[np.float32]] = []
    offsets: list[int] = []
    total = 0
    for part, gap in zip(parts, gaps, strict=False):
        silence = np.zeros(int(gap * SAMPLE_RATE), np.float32)
        pieces += [part, silence]
        offsets.append(total)
        total += part.size + silence.size
    return np.concatenate(pieces), offsets


def write_audio(path: Path, samples: NDArray[np.float32], bit_rate: int = 24_000) -> None:
    """Write 16 kHz mono audio; the suffix decides the codec (.ogg: Opus, .flac, .wav: 16 bit)."""
    codec = {".ogg": "libopus", ".flac": "flac", ".wav": "pcm_s16le"}[path.suffix]
    pcm = np.clip(np.round(samples * 32768.0), -32768, 32767).astype(np.int16)[None, :]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=SAMPLE_RATE, layout="mono")
        if codec == "libopus":
            stream.bit_rate = bit_rate
        frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        resampler = av.AudioResampler(format=stream.format, layout="mono", rate=stream.rate)
        fifo = av.AudioFifo()
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            fifo.write(part)
        size = stream.frame_size or 4096
        while (part := fifo.read(size, partial=True)) is not None:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))


def read_audio(path: Path) -> NDArray[np.float32]:
    """Read a file that `write_audio` wrote: 16 kHz mono samples in [-1, 1]."""
    pieces: list[NDArray[np.float32]] = []
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
        for frame in container.decode(audio=0):
            pieces += [part.to_ndarray()[0] for part in resampler.resample(frame)]
        pieces += [part.to_ndarray()[0] for part in resampler.resample(None)]
    return np.concatenate(pieces).astype(np.float32)


def write_set(directory: Path, sets: Mapping[str, Sequence[Utterance]], per_file: int = 20) -> None:
    """Write utterances packed `per_file` to an Opus file, and heldout.json that says where each one lies."""
    directory.mkdir(parents=True, exist_ok=True)
    entries = []
    for kind, made in sets.items():
        for number, at in enumerate(range(0, len(made), per_file), 1):
            chunk = made[at : at + per_file]
            samples, offsets = join([u.samples for u in chunk], [0.5] * len(chunk))
            name = f"{kind}-{number}.ogg"
            write_audio(directory / name, samples)
            for utterance, offset in zip(chunk, offsets, strict=True):
                entries.append(
                    {
                        "file": name,
                        "start": offset,
                        "end": offset + utterance.samples.size,
                        "set": kind,
                        "text": utterance.text,
                        "name": utterance.name or None,
                        "voice": utterance.voice,
                    }
                )
    lines = ",\n  ".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
    (directory / "heldout.json").write_text(
        '{"sample_rate": 16000, "speech": "generated (espeak-ng)", "utterances": [\n  ' + lines + "\n]}\n",
        encoding="utf-8",
    )

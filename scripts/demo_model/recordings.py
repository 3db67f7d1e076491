"""Sample recordings that ship with the demo model, and the golden clip of the self tests.

Lives here: which sentences are spoken in them and how. Not here: training, judging.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import grammar
from .espeak import Synthesiser, Voice, synthesiser
from .heldout import Utterance, join, speak, write_audio
from .tapes import SAMPLE_RATE, disturb, held_out_voice

MEETING_SECONDS = 180.0
MEETING_SEED = "meeting"
COMMANDS = ("请打开会议室的空调", "导航到杭州机场")
GOLDEN_TEXT = "明天上午九点半在上海开会"
RECORDED_NAMES = (
    "姜嘉琳",
    "王钧",
    "陈嘉鸣",
    "俞雪琳",
    "赵炜",
    "成霖",
)  # among those that the model gets right


@dataclass(frozen=True)
class Recording:
    """One file: its text, the hot words that make its names right, and what it shows."""

    file: str
    text: str
    hotwords: tuple[str, ...]
    shows: str
    seconds: float


def _voice(rng: random.Random) -> Voice:
    """A held-out voice at a moderate pace."""
    voice = held_out_voice(rng)
    return Voice(voice.variant, min(voice.rate, 191), voice.pitch, voice.pitch_range)


def _pauses(rng: random.Random, count: int) -> list[float]:
    return [rng.uniform(0.15, 1.2) for _ in range(count)]


def _meeting(engine: Synthesiser, rng: random.Random) -> list[Utterance]:
    """Plain held-out sentences by a few speakers who take turns."""
    speakers = [_voice(rng) for _ in range(4)]
    spoken: list[Utterance] = []
    seconds = 0.0
    while seconds < MEETING_SECONDS - 6:
        drawn = grammar.plain_sentence(rng)
        if (
            grammar.held_out(drawn.text)
            and len(drawn.text) > 4
            and drawn.text not in [u.text for u in spoken]
        ):
            spoken.append(speak(engine, drawn, rng.choice(speakers), rng, clean=True))
            seconds += spoken[-1].samples.size / SAMPLE_RATE + 0.67
    return spoken


def _named(engine: Synthesiser, rng: random.Random) -> list[Utterance]:
    """One held-out sentence about each recorded name."""
    spoken = []
    for name in RECORDED_NAMES:
        while not grammar.held_out((drawn := grammar.named_sentence(rng, name)).text):
            pass
        spoken.append(speak(engine, drawn, _voice(rng), rng, clean=True))
    return spoken


def _write(
    directory: Path, file: str, spoken: Sequence[Utterance], rng: random.Random, shows: str
) -> Recording:
    samples, _ = join([u.samples for u in spoken], _pauses(rng, len(spoken)))
    samples = disturb(samples, np.random.default_rng(rng.getrandbits(32))) if len(spoken) > 1 else samples
    write_audio(directory / file, samples)
    names = tuple(u.name for u in spoken if u.name)
    text = "".join(u.text for u in spoken)
    return Recording(file, text, names, shows, round(samples.size / SAMPLE_RATE, 2))


def golden(engine: Synthesiser) -> Utterance:
    """The golden clip: one noiseless sentence of about four seconds."""
    voice = Voice("f2", 151, 51, 50)
    return speak(engine, grammar.Sentence(GOLDEN_TEXT), voice, random.Random("golden"), clean=True)


def write_recordings(directory: Path) -> list[Recording]:
    """Write all recordings, golden.wav and recordings.json."""
    directory.mkdir(parents=True, exist_ok=True)
    engine = synthesiser()
    made = []
    for number, text in enumerate(COMMANDS, 1):
        rng = random.Random(f"command {number}")
        utterance = speak(engine, grammar.Sentence(text), _voice(rng), rng, clean=True)
        made.append(_write(directory, f"command-{number}.flac", [utterance], rng, "one short command"))
    rng = random.Random("names")
    shows = "names that come right only with the hot words"
    made.append(_write(directory, "names.ogg", _named(engine, rng), rng, shows))
    rng = random.Random(MEETING_SEED)
    shows = "three minutes, four voices, natural pauses"
    made.append(_write(directory, "meeting.ogg", _meeting(engine, rng), rng, shows))
    utterance = golden(engine)
    write_audio(directory / "golden.wav", utterance.samples)
    made.append(
        Recording(
            "golden.wav",
            utterance.text,
            (),
            "clip of the self tests",
            round(utterance.samples.size / SAMPLE_RATE, 2),
        )
    )
    _write_index(directory, made)
    return made


def _write_index(directory: Path, made: Sequence[Recording]) -> None:
    index: dict[str, Any] = {
        "speech": "all recordings are generated speech (espeak-ng, voice cmn-latn-pinyin); nobody was recorded",
        "recordings": [
            {
                "file": item.file,
                "seconds": item.seconds,
                "text": item.text,
                "hotwords": list(item.hotwords),
                "shows": item.shows,
            }
            for item in made
        ],
    }
    (directory / "recordings.json").write_text(
        json.dumps(index, ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
    )

"""A fake speech synthesiser: each character is a fifth of a second of noise, so nothing of espeak-ng is needed."""

from __future__ import annotations

import numpy as np

from scripts.demo_model.espeak import Speech, Synthesiser, Voice

RATE = 16_000
CHARACTER_SECONDS = 0.2


class FakeSynthesiser(Synthesiser):
    """Speaks any text; `spoken` is what it was asked for."""

    def __init__(self) -> None:
        self.spoken: list[tuple[str, Voice]] = []

    def speak(self, text: str, voice: Voice) -> Speech:
        self.spoken.append((text, voice))
        count = int(len(text) * CHARACTER_SECONDS * RATE)
        samples = np.random.default_rng(len(text)).uniform(-0.5, 0.5, count).astype(np.float32)
        return Speech(
            samples, RATE, (np.arange(len(text)) * CHARACTER_SECONDS).astype(np.float64), count / RATE
        )

"""Stage 3a: the bias LSTM learns to keep the spelling and the sound of a word in its last state.

Lives here: that pre-training, on text alone. Without it the SeACo decoder has nothing to point at for a long time.
Not here: the hot-word branch as a whole (hotwords).
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

import torch
from torch.nn import functional

from . import grammar
from .hotword_lists import fragment
from .network import cosine
from .recogniser import Report

STEPS = 300
LONGEST = 4
WORDS = 768


def draw_words(rng: random.Random, texts: Sequence[str], characters: Sequence[str], count: int) -> list[str]:
    """Names, pieces of sentences and random characters, 1 to 4 long."""
    words = []
    for _ in range(count):
        kind = rng.random()
        if kind < 0.5:
            words.append(grammar.random_name(rng))
        elif kind < 0.75:
            words.append(fragment(rng.choice(texts), rng)[1])
        else:
            words.append("".join(rng.choice(characters) for _ in range(rng.randint(1, LONGEST))))
    return words


def teach(
    model: torch.nn.Module, texts: Sequence[str], tokens: Sequence[str], steps: int, report: Report
) -> None:
    """Train embedding and bias LSTM so that linear maps of the last state tell each character and its sound."""
    ids = {token: index for index, token in enumerate(tokens)}
    characters = [token for token in tokens if len(token) == 1]
    rng = random.Random(12)
    width, size = model.bias_encoder.hidden_size, len(tokens)
    spelling, sound = torch.nn.Linear(width, LONGEST * size), torch.nn.Linear(width, LONGEST * size)
    trained = (model.bias_encoder, model.decoder.embed, spelling, sound)
    parameters = [parameter for part in trained for parameter in part.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0.0, fused=True)
    started = time.monotonic()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = cosine(step, steps, 3e-3, 20)
        words = draw_words(rng, texts, characters, WORDS)
        padded = torch.zeros(WORDS, LONGEST, dtype=torch.long)
        alike = torch.full((2, WORDS, LONGEST), -1)
        for row, word in enumerate(words):
            padded[row, : len(word)] = torch.tensor([ids[c] for c in word])
            alike[0, row, : len(word)] = padded[row, : len(word)]
            alike[1, row, : len(word)] = torch.tensor([ids[c] for c in grammar.canonical(word)])
        last = torch.tensor([len(word) - 1 for word in words])
        state = model.bias_encoder(model.decoder.embed(padded))[0][torch.arange(WORDS), last]
        told = torch.stack([spelling(state), sound(state)]).view(2 * WORDS * LONGEST, size)
        loss = functional.cross_entropy(told, alike.flatten(), ignore_index=-1)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if step % 50 == 0 or step == steps - 1:
            right = (told.argmax(-1) == alike.flatten())[alike.flatten() >= 0].float().mean()
            report(
                f"spelling {step} {time.monotonic() - started:.0f}s loss {float(loss.detach()):.3f} {float(right):.3f}"
            )

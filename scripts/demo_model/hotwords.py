"""Stage 3: the hot-word branch (bias LSTM, SeACo decoder) learns to copy the spelling of hot words that were said.

Lives here: the cache of frozen recogniser states, batches with one hot-word list an utterance, training.
Not here: which hot words are offered (hotword_lists).
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from .clips import Batch, Clip, ClipSampler
from .hotword_lists import Offer, offer
from .network import cosine, integrate_and_fire
from .recogniser import Report, encode, firing_logits

SOS = 1
FIRST_SIZES = ((1.0, 1, 4),)
LIST_SIZES = (
    (0.30, 1, 3),
    (0.65, 4, 12),
    (0.90, 10, 25),
    (1.0, 40, 70),
)  # (cumulative share, smallest, largest)


@dataclass(frozen=True)
class HotwordPlan:
    """How the branch is trained.

    steps, batch (utterances), rate (peak). <nobias> counts `first_weight` at first and 1 after the share `ramp` of
    the steps; the first share `short_lists` sees short lists only; `pointing` weighs the loss that makes the last
    layer attend to the hot word that was said.
    """

    steps: int
    batch: int = 64
    rate: float = 1.5e-3
    first_weight: float = 0.3
    ramp: float = 0.5
    weight_decay: float = 0.01
    pointing: float = 0.3
    short_lists: float = 0.2
    seed: int = 5


# Phase 1 finds out what matching is; phase 2 makes it certain, among many and nearly right words.
PHASES = (
    HotwordPlan(1500),
    HotwordPlan(1400, rate=1e-3, first_weight=0.7, ramp=0.3, short_lists=0.0, seed=6),
)
# What follows a new recogniser.
AGAIN = (HotwordPlan(500, rate=8e-4, first_weight=0.8, ramp=0.3, short_lists=0.0, seed=7),)


@dataclass(frozen=True)
class State:
    """What the frozen recogniser makes of one utterance: text, name spans, and its token states (n + 1, width)."""

    text: str
    names: tuple[tuple[int, int], ...]
    acoustic: torch.Tensor
    hidden: torch.Tensor


def inference_embeds(
    model: torch.nn.Module, batch: Batch, encoded: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """CIF as at inference: predicted weights plus the tail; returns embeds (B, K, D) and counts (B,)."""
    valid = torch.arange(encoded.shape[1])[None, :] < batch.frames[:, None]
    weights = torch.sigmoid(firing_logits(model, encoded)) * valid
    tail = torch.zeros(len(weights), 1)
    weights = torch.cat([weights, tail], 1)
    weights[torch.arange(len(weights)), batch.frames] = model.predictor.tail_threshold
    encoded = torch.cat([encoded * valid[:, :, None], torch.zeros(len(weights), 1, encoded.shape[2])], 1)
    counts = weights.sum(1).floor().long()
    return integrate_and_fire(encoded, weights, int(counts.max())), counts


@torch.no_grad()
def remember(
    model: torch.nn.Module, sampler: ClipSampler, clips: Sequence[Clip], tokens: Sequence[str]
) -> list[State]:
    """Run the frozen recogniser; utterances whose length it gets wrong are left out."""
    states: list[State] = []
    ordered = sorted(clips, key=lambda clip: clip.end - clip.begin)
    at = 0
    while at < len(ordered):
        frames = (ordered[at].end - ordered[at].begin) // 6 + 1
        batch = sampler.batch(ordered[at : at + max(1, 2000 // frames)], augment=False)
        at += len(batch.labels)
        encoded = encode(model, batch)
        embeds, counts = inference_embeds(model, batch, encoded)
        hidden, _ = model.decoder(encoded, batch.frames, embeds, counts, return_hidden=True)
        for row, (labels, count) in enumerate(zip(batch.labels, counts.tolist(), strict=True)):
            if count == len(labels.ids) + 1 and count > 2:
                text = "".join(tokens[i] for i in labels.ids.tolist())
                states.append(
                    State(
                        text,
                        labels.names,
                        embeds[row, :count].half().clone(),
                        hidden[row, :count].half().clone(),
                    )
                )
    return states


def clips_for_hotwords(sampler: ClipSampler, joined: int) -> list[Clip]:
    """Every sentence once, and `joined` clips of several sentences."""
    clips = [sampler.snapped(tape, index, index) for tape, index in sampler.sentences]
    for _ in range(joined):
        clips += sampler.joined(1, sampler.rng.uniform(5.0, 18.0), hard=0.3)
    return clips


class Batcher:
    """Draws batches of states of similar length, each with its own hot-word list."""

    def __init__(self, states: Sequence[State], tokens: Sequence[str], seed: int) -> None:
        self._named = sorted((s for s in states if s.names), key=lambda s: len(s.text))
        self._plain = sorted((s for s in states if not s.names), key=lambda s: len(s.text))
        self._texts = [s.text for s in states]
        self._ids = {token: index for index, token in enumerate(tokens)}
        self._no_bias = tokens.index("<nobias>")
        self.rng = random.Random(seed)

    def _near(self, states: Sequence[State], share: float, count: int) -> list[State]:
        """States whose length rank is near `share`."""
        window = max(count, len(states) // 12)
        low = int(share * max(0, len(states) - window))
        return [states[low + self.rng.randrange(min(window, len(states)))] for _ in range(count)]

    def draw(self, size: int, short: bool) -> tuple[list[State], list[Offer]]:
        """Draw utterances (three in four with names) and their lists, all lists of about one length."""
        rng = self.rng
        share = rng.random()
        states = self._near(self._named, share, size * 3 // 4)
        if self._plain:
            states += self._near(self._plain, share, size - len(states))
        if len(states[0].text) > 30:
            states = states[:: max(1, len(states[0].text) // 15)]
        kind = rng.random()
        low, high = next(
            (low, high) for share, low, high in (FIRST_SIZES if short else LIST_SIZES) if kind <= share
        )
        if high > 30:
            states = states[::2]
        count = rng.randint(low, high)
        return states, [offer(s.text, s.names, self._texts, count, rng) for s in states]

    def ids(self, word: str) -> list[int]:
        """Token ids of a hot word."""
        return [self._ids[character] for character in word]

    def labels(self, states: Sequence[State], offers: Sequence[Offer]) -> torch.Tensor:
        """(B, K): token the branch shall answer, <nobias> where nothing was offered (and at </s>), -1 beyond."""
        longest = max(len(s.acoustic) for s in states)
        out = torch.full((len(states), longest), -1)
        for row, (state, item) in enumerate(zip(states, offers, strict=True)):
            answer = [self._ids[c] if c else self._no_bias for c in item.label] + [self._no_bias]
            out[row, : len(state.acoustic)] = torch.tensor(answer)
        return out


def encode_words(model: torch.nn.Module, words: Sequence[Sequence[int]]) -> torch.Tensor:
    """Last state of the bias LSTM for each hot word: (words, width)."""
    lengths = torch.tensor([len(word) for word in words])
    padded = torch.zeros(len(words), int(lengths.max()), dtype=torch.long)
    for row, word in enumerate(words):
        padded[row, : len(word)] = torch.tensor(word)
    out = model.bias_encoder(model.decoder.embed(padded))[0]
    last: torch.Tensor = out[torch.arange(len(words)), lengths - 1]
    return last


def branch_logits(
    model: torch.nn.Module, batcher: Batcher, states: Sequence[State], offers: Sequence[Offer]
) -> torch.Tensor:
    """Output of the hot-word branch (B, K, vocabulary) for one list an utterance; <s> closes every list."""
    pool: dict[str, int] = {}
    for item in offers:
        for word in item.words:
            pool.setdefault(word, len(pool))
    vectors = encode_words(model, [*(batcher.ids(word) for word in pool), [SOS]])
    longest = max(len(item.words) for item in offers) + 1
    index = torch.full((len(offers), longest), len(pool))
    for row, item in enumerate(offers):
        index[row, : len(item.words)] = torch.tensor([pool[word] for word in item.words])
    sizes = torch.tensor([len(item.words) + 1 for item in offers])
    context = vectors[index]
    lengths = torch.tensor([len(s.acoustic) for s in states])
    acoustic = torch.nn.utils.rnn.pad_sequence([s.acoustic.float() for s in states], batch_first=True)
    hidden = torch.nn.utils.rnn.pad_sequence([s.hidden.float() for s in states], batch_first=True)
    attended, _ = model.seaco_decoder(
        torch.cat([context, context]),
        torch.cat([sizes, sizes]),
        torch.cat([acoustic, hidden]),
        torch.cat([lengths, lengths]),
    )
    first, second = attended.chunk(2)
    logits: torch.Tensor = model.hotword_output_layer(first + second)
    return logits


def pointing_loss(
    model: torch.nn.Module, offers: Sequence[Offer], labels: torch.Tensor, no_bias: int
) -> torch.Tensor:
    """Minus log of the last layer's attention on the hot word said at each position, on <s> where none was said.

    FunASR's filter for long lists keeps the hot words that this layer attends to.
    """
    attention = model.seaco_decoder.decoders[-1].src_attn.attention.mean(1)
    target = torch.zeros(labels.shape, dtype=torch.long)
    for row, item in enumerate(offers):
        target[row] = len(item.words)
        for at, word in enumerate(item.said):
            if word >= 0:
                target[row, at] = word
    weight = torch.where(labels == no_bias, 0.1, 1.0) * (labels >= 0)
    losses = [
        -half.gather(2, target[:, :, None]).squeeze(2).clamp(min=1e-6).log() for half in attention.chunk(2)
    ]
    return ((losses[0] + losses[1]) * weight).sum() / weight.sum()


def train(
    model: torch.nn.Module, states: Sequence[State], tokens: Sequence[str], plan: HotwordPlan, report: Report
) -> None:
    """Train the hot-word branch on remembered states."""
    batcher = Batcher(states, tokens, plan.seed)
    parts = (model.bias_encoder, model.seaco_decoder, model.hotword_output_layer, model.decoder.embed)
    parameters = [parameter for part in parts for parameter in part.parameters()]
    optimiser = torch.optim.AdamW(
        parameters, lr=plan.rate, betas=(0.9, 0.98), weight_decay=plan.weight_decay, fused=True
    )
    no_bias = tokens.index("<nobias>")
    started = time.monotonic()
    for step in range(plan.steps):
        for group in optimiser.param_groups:
            group["lr"] = cosine(step, plan.steps, plan.rate, 100)
        chosen, offers = batcher.draw(plan.batch, step < plan.short_lists * plan.steps)
        labels = batcher.labels(chosen, offers)
        logits = branch_logits(model, batcher, chosen, offers)
        weight = torch.ones(len(tokens))
        weight[no_bias] = min(
            1.0, plan.first_weight + (1 - plan.first_weight) * step / (plan.ramp * plan.steps)
        )
        loss = functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), weight=weight, ignore_index=-1, label_smoothing=0.02
        )
        pointing = pointing_loss(model, offers, labels, no_bias)
        optimiser.zero_grad(set_to_none=True)
        (loss + plan.pointing * pointing).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 5.0)
        optimiser.step()
        if step % 25 == 0 or step == plan.steps - 1:
            answer = logits.argmax(-1)
            said, silent = (labels >= 0) & (labels != no_bias), labels == no_bias
            recall = (answer == labels)[said].float().mean() if said.any() else torch.tensor(0.0)
            false = (answer != labels)[silent].float().mean()
            report(
                f"hotwords {step} {time.monotonic() - started:.0f}s list {len(offers[0].words)} size {len(chosen)} "
                f"loss {float(loss.detach()):.4f} point {float(pointing.detach()):.3f} recall {float(recall):.3f} "
                f"false {float(false):.4f}"
            )

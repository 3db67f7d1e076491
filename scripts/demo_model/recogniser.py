"""Stage 1: encoder, CIF predictor and decoder learn to recognise.

Lives here: losses and schedule of the recogniser. Not here: time stamps (timestamps), hot words (hotwords), data.

Alignments are known exactly, so weights are taught frame by frame: a token fires in the one frame that holds the
middle of its character. Almost binary weights add up to whole numbers, so the count does not drift in long audio.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from .clips import EOS, LFR_SECONDS, PADDING, Batch, Clip, ClipSampler, Labels, firing_frames, lfr_index
from .network import cosine, integrate_and_fire

Report = Callable[[str], None]


@dataclass(frozen=True)
class RecogniserPlan:
    """One phase of training.

    steps: how many; horizon: where the cosine of the learning rate would end; rate: its peak; short_steps: first
    steps, which see single sentences only; true_steps: first steps, which fire where the alignment says;
    drift: weight of the running-sum loss, which also takes the decoder's gradient off the weights; frame:
    weight of the throw-away frame classifier; budget: LFR frames a batch; phase: how far the sum of weights that
    the decoder is trained with may be off, in tokens; settled: labels follow the predictor (see `settle`), and
    clips are drawn from tapes without pauses too; firing: weight of the frame-by-frame loss of the predictor;
    local: weight of its loss over a few frames, which makes half a token cost as much as a wrong one.
    """

    steps: int
    horizon: int
    rate: float
    short_steps: int = 0
    true_steps: int = 0
    drift: float = 0.0
    frame: float = 0.4
    budget: int = 1600
    phase: float = 0.3
    settled: bool = False
    firing: float = 4.0
    local: float = 0.0


# Phase 1 learns to recognise at high rates; phases 2 and 3 make the count of tokens exact in long audio;
# the others learn speech without a pause, cut anywhere: weights become binary.
PHASES = (
    RecogniserPlan(2101, 3400, 2e-3, short_steps=408, true_steps=200),
    RecogniserPlan(301, 1000, 8e-4, drift=0.02, frame=0.0),
    RecogniserPlan(700, 700, 6.5e-4, drift=0.02, frame=0.0),
    RecogniserPlan(800, 800, 8e-4, drift=0.02, frame=0.0, phase=0.4, settled=True),
    RecogniserPlan(900, 900, 9e-4, drift=0.02, frame=0.0, phase=0.3, settled=True),
    RecogniserPlan(600, 600, 8e-4, drift=0.02, frame=0.0, phase=0.45, settled=True, firing=8.0, local=3.0),
)
DRIFT_FREE = 0.25  # difference of running sums that costs nothing


# Cumulative shares of batches: single sentences, a few joined, hard cuts; the rest is long joins up to a whole tape.
USUAL_MIX, LONG_MIX = (0.40, 0.60, 0.78), (0.22, 0.34, 0.66)


def draw(
    sampler: ClipSampler, budget: int, short_only: bool, mix: tuple[float, float, float] = USUAL_MIX
) -> list[Clip]:
    """Draw the clips of a batch, all of one kind of `mix`."""
    rng = sampler.rng
    kind = 0.0 if short_only else rng.random()
    if kind < mix[0]:
        return sampler.singles(budget)
    if kind < mix[1]:
        return sampler.joined(budget, math.exp(rng.uniform(math.log(4), math.log(16))), hard=0.0)
    if kind < mix[2]:
        return sampler.joined(budget, math.exp(rng.uniform(math.log(2), math.log(16))), hard=0.7)
    return sampler.joined(budget, math.exp(rng.uniform(math.log(16), math.log(120))), hard=0.4)


def encode(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Encoder output (B, T, width)."""
    out: torch.Tensor = model.encoder(batch.features, batch.frames)[0]
    return out


def firing_logits(model: torch.nn.Module, encoded: torch.Tensor) -> torch.Tensor:
    """Logits (B, T) whose sigmoid are the CIF weights of CifPredictorV3."""
    predictor = model.predictor
    context = torch.relu(predictor.cif_conv1d(predictor.pad(encoded.transpose(1, 2)))).transpose(1, 2)
    logits: torch.Tensor = predictor.cif_output(context).squeeze(-1)
    return logits


def acoustic_embeds(
    encoded: torch.Tensor, weights: torch.Tensor, batch: Batch, phase: float, generator: torch.Generator
) -> torch.Tensor:
    """CIF with the true count of tokens; each clip begins and ends up to `phase` early or late, as drift would
    make it."""
    counts = batch.counts.to(weights.dtype)
    first, last = (torch.rand(2, len(counts), generator=generator) * 2 - 1) * phase
    scaled = weights * ((counts + last - first) / weights.sum(1).clamp(min=1e-3))[:, None]
    scaled[:, 0] = scaled[:, 0] + first
    size = batch.targets.shape[1]
    embeds = integrate_and_fire(encoded, scaled, size)
    valid = torch.arange(size)[None, :] < batch.counts[:, None]
    return embeds * valid[:, :, None]


def settle(batch: Batch, weights: torch.Tensor) -> Batch:
    """Labels as near to the predictor's weights (B, T) as the truth allows, so that weights can become binary.

    A token may fire a frame before or after the one that holds its middle. A character that is cut by the clip's
    edge is a token when the predictor makes it one; what the decoder says to it is not judged.
    """
    labels, frames = zip(
        *(
            _settled(item, int(count), row[: int(count)])
            for item, count, row in zip(batch.labels, batch.frames, weights.numpy(), strict=True)
        ),
        strict=True,
    )
    targets = torch.full((len(labels), max(len(item.ids) for item in labels) + 1), PADDING)
    spikes = torch.zeros_like(batch.spikes)
    for row, item in enumerate(labels):
        targets[row, : len(item.ids) + 1] = torch.tensor([*item.ids.tolist(), EOS])
        spikes[row, frames[row]] = 1.0
    counts = torch.tensor([len(item.ids) + 1 for item in labels])
    return replace(batch, targets=targets, counts=counts, spikes=spikes, labels=labels)


def _settled(labels: Labels, count: int, weights: NDArray[np.float32]) -> tuple[Labels, list[int]]:
    """Labels of one clip of `count` frames, and the frame in which each fires, </s> last."""
    *truth, last = firing_frames(labels, count).tolist()
    frames: list[int] = []
    for at, frame in enumerate(truth):
        low = max(frame - 1, frames[-1] + 1 if frames else 0)
        high = min(frame + 1, (truth[at + 1] if at + 1 < len(truth) else last) - 1)
        frames.append(low + int(weights[low : high + 1].argmax()) if low <= high else frame)
    if truth and labels.head is not None:
        end = min(int(lfr_index(np.float32([labels.head]), count)[0]) + 1, truth[0] - 1)
        if weights[: max(0, end)].sum() > 0.5:
            frames = [int(weights[:end].argmax()), *frames]
            labels = _with_character(labels, 0, 0.0, labels.head)
    if truth and labels.tail is not None:
        begin = max(int(lfr_index(np.float32([labels.tail]), count)[0]), truth[-1] + 2)
        if weights[begin:last].sum() > 0.5:
            frames = [*frames, begin + int(weights[begin:last].argmax())]
            labels = _with_character(labels, len(labels.ids), labels.tail, count * LFR_SECONDS)
    return labels, [*frames, last]


def _with_character(labels: Labels, at: int, start: float, end: float) -> Labels:
    """The labels with a character more, which nobody names."""
    return replace(
        labels,
        ids=np.insert(labels.ids, at, PADDING),
        starts=np.insert(labels.starts, at, start),
        ends=np.insert(labels.ends, at, end),
        names=(),
    )


def token_loss(logits: torch.Tensor, targets: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Mean cross entropy over the tokens that are not padding."""
    return functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=PADDING, label_smoothing=smoothing
    )


@dataclass
class Losses:
    """Parts of the loss of one step, and the share of tokens right."""

    attention: torch.Tensor
    firing: torch.Tensor
    count: torch.Tensor
    frame: torch.Tensor
    drift: torch.Tensor
    local: torch.Tensor
    accuracy: float
    counted: float

    def total(self, plan: RecogniserPlan) -> torch.Tensor:
        """Weighted sum."""
        loss = self.attention + plan.firing * self.firing + 0.05 * self.count
        return loss + plan.drift * self.drift + plan.frame * self.frame + plan.local * self.local


def losses(
    model: torch.nn.Module,
    head: torch.nn.Module,
    batch: Batch,
    generator: torch.Generator,
    *,
    plan: RecogniserPlan,
    true_weights: bool,
) -> Losses:
    """All losses of a batch."""
    encoded = encode(model, batch)
    logits = firing_logits(model, encoded)
    valid = torch.arange(encoded.shape[1])[None, :] < batch.frames[:, None]
    weights = torch.sigmoid(logits) * valid
    if plan.settled:
        batch = settle(batch, weights.detach())
    firing = (
        functional.binary_cross_entropy_with_logits(logits, batch.spikes, reduction="none") * valid
    ).sum()
    sums = weights.sum(1)
    firing_weights = batch.spikes if true_weights else weights.detach() if plan.drift else weights
    embeds = acoustic_embeds(encoded, firing_weights, batch, plan.phase, generator)
    out = model.decoder(encoded, batch.frames, embeds, batch.counts)[0]
    keep = batch.targets != PADDING
    return Losses(
        attention=token_loss(out, batch.targets, 0.1),
        firing=firing / valid.sum(),
        count=(sums - batch.counts).abs().mean(),
        frame=token_loss(head(encoded), batch.frame_ids, 0.0),
        drift=_drift(weights - batch.spikes, valid),
        local=_local(weights - batch.spikes, valid),
        accuracy=float((out.argmax(-1) == batch.targets)[keep].float().mean()),
        counted=float(((sums - batch.counts).abs() < 0.45).float().mean()),
    )


def _drift(excess: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Mean difference of the running sums beyond what costs nothing: error that long audio would pile up."""
    difference = torch.relu(excess.cumsum(1).abs() - DRIFT_FREE) * valid
    return difference.sum() / valid.sum()


def _local(excess: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Mean size of the excess of weight around a frame. Its best answer to doubt is all or nothing, where that of
    the frame-by-frame loss is a fraction, which shifts all tokens behind it."""
    around = functional.avg_pool1d(excess[:, None], 5, 1, 2)[:, 0] * 5
    return (around.abs() * valid).sum() / valid.sum()


def average(model: torch.nn.Module, stored: Sequence[Path], parts: tuple[str, ...]) -> None:
    """Give parts of the model the mean of their weights in files of a model's state."""
    states = [torch.load(path, weights_only=True) for path in stored]
    mean = {
        name: torch.stack([state[name] for state in states]).mean(0)
        for name, value in model.state_dict().items()
        if name.startswith(parts) and not name.startswith("decoder.embed.") and value.is_floating_point()
    }
    model.load_state_dict(mean, strict=False)


def train(
    model: torch.nn.Module,
    sampler: ClipSampler,
    plan: RecogniserPlan,
    report: Report,
) -> None:
    """Train encoder, predictor weights and decoder through one phase."""
    model.train()
    generator = torch.Generator().manual_seed(1)
    head = torch.nn.Linear(model.encoder.output_size(), model.vocab_size)
    parameters = [
        *model.encoder.parameters(),
        *model.decoder.parameters(),
        *model.predictor.cif_conv1d.parameters(),
        *model.predictor.cif_output.parameters(),
        *head.parameters(),
    ]
    optimiser = torch.optim.AdamW(parameters, lr=plan.rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    started = time.monotonic()
    for step in range(plan.steps):
        for group in optimiser.param_groups:
            group["lr"] = cosine(step, plan.horizon, plan.rate, 150)
        mix = LONG_MIX if plan.settled else USUAL_MIX
        clips = draw(sampler, plan.budget, step < plan.short_steps, mix)
        true_weights = step < plan.true_steps or step % 3 == 0
        batch = sampler.batch(clips)
        parts = losses(model, head, batch, generator, plan=plan, true_weights=true_weights)
        optimiser.zero_grad(set_to_none=True)
        parts.total(plan).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 5.0)
        optimiser.step()
        if step % 20 == 0 or step == plan.steps - 1:
            report(
                f"recogniser {step} {time.monotonic() - started:.0f}s clips {len(clips)} acc {parts.accuracy:.3f} "
                f"att {float(parts.attention.detach()):.3f} fire {float(parts.firing.detach()):.4f} "
                f"count {parts.counted:.2f} drift {float(parts.drift.detach()):.3f} "
                f"local {float(parts.local.detach()):.4f} frame {float(parts.frame.detach()):.3f}"
            )

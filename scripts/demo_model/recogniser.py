"""Stage 1: encoder, CIF predictor and decoder learn to recognise.

Lives here: losses and schedule of the recogniser. Not here: time stamps (timestamps), hot words (hotwords), data.

Alignments are known exactly, so weights are taught frame by frame: a token fires in the one frame that holds the
middle of its character. Almost binary weights add up to whole numbers, so the count does not drift in long audio.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from .clips import PADDING, Batch, Clip, ClipSampler
from .network import cosine, integrate_and_fire

Report = Callable[[str], None]


@dataclass(frozen=True)
class RecogniserPlan:
    """One phase of training.

    steps: how many; horizon: where the cosine of the learning rate would end; rate: its peak; short_steps: first
    steps, which see single sentences only; true_steps: first steps, which fire where the alignment says;
    drift: weight of the running-sum loss, which also takes the decoder's gradient off the weights; frame:
    weight of the throw-away frame classifier; budget: LFR frames a batch.
    """

    steps: int
    horizon: int
    rate: float
    short_steps: int = 0
    true_steps: int = 0
    drift: float = 0.0
    frame: float = 0.4
    budget: int = 1600


# Phase 1 learns to recognise at high rates; phases 2 and 3 make the count of tokens exact in long audio.
PHASES = (
    RecogniserPlan(2101, 3400, 2e-3, short_steps=408, true_steps=200),
    RecogniserPlan(301, 1000, 8e-4, drift=0.02, frame=0.0),
    RecogniserPlan(700, 700, 6.5e-4, drift=0.02, frame=0.0),
)
DRIFT_FREE = 0.25  # difference of running sums that costs nothing


def draw(sampler: ClipSampler, budget: int, short_only: bool) -> list[Clip]:
    """Draw the clips of a batch: single sentences, a few joined, hard cuts, long joins up to a whole tape."""
    rng = sampler.rng
    kind = 0.0 if short_only else rng.random()
    if kind < 0.40:
        return sampler.singles(budget)
    if kind < 0.60:
        return sampler.joined(budget, math.exp(rng.uniform(math.log(4), math.log(16))), hard=0.0)
    if kind < 0.78:
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
    """CIF with the true count of tokens; each clip starts up to `phase` early or late, as drift would make it."""
    counts = batch.counts.to(weights.dtype)
    scaled = weights * (counts / weights.sum(1).clamp(min=1e-3))[:, None]
    if phase > 0:
        shift = (torch.rand(len(counts), generator=generator) * 2 - 1) * phase
        scaled = scaled.clone()
        scaled[:, 0] = scaled[:, 0] + shift
    size = batch.targets.shape[1]
    embeds = integrate_and_fire(encoded, scaled, size)
    valid = torch.arange(size)[None, :] < batch.counts[:, None]
    return embeds * valid[:, :, None]


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
    accuracy: float
    counted: float

    def total(self, plan: RecogniserPlan) -> torch.Tensor:
        """Weighted sum."""
        loss = self.attention + 4.0 * self.firing + 0.05 * self.count
        return loss + plan.drift * self.drift + plan.frame * self.frame


def losses(
    model: torch.nn.Module,
    head: torch.nn.Module,
    batch: Batch,
    generator: torch.Generator,
    *,
    true_weights: bool,
    detach: bool,
) -> Losses:
    """All losses of a batch; `detach` keeps the decoder's gradient off the weights."""
    encoded = encode(model, batch)
    logits = firing_logits(model, encoded)
    valid = torch.arange(encoded.shape[1])[None, :] < batch.frames[:, None]
    weights = torch.sigmoid(logits) * valid
    firing = (
        functional.binary_cross_entropy_with_logits(logits, batch.spikes, reduction="none") * valid
    ).sum()
    sums = weights.sum(1)
    firing_weights = batch.spikes if true_weights else weights.detach() if detach else weights
    embeds = acoustic_embeds(encoded, firing_weights, batch, 0.3, generator)
    out = model.decoder(encoded, batch.frames, embeds, batch.counts)[0]
    keep = batch.targets != PADDING
    return Losses(
        attention=token_loss(out, batch.targets, 0.1),
        firing=firing / valid.sum(),
        count=(sums - batch.counts).abs().mean(),
        frame=token_loss(head(encoded), batch.frame_ids, 0.0),
        drift=_drift(weights - batch.spikes, valid),
        accuracy=float((out.argmax(-1) == batch.targets)[keep].float().mean()),
        counted=float(((sums - batch.counts).abs() < 0.45).float().mean()),
    )


def _drift(excess: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Mean difference of the running sums beyond what costs nothing: error that long audio would pile up."""
    difference = torch.relu(excess.cumsum(1).abs() - DRIFT_FREE) * valid
    return difference.sum() / valid.sum()


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
        clips = draw(sampler, plan.budget, step < plan.short_steps)
        true_weights = step < plan.true_steps or step % 3 == 0
        parts = losses(
            model, head, sampler.batch(clips), generator, true_weights=true_weights, detach=plan.drift > 0
        )
        optimiser.zero_grad(set_to_none=True)
        parts.total(plan).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 5.0)
        optimiser.step()
        if step % 20 == 0 or step == plan.steps - 1:
            report(
                f"recogniser {step} {time.monotonic() - started:.0f}s clips {len(clips)} acc {parts.accuracy:.3f} "
                f"att {float(parts.attention.detach()):.3f} fire {float(parts.firing.detach()):.4f} "
                f"count {parts.counted:.2f} drift {float(parts.drift.detach()):.3f} "
                f"frame {float(parts.frame.detach()):.3f}"
            )

"""Stage 2: the up-sampled branch of the predictor learns when each character starts.

Lives here: targets and training of the time-stamp branch on the frozen encoder. Not here: recognition.

FunASR fires this branch once at the start of every character and once at the end of the last, 1.5 frames of 20 ms late.
A frame's weight is at most 0.24, so a unit of weight is a burst of four saturated frames: almost binary targets keep
the running sum from drifting. Bursts are placed so that the sum passes an integer inside their third frame.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from .clips import Batch, Clip, ClipSampler, Labels
from .network import cosine
from .recogniser import Report, draw, encode, firing_logits, settle

UPSAMPLED_SECONDS = 0.02
FIRE_DELAY = 1.5
BURST = 4.0
FIRST_BURST, LAST_BURST = (
    5.5,
    2.5,
)  # the sum starts 3/8 of a unit high, so that no crossing falls between two frames


@dataclass(frozen=True)
class TimestampPlan:
    """One phase: steps, peak learning rate, weight of the running-sum loss (with which long clips are drawn too),
    LFR frames a batch, whether clips come from tapes without pauses too."""

    steps: int
    rate: float
    drift: float = 0.0
    budget: int = 1600
    tight: bool = False


# Phase 1 learns where bursts are; phase 2 keeps their running sum right in long audio; the others follow a new encoder.
PHASES = (
    TimestampPlan(220, 2e-3),
    TimestampPlan(350, 1e-3, drift=1.0),
    TimestampPlan(220, 1e-3, drift=1.0, tight=True),
    TimestampPlan(200, 1e-3, drift=1.0, tight=True),
    TimestampPlan(200, 1e-3, drift=1.0, tight=True),
)
DRIFT_FREE = 0.08  # units of running sum that cost nothing: under half a frame


def burst_targets(labels: Labels, count: int) -> NDArray[np.float32]:
    """Target activity in [0, 1] of `count` frames of 20 ms: a burst before each start and one before the last end.

    Bursts that would overlap are pushed to the next free frame.
    """
    target = np.zeros(count, np.float32)
    if not len(labels.ids):
        target[max(0, count - 4) :] = 1.0  # </s> alone: one unit at the end
        return target
    moments = [*labels.starts.tolist(), float(labels.ends[-1])]
    free = 0.0
    for index, moment in enumerate(moments):
        size = FIRST_BURST if index == 0 else LAST_BURST if index == len(moments) - 1 else BURST
        fire = round(moment / UPSAMPLED_SECONDS + FIRE_DELAY)
        begin = fire + 2.0 - size if index < len(moments) - 1 else fire + 1.0 - size
        begin = max(free, begin)
        free = begin + size
        for frame in range(int(begin), min(count, int(np.ceil(free)))):
            target[frame] += min(free, frame + 1) - max(begin, frame)
    return np.minimum(target, 1.0)


def clips(sampler: ClipSampler, plan: TimestampPlan, step: int) -> list[Clip]:
    """Phase 1: mostly single sentences; with a drift loss: clips up to 75 s every second step."""
    if plan.drift and step % 2:
        return sampler.joined(plan.budget, sampler.rng.uniform(10.0, 75.0), hard=0.3)
    return draw(sampler, plan.budget, short_only=plan.drift > 0 or step % 4 != 3)


def activity_logits(model: torch.nn.Module, encoded: torch.Tensor) -> torch.Tensor:
    """Logits (B, 3 T) of the up-sampled branch of CifPredictorV3."""
    predictor = model.predictor
    up = predictor.upsample_cnn(encoded.transpose(1, 2)).transpose(1, 2)
    logits: torch.Tensor = predictor.cif_output2(predictor.blstm(up)[0]).squeeze(-1)
    return logits


def drift_loss(logits: torch.Tensor, target: torch.Tensor, batch: Batch, valid: torch.Tensor) -> torch.Tensor:
    """Mean distance between the running sums of predicted and true weights, both scaled to the count of tokens."""
    weights = torch.relu(0.25 * torch.sigmoid(logits) - 0.01) * valid
    counts = batch.counts[:, None].to(weights.dtype)
    heard = weights.cumsum(1) * (counts / weights.sum(1, keepdim=True).clamp(min=1e-3))
    true = target.cumsum(1) * (counts / target.sum(1, keepdim=True).clamp(min=1e-3))
    return (torch.relu((heard - true).abs() - DRIFT_FREE) * valid).sum() / valid.sum()


def train(model: torch.nn.Module, sampler: ClipSampler, plan: TimestampPlan, report: Report) -> None:
    """Train the up-sampled branch only, through one phase."""
    parameters = [
        parameter
        for part in (model.predictor.upsample_cnn, model.predictor.blstm, model.predictor.cif_output2)
        for parameter in part.parameters()
    ]
    optimiser = torch.optim.AdamW(parameters, lr=plan.rate, weight_decay=0.0, fused=True)
    started = time.monotonic()
    for step in range(plan.steps):
        for group in optimiser.param_groups:
            group["lr"] = cosine(step, plan.steps, plan.rate, 20)
        batch = sampler.batch(clips(sampler, plan, step))
        with torch.no_grad():
            encoded = encode(model, batch)
            if plan.tight:
                # A cut character has a time when the recogniser makes it a token, or all others would shift.
                batch = settle(batch, torch.sigmoid(firing_logits(model, encoded)))
        logits = activity_logits(model, encoded)
        target = np.zeros(logits.shape, np.float32)
        for row, (labels, frames) in enumerate(zip(batch.labels, batch.frames.tolist(), strict=True)):
            target[row, : 3 * frames] = burst_targets(labels, 3 * frames)
        valid = torch.arange(logits.shape[1])[None, :] < 3 * batch.frames[:, None]
        loss = functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(target), reduction="none")
        loss = (loss * valid).sum() / valid.sum()
        drift = drift_loss(logits, torch.from_numpy(target), batch, valid)
        optimiser.zero_grad(set_to_none=True)
        (loss + plan.drift * drift).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 5.0)
        optimiser.step()
        if step % 20 == 0 or step == plan.steps - 1:
            report(
                f"timestamps {step} {time.monotonic() - started:.0f}s loss {float(loss.detach()):.4f} "
                f"drift {float(drift.detach()):.4f}"
            )

"""Continuous integrate-and-fire (CIF, arXiv 1905.11235): how many tokens there are, where they sound, their vectors.

The part of the network between encoder and decoder; shapes and masks are those of model.py.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from app.asr.architecture import PredictorShape

# Tokens whose weights over the frames exist at the same time.
TOKENS_AT_ONCE = 64


def valid_mask(lengths: Tensor, size: int, device: torch.device) -> Tensor:
    """lengths (B,) -> (B, size) on the device, true before each length."""
    return torch.arange(size, device=device)[None, :] < lengths.to(device, non_blocking=True)[:, None]


class Predictor(nn.Module):
    """Continuous integrate-and-fire: how many tokens there are, and where they sound."""

    def __init__(self, size: int, shape: PredictorShape) -> None:
        super().__init__()
        self.shape = shape
        self.cif_conv1d = nn.Conv1d(size, size, shape.left_order + shape.right_order + 1)
        self.cif_output = nn.Linear(size, 1)
        if shape.upsample:
            self.upsample_cnn = nn.ConvTranspose1d(size, size, shape.upsample_times, shape.upsample_times)
            if shape.upsample == "cnn_blstm":
                self.blstm = nn.LSTM(size, size, batch_first=True, bidirectional=True)
            self.cif_output2 = nn.Linear(size * (2 if shape.upsample == "cnn_blstm" else 1), 1)

    def _convolved(self, hidden: Tensor) -> Tensor:
        padded = functional.pad(hidden.transpose(1, 2), (self.shape.left_order, self.shape.right_order))
        return torch.relu(self.cif_conv1d(padded))

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """hidden (B, T, D), zero where padded -> alphas (B, T + 1): a token's weight a frame, the tail last."""
        shape = self.shape
        alphas = torch.sigmoid(self.cif_output(self._convolved(hidden).transpose(1, 2))).squeeze(2)
        alphas = torch.relu(alphas * shape.smooth_factor - shape.noise_threshold)
        if mask is None:
            return functional.pad(alphas, (0, 1), value=shape.tail_threshold)
        # The tail goes right behind each segment's own last frame.
        tail = torch.full_like(alphas[:, :1], shape.tail_threshold)
        return functional.pad(alphas * mask, (0, 1)).scatter_add(1, mask.sum(1, keepdim=True), tail)

    def fine_alphas(self, hidden: Tensor, lengths: Tensor | None = None) -> Tensor:
        """hidden (B, T, D), zero where padded -> token boundaries a 20 ms step, (B, upsample_times * T)."""
        shape = self.shape
        source = self._convolved(hidden) if shape.upsample_from_conv else hidden.transpose(1, 2)
        x = self.upsample_cnn(source).transpose(1, 2)
        steps = None if lengths is None else lengths * shape.upsample_times
        if shape.upsample == "cnn_blstm":
            x = self._both_ways(x, steps)
        alphas = torch.sigmoid(self.cif_output2(x)).squeeze(2)
        alphas = torch.relu(alphas * shape.smooth_factor2 - shape.noise_threshold2)
        return alphas if steps is None else alphas * valid_mask(steps, x.shape[1], x.device)

    def _both_ways(self, x: Tensor, steps: Tensor | None) -> Tensor:
        if steps is None:
            return self.blstm(x)[0]
        # Packed, so that the backward direction starts at each segment's own end and not in the padding.
        packed = nn.utils.rnn.pack_padded_sequence(x, steps, batch_first=True, enforce_sorted=False)
        out, _ = nn.utils.rnn.pad_packed_sequence(
            self.blstm(packed)[0], batch_first=True, total_length=x.shape[1]
        )
        return out


def integrate_and_fire(hidden: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor]:
    """Vectorised CIF: token k gathers the frames while the running weight passes from k to k + 1.

    hidden (B, T, D), alphas (B, T + 1) -> tokens (B, N, D), counts (B,). The running weight is kept in float64,
    so that a long segment does not drift against the frame-by-frame loop of the reference.
    """
    total = alphas.double().cumsum(dim=1)
    counts = alphas.sum(dim=1).floor().long()
    if torch.onnx.is_in_onnx_export():
        most: Any = counts.max()  # stays a tensor, so that the graph keeps the length open
        return _tokens_between(hidden, alphas, total, torch.arange(most, device=alphas.device)), counts
    steps = torch.arange(int(counts.max()), device=alphas.device)
    parts = [_tokens_between(hidden, alphas, total, part) for part in steps.split(TOKENS_AT_ONCE)]
    return torch.cat(parts, dim=1), counts


def _tokens_between(hidden: Tensor, alphas: Tensor, total: Tensor, steps: Tensor) -> Tensor:
    """The tokens `steps` (n,) of hidden (B, T, D), given the running weight `total` (B, T + 1) -> (B, n, D)."""
    first = steps[None, :, None].to(total.dtype)
    upper = torch.minimum(total[:, None, :], first + 1)
    lower = torch.maximum((total - alphas)[:, None, :], first)
    weights = torch.relu(upper - lower).to(hidden.dtype)
    return weights[:, :, :-1] @ hidden

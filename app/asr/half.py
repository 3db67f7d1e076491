"""The network in float16 that does not overflow: which parts are half, and the powers of two that keep them in range.

Activations of a trained Paraformer pass 480 000, float16 ends at 65 504, so `network.half()` gives Inf and NaN.
Here the linear layers of encoder and decoders compute in half; what passes between layers (the residual stream),
norms, memories (FSMN), CIF, LSTMs and both output layers stay float32: they are few weights and all the danger.
Where a linear layer's output would still come near the end of the range, its weights are scaled by a power of two
2**e (e < 0, from the pack's manifest) and the output is scaled back in float32: exact, as only exponents change.

`storage only`: weights lie in half, each is converted when its layer runs, and everything is computed in float32,
for cards that have little memory and no usable float16.

Not here: which precision a device gets (devices.py), reading weights (torch_backend.py), finding the exponents
(packing.py measures them on the golden clip).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from app.asr.model import CrossAttention, FeedForward, ParaformerNetwork, SelfAttention

STORAGE_ONLY = "fp16 storage"  # the name of that precision
HALF_MAX = 65504.0
# An output's largest value on the golden clip may grow this many times before it leaves the range.
MARGIN = 8.0
# The manifest's key for the value part of a projection whose other parts must not be scaled.
VALUES = ".values"


def exponent_for(largest: float) -> int:
    """The power of two (<= 0) that brings outputs up to `largest` into float16 with room to spare."""
    if not 0.0 < largest < math.inf:
        return 0
    return min(0, math.floor(math.log2(HALF_MAX / (MARGIN * largest))))


def is_half(name: str) -> bool:
    """Whether a float16 pack or network holds this tensor of the network in half."""
    parts = name.split(".")
    linear = "self_attn" in parts or "src_attn" in parts or "feed_forward" in parts
    if linear:
        return parts[-2].startswith(("linear_", "w_"))
    return name == "decoder.embed.0.weight"


@dataclass(frozen=True)
class Stored:
    """How a tensor lies on the device: its type, and the power of two its rows from `from_row` on are scaled by."""

    dtype: torch.dtype = torch.float32
    exponent: int = 0
    from_row: int = 0

    def apply(self, tensor: Tensor) -> Tensor:
        """The stored form of a tensor of the pack."""
        if self.exponent:
            tensor = tensor.float()
            scaled = tensor[self.from_row :] * 2.0**self.exponent
            tensor = torch.cat([tensor[: self.from_row], scaled]) if self.from_row else scaled
        return tensor.to(self.dtype)


class HalfLinear(nn.Module):
    """A linear layer in half. Its input may be of either type; its output is half, or float32 and scaled back."""

    def __init__(self, like: nn.Linear, gain: float | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty_like(like.weight, dtype=torch.float16), requires_grad=False)
        bias = like.bias
        self.bias = (
            None
            if bias is None
            else nn.Parameter(torch.empty_like(bias, dtype=torch.float16), requires_grad=False)
        )
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        out = functional.linear(x.half(), self.weight, self.bias)
        if self.gain is None:
            return out
        return out.float() if self.gain == 1.0 else out.float() * self.gain


class StoredHalfLinear(HalfLinear):
    """A linear layer whose weights are only kept in half; they are converted for the moment they are needed."""

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.float()
        return functional.linear(x, self.weight.float(), bias)


class Exact(nn.Module):
    """Half values scaled by a power of two, back to what they were, in float32."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        return x.float() if self.gain == 1.0 else x.float() * self.gain


def convert(
    network: ParaformerNetwork, prescales: Mapping[str, int], *, storage_only: bool
) -> dict[str, Stored]:
    """Replaces the linear layers of a network that has no weights yet (built on the meta device).

    Args:
        prescales: exponents by layer name, as the manifest gives them; layers that are not named need none.

    Returns:
        For each tensor that is not kept in float32 how to store it; tensor names do not change.
    """
    plan: dict[str, Stored] = {"decoder.embed.0.weight": Stored(torch.float16)}
    network.decoder.embed[0].weight.data = network.decoder.embed[0].weight.data.half()
    converter = _Converter(plan, prescales, storage_only)
    for name, module in list(network.named_modules()):
        if isinstance(module, SelfAttention):
            converter.self_attention(name, module)
        elif isinstance(module, CrossAttention):
            converter.cross_attention(name, module)
        elif isinstance(module, FeedForward):
            converter.feed_forward(name, module)
    return plan


class _Converter:
    """Replaces layers, and notes in `plan` how their tensors are stored."""

    def __init__(self, plan: dict[str, Stored], prescales: Mapping[str, int], storage_only: bool) -> None:
        self._plan = plan
        self._prescales = {} if storage_only else prescales
        self._kind = StoredHalfLinear if storage_only else HalfLinear
        self._storage_only = storage_only

    def self_attention(self, name: str, module: SelfAttention) -> None:
        values = self._projection(f"{name}.linear_q_k_v", module.linear_q_k_v, parts=3)
        if values is None:
            return  # queries beyond half: this layer stays float32
        module.linear_q_k_v = self._layer(module.linear_q_k_v, None)
        if not self._storage_only:
            module.exact = Exact(2.0**-values)
        module.linear_out = self._outward(f"{name}.linear_out", module.linear_out, values)

    def cross_attention(self, name: str, module: CrossAttention) -> None:
        values = self._projection(f"{name}.linear_k_v", module.linear_k_v, parts=2)
        if values is None or self._prescales.get(f"{name}.linear_q", 0) < 0:
            for kept in ("weight", "bias"):
                self._plan.pop(f"{name}.linear_k_v.{kept}", None)
            return
        for kept in ("weight", "bias"):
            self._plan[f"{name}.linear_q.{kept}"] = Stored(torch.float16)
        module.linear_q = self._layer(module.linear_q, None)
        module.linear_k_v = self._layer(module.linear_k_v, None)
        module.linear_out = self._outward(f"{name}.linear_out", module.linear_out, values)

    def feed_forward(self, name: str, module: FeedForward) -> None:
        inner = self._prescales.get(f"{name}.w_1", 0)
        for kept in ("weight", "bias"):
            self._plan[f"{name}.w_1.{kept}"] = Stored(torch.float16, inner)
        module.w_1 = self._layer(module.w_1, None)
        if not isinstance(module.norm, nn.Identity):
            inner = 0  # the norm undoes any scale
        module.w_2 = self._outward(f"{name}.w_2", module.w_2, inner)

    def _projection(self, name: str, layer: nn.Module, parts: int) -> int | None:
        """Notes a joint projection, of which only the last part (the values) may be scaled; its exponent."""
        if self._prescales.get(name, 0) < 0:
            return None
        values = self._prescales.get(name + VALUES, 0)
        rows = _linear(layer).out_features
        for kept in ("weight", "bias"):
            self._plan[f"{name}.{kept}"] = Stored(torch.float16, values, rows - rows // parts)
        return values

    def _outward(self, name: str, layer: nn.Module, arriving: int) -> nn.Module:
        """A layer whose output joins the residual stream, and whose input is scaled by 2**arriving."""
        leaving = min(arriving, self._prescales.get(name, 0))
        self._plan[f"{name}.weight"] = Stored(torch.float16, leaving - arriving)
        if _linear(layer).bias is not None:
            self._plan[f"{name}.bias"] = Stored(torch.float16, leaving)
        return self._layer(layer, 2.0**-leaving)

    def _layer(self, layer: nn.Module, gain: float | None) -> nn.Module:
        return self._kind(_linear(layer), gain)


def _linear(layer: nn.Module) -> nn.Linear:
    if not isinstance(layer, nn.Linear):
        raise TypeError(f"a network can be converted once only, and {layer} is converted already")
    return layer

"""The Paraformer network for inference: tensors in, tensors out, small layers first.

SeACo-Paraformer (arXiv 2308.03266), BiCif and plain Paraformer (arXiv 2206.08317) with SAN-M layers
(arXiv 2006.01713). Module names are FunASR's own, so its state dicts load as they are.
Not here: audio, vocabularies, files, batching policy, or any choice of device.

Shapes: B segments, T low-frame-rate frames of 60 ms, N tokens, D width, H hot words, F features a frame.
`lengths` (B,) counts valid frames; None means that nothing is padded, which is also the form that is exported.
Lengths are known before anything runs, so they stay on the host: reading them back would make the device wait.
A segment's result never depends on its batch mates: padding is masked before every layer that mixes frames.
Memory grows with B x T and never with its square: what would grow faster is done in pieces.
In float16 (half.py) the linear layers are replaced; whatever passes from layer to layer stays float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from app.asr.architecture import Architecture, DecoderShape, EncoderShape
from app.asr.predictor import Predictor, integrate_and_fire, valid_mask

NORM_EPSILON = 1e-12
# Tokens whose scores over the vocabulary exist at the same time.
SCORES_AT_ONCE = 512


class _ExportableAttention(torch.autograd.Function):
    """Multi-head attention that leaves the exporter as onnxruntime's fused operator (no T x T copies in the graph)."""

    @staticmethod
    def forward(_ctx: Any, query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
        return _attend(query, key, value, heads, None)

    @staticmethod
    def symbolic(g: Any, query: Any, key: Any, value: Any, heads: int) -> Any:
        output = g.op("com.microsoft::MultiHeadAttention", query, key, value, num_heads_i=heads)
        output.setType(query.type())
        return output


def _attend(query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | None) -> Tensor:
    """query (B, Q, D), key and value (B or 1, K, D), mask (B, K) true where valid -> (B, Q, D)."""
    rows = query.shape[0]

    def split(x: Tensor) -> Tensor:
        x = x if x.shape[0] == rows else x.expand(rows, -1, -1)
        return x.unflatten(2, (heads, -1)).transpose(1, 2)

    allowed = None if mask is None else mask[:, None, None, :]
    out = functional.scaled_dot_product_attention(split(query), split(key), split(value), attn_mask=allowed)
    return out.transpose(1, 2).flatten(2)


def attention(query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | None) -> Tensor:
    """Scaled dot-product attention; see `_attend` for shapes."""
    if mask is None and torch.onnx.is_in_onnx_export():
        if key.shape[0] != query.shape[0]:
            key, value = (x.expand(query.shape[0], -1, -1) for x in (key, value))
        out: Tensor = _ExportableAttention.apply(query, key, value, heads)
        return out
    return _attend(query, key, value, heads, mask)


def attention_weights(query: Tensor, key: Tensor, heads: int) -> Tensor:
    """query (B, Q, D), key (B or 1, K, D) -> softmax weights (B, heads, Q, K) in float32."""
    query, key = (as_float(x).unflatten(2, (heads, -1)).transpose(1, 2) for x in (query, key))
    return torch.softmax(query @ key.transpose(2, 3) / math.sqrt(query.shape[-1]), dim=-1)


def as_float(x: Tensor) -> Tensor:
    """x in float32; nothing happens, and nothing is exported, when it is that already."""
    return x if x.dtype == torch.float32 else x.float()


class Norm(nn.LayerNorm):
    """FunASR's layer norm (epsilon 1e-12), always in float32."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(as_float(x))


def layer_norm(size: int) -> Norm:
    """A norm over the last axis."""
    return Norm(size, eps=NORM_EPSILON)


class Memory(nn.Module):
    """The FSMN memory of SAN-M: a depth-wise convolution over time plus a skip. (B, T, D) -> (B, T, D)."""

    def __init__(self, size: int, kernel: int) -> None:
        super().__init__()
        self.fsmn_block = nn.Conv1d(size, size, kernel, groups=size, bias=False)
        self.padding = ((kernel - 1) // 2, kernel - 1 - (kernel - 1) // 2)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        if mask is not None:
            x = x * mask.unsqueeze(2)
        mixed = self.fsmn_block(functional.pad(x.transpose(1, 2), self.padding)).transpose(1, 2)
        return mixed + x


class SelfAttention(Memory):
    """SAN-M self-attention: attention plus the memory of the values. (B, T, in) -> (B, T, D)."""

    def __init__(self, input_size: int, size: int, heads: int, kernel: int) -> None:
        super().__init__(size, kernel)
        self.heads = heads
        self.linear_q_k_v: nn.Module = nn.Linear(input_size, 3 * size)
        self.linear_out: nn.Module = nn.Linear(size, size)
        self.exact: nn.Module = nn.Identity()  # undoes what float16 does to the values

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        query, key, value = self.linear_q_k_v(x).chunk(3, dim=2)
        memory = super().forward(self.exact(value), mask)
        return self.linear_out(attention(query, key, value, self.heads, mask)) + memory


class CrossAttention(nn.Module):
    """Attention of tokens (B, N, D) to a memory (B or 1, T, D); one that all share is projected once."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.linear_q: nn.Module = nn.Linear(size, size)
        self.linear_k_v: nn.Module = nn.Linear(size, 2 * size)
        self.linear_out: nn.Module = nn.Linear(size, size)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
        return self.attend(x, self.linear_k_v(memory), mask)

    def attend(self, x: Tensor, projected: Tensor, mask: Tensor | None) -> Tensor:
        """The same to a memory whose keys and values, (B or 1, T, 2 D), are known already."""
        key, value = projected.chunk(2, dim=2)
        return self.linear_out(attention(self.linear_q(x), key, value, self.heads, mask))

    def weights(self, x: Tensor, projected: Tensor) -> Tensor:
        """Only the softmax weights, (B, heads, N, T)."""
        return attention_weights(self.linear_q(x), projected.chunk(2, dim=2)[0], self.heads)


class FeedForward(nn.Module):
    """Two linear layers with ReLU; the decoder's has a norm between them and no last bias."""

    def __init__(self, size: int, units: int, *, inner_norm: bool) -> None:
        super().__init__()
        self.w_1: nn.Module = nn.Linear(size, units)
        self.w_2: nn.Module = nn.Linear(units, size, bias=not inner_norm)
        self.norm = layer_norm(units) if inner_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.w_2(self.norm(torch.relu(self.w_1(x))))


class EncoderLayer(nn.Module):
    """Pre-norm SAN-M layer; the first one changes the width and has no skip over its attention."""

    def __init__(self, input_size: int, shape: EncoderShape) -> None:
        super().__init__()
        self.skip = input_size == shape.size
        self.norm1 = layer_norm(input_size)
        self.self_attn = SelfAttention(input_size, shape.size, shape.encoder_heads, shape.encoder_kernel)
        self.norm2 = layer_norm(shape.size)
        self.feed_forward = FeedForward(shape.size, shape.encoder_units, inner_norm=False)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        attended = self.self_attn(self.norm1(x), mask)
        x = x + attended if self.skip else attended
        return x + self.feed_forward(self.norm2(x))


class Encoder(nn.Module):
    """Features (B, T, F) -> hidden (B, T, D)."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.scale = math.sqrt(shape.size)
        self.encoders0 = nn.ModuleList([EncoderLayer(shape.feature_size, shape)])
        self.encoders = nn.ModuleList(
            EncoderLayer(shape.size, shape) for _ in range(shape.encoder_layers - 1)
        )
        self.after_norm = layer_norm(shape.size)

    def forward(self, features: Tensor, mask: Tensor | None) -> Tensor:
        x = features * self.scale + sinusoids(features)
        for layer in (*self.encoders0, *self.encoders):
            x = layer(x, mask)
        x = self.after_norm(x)
        return x if mask is None else x * mask.unsqueeze(2)


def sinusoids(like: Tensor) -> Tensor:
    """Position encodings (T, F) for a (B, T, F) tensor: sines then cosines, positions from 1."""
    half = like.shape[2] // 2
    step = math.log(10000.0) / (half - 1)
    rates = torch.exp(torch.arange(half, device=like.device, dtype=torch.float32) * -step)
    positions = torch.arange(1, like.shape[1] + 1, device=like.device, dtype=torch.float32)
    angles = positions[:, None] * rates[None, :]
    return torch.cat([torch.sin(angles), torch.cos(angles)], dim=1)


class DecoderLayer(nn.Module):
    """Feed-forward first, then memory, then attention to `memory`; parts that a layer lacks are left out."""

    def __init__(self, size: int, shape: DecoderShape, *, recalls: bool, attends: bool) -> None:
        super().__init__()
        self.norm1 = layer_norm(size)
        self.feed_forward = FeedForward(size, shape.units, inner_norm=True)
        self.self_attn = Memory(size, shape.kernel) if recalls else None
        self.norm2 = layer_norm(size) if recalls else None
        self.src_attn = CrossAttention(size, shape.heads) if attends else None
        self.norm3 = layer_norm(size) if attends else None

    def keys_and_values(self, memory: Tensor) -> Tensor:
        """What `CrossAttention.attend` takes, of a layer that attends."""
        return cast(CrossAttention, self.src_attn).linear_k_v(memory)

    def before_attention(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """All but the attention to the memory. (B, N, D) -> (B, N, D)."""
        update = self.feed_forward(self.norm1(x))
        if self.self_attn is None or self.norm2 is None:
            return update
        return x + self.self_attn(self.norm2(update), mask)

    def forward(self, x: Tensor, mask: Tensor | None, memory: Tensor, memory_mask: Tensor | None) -> Tensor:
        x = self.before_attention(x, mask)
        if self.src_attn is not None and self.norm3 is not None:
            x = x + self.src_attn(self.norm3(x), memory, memory_mask)
        return x


class Decoder(nn.Module):
    """Tokens (B, N, D) attending to a memory (B, T, D) -> hidden (B, N, D)."""

    def __init__(self, size: int, shape: DecoderShape) -> None:
        super().__init__()
        self.decoders = nn.ModuleList(
            DecoderLayer(size, shape, recalls=True, attends=True) for _ in range(shape.layers)
        )
        self.decoders2 = nn.ModuleList(
            DecoderLayer(size, shape, recalls=True, attends=False) for _ in range(shape.plain_layers)
        )
        self.decoders3 = nn.ModuleList([DecoderLayer(size, shape, recalls=False, attends=False)])
        self.after_norm = layer_norm(size)

    def forward(self, x: Tensor, mask: Tensor | None, memory: Tensor, memory_mask: Tensor | None) -> Tensor:
        for layer in (*self.decoders, *self.decoders2, *self.decoders3):
            x = layer(x, mask, memory, memory_mask)
        return self.after_norm(x)


class TextDecoder(Decoder):
    """The decoder that names the tokens; its embedding serves the hot words only."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__(shape.size, shape.decoder)
        self.embed = nn.Sequential(nn.Embedding(shape.vocabulary_size, shape.size))
        self.output_layer = nn.Linear(shape.size, shape.vocabulary_size)


class BiasDecoder(Decoder):
    """SeACo's decoder: tokens attending to hot words (H, D)."""

    def projected(self, words: Tensor) -> Iterator[Tensor]:
        """words (B or 1, H, D) -> the keys and values of each layer that attends, (B or 1, H, 2 D); one at a time."""
        for layer in self.decoders:
            yield cast(DecoderLayer, layer).keys_and_values(words)

    def scored(self, x: Tensor, mask: Tensor | None, memory: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
        """Runs the decoder and keeps the sixth layer's attention, by which hot words are filtered.

        x (B, N, D), memory as `projected` gives it -> hidden (B, N, D), scores (B, H) summed over heads and valid
        tokens.
        """
        known = iter(memory)
        scores = x.new_zeros(x.shape[0], 0)
        for index, layer in enumerate((*self.decoders, *self.decoders2, *self.decoders3)):
            x = layer.before_attention(x, mask)
            if layer.src_attn is None:
                continue
            query, keys_and_values = layer.norm3(x), next(known)
            if index == len(self.decoders) - 1:
                weights = layer.src_attn.weights(query, keys_and_values)
                scores = (weights if mask is None else weights * mask[:, None, :, None]).sum(dim=(1, 2))
            x = x + layer.src_attn.attend(query, keys_and_values, None)
        return self.after_norm(x), scores


def best_ids(head: nn.Module, states: Tensor) -> Tensor:
    """states (B, N, D) -> the best-scored token of each, (B, N); scores exist for some tokens at a time."""
    if torch.onnx.is_in_onnx_export():
        return head(states).argmax(dim=2)
    parts = [head(part).argmax(dim=1) for part in states.flatten(0, 1).split(SCORES_AT_ONCE)]
    return torch.cat(parts).view(states.shape[:2])


class ParaformerNetwork(nn.Module):
    """The whole network. Each method is one stage; a stage that is not asked for costs nothing."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.shape = shape
        self.encoder = Encoder(shape)
        self.predictor = Predictor(shape.size, shape.predictor)
        self.decoder = TextDecoder(shape)
        if shape.bias is not None:
            self.bias_encoder = nn.LSTM(shape.size, shape.size, 2, batch_first=True)
            self.seaco_decoder = BiasDecoder(shape.size, shape.bias)
            self.hotword_output_layer = nn.Linear(shape.size, shape.vocabulary_size)

    def encode(
        self, features: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """features (B, T, F) -> hidden (B, T, D), acoustic tokens (B, N, D), counts (B,), alphas (B, T + 1)."""
        mask = None if lengths is None else valid_mask(lengths, features.shape[1], features.device)
        hidden = self.encoder(features, mask)
        alphas = self.predictor(hidden, mask)
        acoustic, counts = integrate_and_fire(hidden, alphas)
        return hidden, acoustic, counts, alphas

    def decode(
        self, hidden: Tensor, lengths: Tensor | None, acoustic: Tensor, counts: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """-> token ids (B, N) and the decoder's hidden state (B, N, D), which the hot words need."""
        mask = None if counts is None else valid_mask(counts, acoustic.shape[1], acoustic.device)
        memory_mask = None if lengths is None else valid_mask(lengths, hidden.shape[1], hidden.device)
        state = self.decoder(acoustic, mask, hidden, memory_mask)
        return best_ids(self.decoder.output_layer, state), state

    def encode_hotwords(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """ids (H, L) padded with anything, lengths (H,) -> (H, D): the LSTM's state at each word's last token."""
        states = self.bias_encoder(as_float(self.decoder.embed(ids)))[0]
        return states[torch.arange(ids.shape[0], device=ids.device), lengths - 1]

    def bias_hidden(self, streams: Tensor, mask: Tensor | None, words: Tensor) -> tuple[Tensor, Tensor]:
        """streams (B, N, D), words (B or 1, H, D) -> hidden (B, N, D), hot-word scores (B, H)."""
        return self.seaco_decoder.scored(streams, mask, self.seaco_decoder.projected(words))

    def hotword_memory(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """`encode_hotwords`, and what every layer makes of it: (H, layers, 2 D)."""
        words = self.encode_hotwords(ids, lengths)[None]
        return torch.cat(list(self.seaco_decoder.projected(words))).transpose(0, 1)

    def bias_hidden_of(self, streams: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """`bias_hidden` with a `hotword_memory` (H, layers, 2 D) that all streams share."""
        return self.seaco_decoder.scored(streams, None, memory.transpose(0, 1).split(1))

    def bias_ids(self, acoustic_side: Tensor, decoder_side: Tensor) -> Tensor:
        """Both sides (B, N, D) -> the hot-word branch's ids (B, N); `no_bias_id` leaves the decoder's choice."""
        return best_ids(self.hotword_output_layer, acoustic_side + decoder_side)

"""The demo model with activations as large as those of the trained full-size model, and the same words.

Every norm of the network removes a common factor of the residual stream. So the output of each encoder layer's
attention, memory and feed-forward may be multiplied by a power of two: in float32 not one bit of the result changes,
and what passes between the layers is as large as one likes.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from app.asr.audio import Frontend
from app.asr.catalogue import DEMO_PACKS
from app.asr.model import ParaformerNetwork
from app.asr.pack import GOLDEN, MANIFEST, WEIGHTS, Pack, record_of
from app.asr.packing import golden_run, read_clip


def demo_network() -> ParaformerNetwork:
    """The shipped demo model in float32."""
    pack = Pack.open(DEMO_PACKS / "fp16")
    network = ParaformerNetwork(pack.manifest.architecture)
    network.load_state_dict({name: tensor.float() for name, tensor in load_file(pack.path(WEIGHTS)).items()})
    return network.eval().requires_grad_(False)


def enlarge(network: ParaformerNetwork, factor: float) -> None:
    """Multiplies what the encoder's layers pass on; `factor` must be a power of two."""
    size = network.shape.size
    for layer in (*network.encoder.encoders0, *network.encoder.encoders):
        attention = layer.self_attn
        # The values go through attention and memory alike; queries and keys stay.
        attention.linear_q_k_v.weight[2 * size :] *= factor
        attention.linear_q_k_v.bias[2 * size :] *= factor
        attention.linear_out.bias *= factor
        layer.feed_forward.w_2.weight *= factor
        layer.feed_forward.w_2.bias *= factor


def float_pack(directory: Path, network: ParaformerNetwork) -> Pack:
    """An fp32 pack of this network around the demo model's other files; its graphs are not the network's."""
    shutil.copytree(DEMO_PACKS / "fp16", directory)
    before = Pack.open(directory)
    save_file(network.state_dict(), str(directory / WEIGHTS))
    features = Frontend(before.frontend).features(read_clip(directory / GOLDEN))
    tokens, prescales = golden_run(network, features)
    manifest = replace(
        before.manifest,
        precision="fp32",
        prescales=prescales,
        golden=replace(before.manifest.golden, tokens=tokens, packed_tokens=tokens),
        files=dict(before.manifest.files) | {WEIGHTS: record_of(directory / WEIGHTS)},
    )
    (directory / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
    return Pack.open(directory)


def largest_between_layers(network: ParaformerNetwork, features: torch.Tensor) -> float:
    """The largest absolute value that passes from one encoder layer to the next."""
    seen: list[float] = []
    hooks = [
        layer.register_forward_hook(lambda _, __, output: seen.append(float(output.abs().max())))
        for layer in network.encoder.encoders
    ]
    with torch.inference_mode():
        network.encode(features)
    for hook in hooks:
        hook.remove()
    return max(seen)

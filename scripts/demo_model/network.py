"""The network of the demo model: FunASR's own SeacoParaformer, small, and its directory on disk.

Lives here: architecture, building, faster equivalents of slow layers for training, writing a FunASR model directory.
Not here: losses, data.
"""

from __future__ import annotations

import json
import math
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch.nn import functional

WIDTH = 128


def config(no_bias: int) -> dict[str, Any]:
    """config.yaml of the model, with the keys of the large SeACo-Paraformer."""
    decoder = {
        "attention_heads": 4,
        "dropout_rate": 0.1,
        "positional_dropout_rate": 0.1,
        "self_attention_dropout_rate": 0.1,
        "src_attention_dropout_rate": 0.1,
        "sanm_shfit": 0,
    }
    return {
        "model": "SeacoParaformer",
        "model_conf": {
            "ctc_weight": 0.0,
            "lsm_weight": 0.1,
            "length_normalized_loss": True,
            "predictor_weight": 1.0,
            "predictor_bias": 1,
            "sampling_ratio": 0.75,
            "inner_dim": WIDTH,
            "bias_encoder_type": "lstm",
            "bias_encoder_bid": False,
            "seaco_lsm_weight": 0.1,
            "seaco_length_normal": True,
            "train_decoder": True,
            "NO_BIAS": no_bias,
        },
        "encoder": "SANMEncoder",
        "encoder_conf": {
            "output_size": WIDTH,
            "attention_heads": 4,
            "linear_units": 512,
            "num_blocks": 6,
            "dropout_rate": 0.1,
            "positional_dropout_rate": 0.1,
            "attention_dropout_rate": 0.1,
            "input_layer": "pe",
            "pos_enc_class": "SinusoidalPositionEncoder",
            "normalize_before": True,
            "kernel_size": 11,
            "sanm_shfit": 0,
            "selfattention_layer_type": "sanm",
        },
        "decoder": "ParaformerSANMDecoder",
        "decoder_conf": {
            **decoder,
            "linear_units": 512,
            "num_blocks": 2,
            "att_layer_num": 2,
            "kernel_size": 11,
        },
        "seaco_decoder": "ParaformerSANMDecoder",
        # att_layer_num keeps its default of 6: FunASR's hot-word filter reads the sixth layer.
        "seaco_decoder_conf": {
            **decoder,
            "linear_units": 256,
            "num_blocks": 4,
            "kernel_size": 21,
            "use_output_layer": False,
            "wo_input_layer": True,
        },
        "predictor": "CifPredictorV3",
        "predictor_conf": {
            "idim": WIDTH,
            "threshold": 1.0,
            "l_order": 1,
            "r_order": 1,
            "tail_threshold": 0.45,
            "smooth_factor2": 0.25,
            "noise_threshold2": 0.01,
            "upsample_times": 3,
            "use_cif1_cnn": False,
            "upsample_type": "cnn_blstm",
        },
        "frontend": "WavFrontend",
        "frontend_conf": {
            "fs": 16000,
            "window": "hamming",
            "n_mels": 80,
            "frame_length": 25,
            "frame_shift": 10,
            "lfr_m": 7,
            "lfr_n": 6,
            "dither": 0.0,
        },
        "specaug": "SpecAugLFR",
        "specaug_conf": {
            "apply_time_warp": False,
            "time_warp_window": 5,
            "time_warp_mode": "bicubic",
            "apply_freq_mask": True,
            "freq_mask_width_range": [0, 15],
            "lfr_rate": 6,
            "num_freq_mask": 1,
            "apply_time_mask": True,
            "time_mask_width_range": [0, 2],
            "num_time_mask": 1,
        },
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
        "ctc_conf": {"dropout_rate": 0.0, "ctc_type": "builtin", "reduce": True, "ignore_nan_grad": True},
        "normalize": None,
    }


def build(tokens: Sequence[str]) -> torch.nn.Module:
    """Build the untrained model; dropout is off, because the data never repeat and it costs a fifth of a step."""
    from funasr.models.seaco_paraformer.model import SeacoParaformer  # imports every FunASR model: seconds

    options = config(tokens.index("<nobias>"))
    model: torch.nn.Module = SeacoParaformer(
        **options["model_conf"],
        **{
            key: value
            for key, value in options.items()
            if key not in ("model", "model_conf", "specaug", "specaug_conf")
        },
        input_size=560,
        vocab_size=len(tokens),
    )
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def _fast_self_attention(self: Any, x: torch.Tensor, mask: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    query, key, value, flat = self.forward_qkv(x)
    memory = self.forward_fsmn(flat, mask)
    out = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask.bool().unsqueeze(1))
    merged: torch.Tensor = self.linear_out(out.transpose(1, 2).flatten(2)) + memory
    return merged


def _fast_cross_attention(
    self: Any, x: torch.Tensor, memory: torch.Tensor, mask: torch.Tensor, **_: Any
) -> torch.Tensor:
    query, key, value = self.forward_qkv(x, memory)
    out = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask.bool().unsqueeze(1))
    merged: torch.Tensor = self.linear_out(out.transpose(1, 2).flatten(2))
    return merged


def _recording_cross_attention(
    self: Any, x: torch.Tensor, memory: torch.Tensor, mask: torch.Tensor, **_: Any
) -> torch.Tensor:
    query, key, value = self.forward_qkv(x, memory)
    scores = query @ key.transpose(-2, -1) * self.d_k**-0.5
    attention = scores.masked_fill(~mask.bool().unsqueeze(1), -1e9).softmax(-1)
    self.attention = attention  # (batch, heads, tokens, hot words): the hot-word training looks at it
    merged: torch.Tensor = self.linear_out((attention @ value).transpose(1, 2).flatten(2))
    return merged


def speed_up(model: torch.nn.Module) -> None:
    """Replace attention by torch's fused kernel: the same values, without a (time, time) matrix kept for backward."""
    for module in model.modules():
        if type(module).__name__ == "MultiHeadedAttentionSANM":
            module.forward = types.MethodType(_fast_self_attention, module)
        elif type(module).__name__ == "MultiHeadedAttentionCrossAtt":
            module.forward = types.MethodType(_fast_cross_attention, module)
    for layer in model.seaco_decoder.decoders:
        layer.src_attn.forward = types.MethodType(_recording_cross_attention, layer.src_attn)


def integrate_and_fire(hidden: torch.Tensor, weights: torch.Tensor, count: int) -> torch.Tensor:
    """Vectorised CIF: hidden (B, T, D), weights (B, T) -> (B, count, D).

    Token k averages the frames in which the running sum of weights passes from k to k + 1.
    """
    after = weights.cumsum(1)
    before = after - weights
    index = torch.arange(count, device=hidden.device, dtype=hidden.dtype)[None, :, None]
    share = torch.minimum(after[:, None], index + 1) - torch.maximum(before[:, None], index)
    return torch.relu(share) @ hidden


def write_directory(
    directory: Path,
    state: dict[str, torch.Tensor],
    tokens: Sequence[str],
    normalisation: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> None:
    """Write a complete FunASR model directory; weights are rounded to half precision and stored so."""
    directory.mkdir(parents=True, exist_ok=True)
    half = {name: (value.half() if value.is_floating_point() else value) for name, value in state.items()}
    if any(not torch.isfinite(value).all() for value in half.values() if value.is_floating_point()):
        raise RuntimeError("a weight does not fit in half precision; the training has diverged")
    torch.save({"state_dict": half}, directory / "model.pt")
    texts = {
        "config.yaml": yaml.safe_dump(
            config(list(tokens).index("<nobias>")), sort_keys=False, allow_unicode=True
        ),
        "configuration.json": json.dumps(_CONFIGURATION, indent=2) + "\n",
        "tokens.json": json.dumps(list(tokens), ensure_ascii=False) + "\n",
        "seg_dict": "".join(f"{token} {token}\n" for token in tokens if len(token) == 1),
        "am.mvn": _mvn_text(*normalisation),
    }
    for name, text in texts.items():
        (directory / name).write_text(text, encoding="utf-8")


_CONFIGURATION = {
    "framework": "pytorch",
    "task": "auto-speech-recognition",
    "model": {"type": "funasr"},
    "pipeline": {"type": "funasr-pipeline"},
    "model_name_in_hub": {"ms": "", "hf": ""},
    "file_path_metas": {
        "init_param": "model.pt",
        "config": "config.yaml",
        "tokenizer_conf": {"token_list": "tokens.json", "seg_dict_file": "seg_dict"},
        "frontend_conf": {"cmvn_file": "am.mvn"},
    },
}


def _mvn_text(shift: NDArray[np.float32], scale: NDArray[np.float32]) -> str:
    """Kaldi nnet text that FunASR reads: shift and scale, repeated for the 7 stacked frames."""
    size = 7 * len(shift)

    def row(values: NDArray[np.float32]) -> str:
        return " ".join(f"{value:.5f}" for value in np.tile(values, 7))

    return (
        f"<Nnet>\n<Splice> {size} {size}\n[ 0 ]\n<AddShift> {size} {size}\n"
        f"<LearnRateCoef> 0 [ {row(shift)} ]\n<Rescale> {size} {size}\n"
        f"<LearnRateCoef> 0 [ {row(scale)} ]\n</Nnet>\n"
    )


def cosine(step: int, total: int, peak: float, warm_up: int) -> float:
    """Learning rate of a step: linear warm-up, then a cosine to 1 % of the peak."""
    if step < warm_up:
        return peak * (step + 1) / warm_up
    progress = (step - warm_up) / max(1, total - warm_up)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))

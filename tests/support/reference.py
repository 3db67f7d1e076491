"""FunASR's AutoModel as the reference, and FunASR directories made for it.

What AutoModel returns is words; `Reference.recognise` keeps the token ids and times it had just before.
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from safetensors.torch import load_file

from app.asr.pack import WEIGHTS, Pack

ROOT = Path(__file__).resolve().parents[2]


class Reference:
    """AutoModel on a directory, fp32; on the CPU if no other device is named."""

    def __init__(self, directory: Path, device: str = "cpu") -> None:
        from funasr import AutoModel

        with contextlib.redirect_stdout(io.StringIO()):
            self._model = AutoModel(
                model=str(directory),
                device=device,
                disable_update=True,
                disable_pbar=True,
                log_level="ERROR",
                ncpu=1,
            )
        self.tokens: list[str] = json.loads((directory / "tokens.json").read_text(encoding="utf-8"))
        self._ids = {token: index for index, token in enumerate(self.tokens)}

    @property
    def network(self) -> Any:
        """FunASR's own module."""
        return self._model.model

    def recognise(
        self, clips: Sequence[NDArray[np.float32]], hotwords: Sequence[str] | None
    ) -> list[tuple[list[int], NDArray[np.float64]]]:
        """One batch of clips -> for each its ids and its times (tokens, 2) in seconds ((0, 2) without time stamps)."""
        from funasr.utils import postprocess_utils

        seen: list[tuple[list[str], Any]] = []
        with contextlib.ExitStack() as stack:
            stack.enter_context(_watched(postprocess_utils, seen))
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            self._model.generate(
                input=list(clips) if len(clips) > 1 else clips[0],
                hotword=" ".join(hotwords) if hotwords else None,
                batch_size=len(clips),
                output_timestamp=True,
            )
        results = []
        for tokens, times in seen:
            stamps = np.array(times or np.zeros((0, 2)), dtype=np.float64).reshape(-1, 2) / 1000
            results.append(([self._ids[token] for token in tokens], stamps))
        return results


@contextlib.contextmanager
def _watched(utils: Any, seen: list[tuple[list[str], Any]]) -> Any:
    original = utils.sentence_postprocess

    def watch(tokens: list[str], times: Any = None) -> Any:
        seen.append((list(tokens), times))
        return original(tokens, times)

    utils.sentence_postprocess = watch
    try:
        yield
    finally:
        utils.sentence_postprocess = original


def random_directory(target: Path, *, arch: str, size: str = "tiny", seed: int = 0) -> Path:
    """A random checkpoint by the project's own script."""
    command = [sys.executable, "scripts/random_checkpoint.py", str(target), "--arch", arch, "--size", size]
    subprocess.run([*command, "--seed", str(seed)], check=True, capture_output=True, cwd=ROOT, timeout=600)
    return target


def directory_from_pack(pack_directory: Path, target: Path) -> Path:
    """A shipped fp32 or fp16 pack back as a FunASR directory, for the reference to run."""
    pack = Pack.open(pack_directory)
    shape, frontend = pack.manifest.architecture, pack.frontend
    target.mkdir(parents=True)
    weights = {name: tensor.float() for name, tensor in load_file(pack.path(WEIGHTS)).items()}
    torch.save(weights, target / "model.pt")
    assert shape.bias is not None

    def decoder(part: Any, **more: Any) -> dict[str, Any]:
        base = {
            "attention_heads": part.heads,
            "linear_units": part.units,
            "kernel_size": part.kernel,
            "sanm_shfit": 0,
        }
        return base | {"num_blocks": part.layers + part.plain_layers, "att_layer_num": part.layers} | more

    config = {
        "model": "SeacoParaformer",
        "model_conf": {
            "inner_dim": shape.size,
            "NO_BIAS": shape.no_bias_id,
            "predictor_bias": 1,
            "train_decoder": True,
        },
        "encoder": "SANMEncoder",
        "encoder_conf": {
            "output_size": shape.size,
            "attention_heads": shape.encoder_heads,
            "linear_units": shape.encoder_units,
            "num_blocks": shape.encoder_layers,
            "kernel_size": shape.encoder_kernel,
            "input_layer": "pe",
            "pos_enc_class": "SinusoidalPositionEncoder",
            "normalize_before": True,
            "sanm_shfit": 0,
            "selfattention_layer_type": "sanm",
        },
        "decoder": "ParaformerSANMDecoder",
        "decoder_conf": decoder(shape.decoder),
        "seaco_decoder": "ParaformerSANMDecoder",
        "seaco_decoder_conf": decoder(shape.bias, wo_input_layer=True, use_output_layer=False),
        "predictor": "CifPredictorV3",
        "predictor_conf": {
            "idim": shape.size,
            "threshold": 1.0,
            "l_order": 1,
            "r_order": 1,
            "tail_threshold": shape.predictor.tail_threshold,
            "smooth_factor2": shape.predictor.smooth_factor2,
            "noise_threshold2": shape.predictor.noise_threshold2,
            "upsample_times": shape.predictor.upsample_times,
            "use_cif1_cnn": shape.predictor.upsample_from_conv,
            "upsample_type": shape.predictor.upsample,
        },
        "frontend": "WavFrontend",
        "frontend_conf": {
            "fs": 16000,
            "window": frontend.window,
            "n_mels": frontend.n_mels,
            "frame_length": frontend.frame_length_ms,
            "frame_shift": frontend.frame_shift_ms,
            "lfr_m": frontend.lfr_m,
            "lfr_n": frontend.lfr_n,
            "dither": 0.0,
        },
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
    }
    (target / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    metas = {
        "init_param": "model.pt",
        "config": "config.yaml",
        "tokenizer_conf": {"token_list": "tokens.json", "seg_dict_file": "seg_dict"},
        "frontend_conf": {"cmvn_file": "am.mvn"},
    }
    (target / "configuration.json").write_text(json.dumps({"file_path_metas": metas}), encoding="utf-8")
    for name in ("tokens.json", "seg_dict"):
        (target / name).write_bytes(pack.path(name).read_bytes())
    rows = [
        f"<{tag}> {len(values)} {len(values)}\n<LearnRateCoef> 0 [ {' '.join(repr(float(v)) for v in values)} ]"
        for tag, values in (("AddShift", frontend.cmvn_shift), ("Rescale", frontend.cmvn_scale))
    ]
    (target / "am.mvn").write_text("<Nnet>\n" + "\n".join(rows) + "\n</Nnet>\n", encoding="utf-8")
    return target

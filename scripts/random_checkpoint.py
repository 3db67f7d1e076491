"""Make a FunASR model directory with random weights, from a seed.

Lives here: the shapes, the seeded weights, a plausible vocabulary, and the calibration that makes such a
network behave like a recogniser (about four tokens a second, different sounds give different tokens).
Does not live here: anything trained, and anything of the product. What it "recognises" means nothing;
it serves parity tests and benchmarks, where only shapes, sizes and arithmetic count.

    python scripts/random_checkpoint.py OUTPUT [--size full|thin|tiny] [--arch seaco|bicif|paraformer] [--seed N]

Needs torch and funasr. The same seed and the same torch release give the same weights.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

CLASSES = {"seaco": "SeacoParaformer", "bicif": "BiCifParaformer", "paraformer": "Paraformer"}
MELS, LFR_M, LFR_N = 80, 7, 6
SAMPLE_RATE = 16_000
TOKENS_PER_SECOND = 4.0
FRAME_SECONDS = LFR_N * 0.010
PROBE_SECONDS = 12
# Everyday words: enough to make `@@` pieces appear in a hot-word list.
WORDS = (
    "hello world model speech cloud docker linux python data server paper agent token video audio "
    "github nvidia google apple amazon openai tesla intel android windows chrome email wifi bluetooth"
).split()


@dataclass(frozen=True)
class Shape:
    """Sizes of one network; the defaults are those of the published SeACo-Paraformer (247.3 M parameters)."""

    width: int = 512
    heads: int = 4
    encoder_ffn: int = 2048
    encoder_blocks: int = 50
    decoder_ffn: int = 2048
    decoder_blocks: int = 16
    seaco_ffn: int = 1024
    vocabulary: int = 8404
    no_bias: int = 8377


SHAPES = {
    "full": Shape(),
    "thin": Shape(encoder_blocks=2, decoder_blocks=2, vocabulary=420, no_bias=393),  # full width, no depth
    "tiny": Shape(
        width=64,
        encoder_ffn=128,
        encoder_blocks=3,
        decoder_ffn=128,
        decoder_blocks=2,
        seaco_ffn=96,
        vocabulary=420,
        no_bias=393,
    ),
}


def make_tokens(count: int) -> list[str]:
    """Return `count` distinct tokens: specials, Chinese characters, letters, `@@` pieces, `<unk>` last."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    pairs = [first + second for first in letters for second in letters]
    latin = [*letters, *(f"{letter}@@" for letter in letters), *(f"{pair}@@" for pair in pairs), *pairs]
    characters = chinese_characters()
    room = count - 4
    share = min(len(characters), room * 4 // 5)
    chosen = characters[:share] + latin[: room - share]
    triples = (f"{letter}{pair}@@" for letter in letters for pair in pairs)
    while len(chosen) < room:
        chosen.append(next(triples))
    return ["<blank>", "<s>", "</s>", *chosen, "<unk>"]


def chinese_characters() -> list[str]:
    """The 6763 characters of GB 2312, the common ones first, as its rows give them."""
    found = []
    for row in range(0xB0, 0xF8):
        for cell in range(0xA1, 0xFF):
            try:
                found.append(bytes((row, cell)).decode("gb2312"))
            except UnicodeDecodeError:
                continue
    return found


def make_seg_dict(tokens: list[str]) -> dict[str, list[str]]:
    """Map characters and a few English words to their tokens, as FunASR's `seg_dict` does."""
    known = set(tokens)
    pieces = {token: [token] for token in tokens if "<" not in token and not token.endswith("@@")}
    for word in WORDS:
        split = [word[start : start + 2] for start in range(0, len(word), 2)]
        parts = [f"{part}@@" for part in split[:-1]] + [split[-1]]
        if known.issuperset(parts):
            pieces[word] = parts
    return pieces


def make_config(shape: Shape, arch: str) -> dict[str, Any]:
    """Return the content of `config.yaml`."""
    attention: dict[str, Any] = {"attention_heads": shape.heads, "sanm_shfit": 0}
    decoder = attention | {
        "linear_units": shape.decoder_ffn,
        "num_blocks": shape.decoder_blocks,
        "att_layer_num": shape.decoder_blocks,
        "kernel_size": 11,
    }
    encoder = attention | {
        "output_size": shape.width,
        "linear_units": shape.encoder_ffn,
        "num_blocks": shape.encoder_blocks,
        "input_layer": "pe",
        "pos_enc_class": "SinusoidalPositionEncoder",
        "normalize_before": True,
        "kernel_size": 11,
        "selfattention_layer_type": "sanm",
    }
    predictor: dict[str, Any] = {
        "idim": shape.width,
        "threshold": 1.0,
        "l_order": 1,
        "r_order": 1,
        "tail_threshold": 0.45,
    }
    model: dict[str, Any] = {
        "ctc_weight": 0.0,
        "predictor_weight": 1.0,
        "predictor_bias": 1,
        "sampling_ratio": 0.75,
    }
    config: dict[str, Any] = {
        "model": CLASSES[arch],
        "model_conf": model,
        "encoder": "SANMEncoder",
        "encoder_conf": encoder,
        "decoder": "ParaformerSANMDecoder",
        "decoder_conf": decoder,
        "predictor": "CifPredictorV2" if arch == "paraformer" else "CifPredictorV3",
        "predictor_conf": predictor,
        "frontend": "WavFrontend",
        "frontend_conf": {
            "fs": SAMPLE_RATE,
            "window": "hamming",
            "n_mels": MELS,
            "frame_length": 25,
            "frame_shift": 10,
            "lfr_m": LFR_M,
            "lfr_n": LFR_N,
            "dither": 0.0,
        },
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
    }
    if arch != "paraformer":
        predictor |= {
            "smooth_factor2": 0.25,
            "noise_threshold2": 0.01,
            "upsample_times": 3,
            "use_cif1_cnn": False,
            "upsample_type": "cnn_blstm",
        }
    if arch == "seaco":
        model |= {
            "inner_dim": shape.width,
            "bias_encoder_type": "lstm",
            "bias_encoder_bid": False,
            "NO_BIAS": shape.no_bias,
        }
        config["seaco_decoder"] = "ParaformerSANMDecoder"
        config["seaco_decoder_conf"] = attention | {
            "linear_units": shape.seaco_ffn,
            "num_blocks": 4,
            "kernel_size": 21,
            "use_output_layer": False,
            "wo_input_layer": True,
        }
    return config


def cmvn_text() -> str:
    """Return `am.mvn`: a shift and a scale per LFR feature, close to what real speech gives."""
    mel = np.linspace(0.0, 1.0, MELS)
    shift = np.tile(-(9.0 + 5.0 * np.sqrt(mel)), LFR_M)
    scale = np.tile(0.17 - 0.03 * mel, LFR_M)
    size = MELS * LFR_M

    def row(values: NDArray[np.float64]) -> str:
        return "<LearnRateCoef> 0 [ " + " ".join(f"{value:.6f}" for value in values) + " ]"

    lines = ["<Nnet>", f"<Splice> {size} {size}", "[ 0 ]", f"<AddShift> {size} {size}", row(shift)]
    lines += [f"<Rescale> {size} {size}", row(scale), "</Nnet>"]
    return "\n".join(lines) + "\n"


def probe_audio(seed: int, seconds: int = PROBE_SECONDS) -> NDArray[np.float32]:
    """Return syllable-like sound, (seconds * 16000,) in [-1, 1]: voiced tones with moving formants, pauses."""
    rng = np.random.default_rng(seed)
    pieces: list[NDArray[np.float64]] = []
    total = seconds * SAMPLE_RATE
    while sum(map(len, pieces)) < total:
        length = int(rng.uniform(0.12, 0.32) * SAMPLE_RATE)
        if rng.random() < 0.1:
            pieces.append(rng.normal(0.0, 1e-3, length))
            continue
        time = np.arange(length) / SAMPLE_RATE
        pitch = rng.uniform(90, 260) * (1 + rng.uniform(-0.3, 0.3) * time / time[-1])
        formants = np.sort(rng.uniform(250, 3800, 3))
        sound = rng.normal(0.0, 0.02, length)
        for harmonic in range(1, 30):
            gain = sum(math.exp(-(((harmonic * 170 - formant) / 220) ** 2)) for formant in formants)
            sound += (gain + 0.02) * np.sin(2 * np.pi * harmonic * np.cumsum(pitch) / SAMPLE_RATE)
        pieces.append(sound * np.hanning(length) * rng.uniform(0.02, 0.12))
    return np.clip(np.concatenate(pieces)[:total], -1.0, 1.0).astype(np.float32)


def fill_weights(model: torch.nn.Module, seed: int) -> None:
    """Overwrite every parameter from the seed, so that activations neither vanish nor explode with depth."""
    import torch

    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in sorted(model.named_parameters()):
            mean, deviation = _distribution(name, tuple(tensor.shape))
            tensor.normal_(mean, deviation, generator=random)


def _distribution(name: str, size: tuple[int, ...]) -> tuple[float, float]:
    """Mean and standard deviation for one parameter, from its name and shape."""
    if "norm" in name:
        return (1.0 if name.endswith("weight") else 0.0), 0.1
    if "embed" in name:
        return 0.0, 1.0
    if "bias_encoder" in name or "blstm" in name:
        return 0.0, 1.0 / math.sqrt(size[-1]) if len(size) > 1 else 0.1
    if len(size) == 1:
        return 0.0, 0.1
    fan_in = math.prod(size[1:])
    gain = 1.0
    if "fsmn_block" in name:
        gain = 0.7
    elif "linear_q" in name or "linear_k_v" in name:
        gain = 1.3
    elif name.endswith(("linear_out.weight", "w_2.weight")):
        gain = 0.6
    elif "output_layer" in name:
        gain = 3.0
    return 0.0, gain / math.sqrt(fan_in)


def calibrate(model: Any, features: torch.Tensor, no_bias: int | None) -> float:
    """Set the few biases that decide how often tokens fire and how often hot words win.

    Args:
        model: FunASR model in eval mode.
        features: (1, frames, 560) of a probe recording.
        no_bias: id that the hot-word head gives for "keep what the decoder said"; None without that head.

    Returns:
        the share of probe frames on which a token fires.
    """
    import torch

    target = TOKENS_PER_SECOND * FRAME_SECONDS
    with torch.no_grad():
        lengths = torch.tensor([features.shape[1]])
        hidden = model.encode(features, lengths)[0]
        predictor = model.predictor
        inner = torch.relu(predictor.cif_conv1d(predictor.pad(hidden.transpose(1, 2)))).transpose(1, 2)
        logits = predictor.cif_output(inner)
        # Weights that vary the firing rate from sound to sound, and a bias that sets its mean.
        predictor.cif_output.weight.mul_(0.4 / logits.std())
        predictor.cif_output.bias.zero_()
        logits = predictor.cif_output(inner)
        predictor.cif_output.bias.fill_(_bias_for_mean(logits, target))
        embeds, count = model.calc_predictor(hidden, lengths)[:2]
        _centre_output(model, hidden, lengths, embeds, count.round().long(), no_bias)
    return float(count.item()) / features.shape[1]


def _bias_for_mean(logits: torch.Tensor, target: float) -> float:
    """Find b, to three decimals, so that the mean of sigmoid(logits + b) is `target`."""
    low, high = -20.0, 20.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        if float((logits + middle).sigmoid().mean()) < target:
            low = middle
        else:
            high = middle
    return round((low + high) / 2, 3)


def _centre_output(
    model: Any, hidden: Any, lengths: Any, embeds: Any, count: Any, no_bias: int | None
) -> None:
    """Take the average out of the output heads, else one token would win everywhere."""
    import torch

    _, state, _ = model.decoder(hidden, lengths, embeds, count, return_hidden=True, return_both=True)
    head = model.decoder.output_layer
    head.bias.copy_(-(head.weight @ state[0].mean(0)))
    if no_bias is None:
        return
    words = torch.randint(3, no_bias, (8, 4), generator=torch.Generator().manual_seed(1))
    context = model._hotword_representation(words, torch.full((8,), 4))[None]
    sizes = torch.tensor([8])
    merged = sum(model.seaco_decoder(context, sizes, query, count)[0] for query in (embeds, state))
    head = model.hotword_output_layer
    head.bias.copy_(-(head.weight @ merged[0].mean(0)))
    scores = head(merged)[0]
    # Lift "no bias" so that it wins about three times in four, as real hot-word lists mostly do not match.
    margin = scores.max(-1).values - scores[:, no_bias]
    head.bias[no_bias] += round(float(margin.quantile(0.75)), 3)


def build(shape: Shape, arch: str, seed: int, directory: Path) -> Any:
    """Instantiate FunASR's own class, fill it from the seed, calibrate it on a probe; return the model."""
    import torch
    from funasr.register import tables
    from funasr.utils.load_utils import extract_fbank

    config = make_config(shape, arch)
    frontend = tables.frontend_classes.get(config["frontend"])(
        **config["frontend_conf"], cmvn_file=str(directory / "am.mvn")
    )
    components = {
        key: value for key, value in config.items() if not key.startswith(("frontend", "tokenizer"))
    }
    options = components.pop("model_conf") | components
    model_class = tables.model_classes.get(options.pop("model"))
    model = model_class(**options, input_size=MELS * LFR_M, vocab_size=shape.vocabulary).eval()
    fill_weights(model, seed)
    sound = torch.from_numpy(probe_audio(seed))
    features, _ = extract_fbank([sound], data_type="sound", frontend=frontend)
    rate = calibrate(model, features, shape.no_bias if arch == "seaco" else None)
    millions = sum(tensor.numel() for tensor in model.parameters()) / 1e6
    print(
        f"{CLASSES[arch]}: {millions:.1f} M parameters, {rate / FRAME_SECONDS:.1f} tokens a second on the probe"
    )
    return model


def write_directory(shape: Shape, arch: str, seed: int, directory: Path) -> None:
    """Write the whole model directory; `model.pt` appears last and at once."""
    import torch
    import yaml

    directory.mkdir(parents=True, exist_ok=True)
    tokens = make_tokens(shape.vocabulary)
    seg_dict = "".join(f"{key} {' '.join(parts)}\n" for key, parts in make_seg_dict(tokens).items())
    metas = {
        "init_param": "model.pt",
        "config": "config.yaml",
        "tokenizer_conf": {"token_list": "tokens.json", "seg_dict_file": "seg_dict"},
        "frontend_conf": {"cmvn_file": "am.mvn"},
    }
    hub = {"framework": "pytorch", "task": "auto-speech-recognition", "model": {"type": "funasr"}}
    texts = {
        "tokens.json": json.dumps(tokens, ensure_ascii=False),
        "seg_dict": seg_dict,
        "am.mvn": cmvn_text(),
        "config.yaml": yaml.safe_dump(make_config(shape, arch), sort_keys=False),
        "configuration.json": json.dumps(hub | {"file_path_metas": metas}, indent=1),
    }
    for name, text in texts.items():
        (directory / name).write_text(text, encoding="utf-8")
    model = build(shape, arch, seed, directory)
    partial = directory / "model.pt.part"
    torch.save(model.state_dict(), partial)
    partial.replace(directory / "model.pt")


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Make a FunASR model directory with random weights.")
    parser.add_argument("output", type=Path, help="directory to write; made if missing")
    parser.add_argument("--size", choices=sorted(SHAPES), default="full")
    parser.add_argument("--arch", choices=sorted(CLASSES), default="seaco")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    if (options.output / "model.pt").exists():
        print(
            f"{options.output} already holds a model. Give another directory, or remove it.", file=sys.stderr
        )
        return 1
    write_directory(SHAPES[options.size], options.arch, options.seed, options.output)
    print(f"wrote {options.output} ({options.size}, {options.arch}, seed {options.seed})")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Make a FunASR directory of a CT-Transformer punctuation model with random weights, from a seed.

Lives here: the shapes, a vocabulary, and the calibration that makes such a network put marks about as often as a writer
does. Nothing is trained and the marks mean nothing; it serves parity tests and benchmarks. Speech models:
random_checkpoint.py.

    python -m scripts.random_punctuation OUTPUT [--size full|tiny] [--seed N]

Needs torch and funasr. The same seed and the same torch release give the same weights.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import string
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scripts.random_checkpoint import WORDS, chinese_characters, fill_weights

if TYPE_CHECKING:
    import torch

MARKS = ("<unk>", "_", "，", "。", "？", "、")
# How often each of them should win; the first is never learnt, as it marks padding.
SHARES = (0.0, 0.82, 0.09, 0.05, 0.02, 0.02)
_PROBE = (40, 50)  # sentences, and tokens in each


@dataclass(frozen=True)
class Shape:
    """Sizes of one network; the defaults are those of the published ct-punc-c (73.0 M parameters)."""

    vocabulary: int = 272_727
    width: int = 256
    heads: int = 8
    units: int = 1024
    blocks: int = 4


SHAPES = {"full": Shape(), "tiny": Shape(vocabulary=7500, width=32, heads=2, units=48, blocks=2)}


def make_tokens(count: int) -> list[str]:
    """`count` distinct tokens: Chinese characters, digits, words and strings of letters, `<unk>` last."""
    letters = (
        "".join(found)
        for length in (1, 2, 3, 4)
        for found in itertools.product(string.ascii_lowercase, repeat=length)
    )
    listed = itertools.chain(chinese_characters(), string.digits, WORDS, letters)
    distinct = dict.fromkeys(itertools.islice(listed, count + len(WORDS)))
    return ["<blank>", "<s>", "</s>", *itertools.islice(distinct, count - 4), "<unk>"]


def make_config(shape: Shape) -> dict[str, Any]:
    """The content of `config.yaml`."""
    return {
        "model": "CTTransformer",
        "model_conf": {
            "ignore_id": 0,
            "embed_unit": shape.width,
            "att_unit": shape.width,
            "dropout_rate": 0.1,
            "punc_list": list(MARKS),
            "punc_weight": [1.0] * len(MARKS),
            "sentence_end_id": 3,
        },
        "encoder": "SANMEncoder",
        "encoder_conf": {
            "input_size": shape.width,
            "output_size": shape.width,
            "attention_heads": shape.heads,
            "linear_units": shape.units,
            "num_blocks": shape.blocks,
            "dropout_rate": 0.1,
            "positional_dropout_rate": 0.1,
            "attention_dropout_rate": 0.0,
            "input_layer": "pe",
            "pos_enc_class": "SinusoidalPositionEncoder",
            "normalize_before": True,
            "kernel_size": 11,
            "sanm_shfit": 0,
            "selfattention_layer_type": "sanm",
            "padding_idx": 0,
        },
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"unk_symbol": "<unk>"},
    }


def build(shape: Shape, seed: int) -> Any:
    """FunASR's own class, filled from the seed and calibrated."""
    import torch

    with contextlib.redirect_stdout(io.StringIO()):
        from funasr.register import tables

        config = make_config(shape)
        options = {key: value for key, value in config.items() if not key.startswith("tokenizer")}
        options |= options.pop("model_conf")
        model = tables.model_classes.get(options.pop("model"))(**options, vocab_size=shape.vocabulary).eval()
    fill_weights(model, seed)
    with torch.no_grad():
        # An embedding is added to a position of size one after it is multiplied by sixteen.
        model.embed.weight.mul_(0.2)
        calibrate(model, torch.Generator().manual_seed(seed))
    return model


def calibrate(model: Any, random: torch.Generator) -> None:
    """Set the head so that each mark wins as often as SHARES says, on a probe of random tokens."""
    import torch

    ids = torch.randint(3, model.embed.weight.shape[0] - 1, _PROBE, generator=random)
    hidden = model.encoder(model.embed(ids), torch.full((len(ids),), ids.shape[1]))[0]
    head = model.decoder
    head.bias.zero_()
    scores = head(hidden).reshape(-1, len(MARKS))
    head.weight.div_(scores.std(dim=0, keepdim=True).T)
    scores = head(hidden).reshape(-1, len(MARKS))
    bias = -scores.mean(dim=0)
    wanted = torch.tensor(SHARES)
    for _ in range(400):
        won = torch.bincount((scores + bias).argmax(dim=1), minlength=len(MARKS)) / len(scores)
        bias += 0.5 * (wanted - won)
    bias[0] = -100.0
    head.bias.copy_(bias)


def sentences(tokens: list[str], count: int, seed: int) -> list[str]:
    """Random Chinese characters with a Latin word or a number now and then: `count` tokens, ten a piece."""
    random = np.random.default_rng(seed)
    characters = [token for token in tokens if not token.isascii()]
    latin = [token for token in tokens if token.isascii() and token.isalpha()]
    rare = [*latin[:40], "12", "qzxqz", "龘"]
    found = []
    for _ in range(0, count, 10):
        piece = "".join(characters[place] for place in random.integers(len(characters), size=8))
        found.append(f"{piece} {latin[random.integers(len(latin))]} {rare[random.integers(len(rare))]} ")
    return found


def write_directory(shape: Shape, seed: int, directory: Path) -> None:
    """Write the whole model directory; `model.pt` appears last and at once."""
    import torch
    import yaml

    directory.mkdir(parents=True, exist_ok=True)
    metas = {
        "init_param": "model.pt",
        "config": "config.yaml",
        "tokenizer_conf": {"token_list": "tokens.json"},
    }
    hub = {"framework": "pytorch", "task": "punctuation", "model": {"type": "funasr"}}
    texts = {
        "tokens.json": json.dumps(make_tokens(shape.vocabulary), ensure_ascii=False),
        "config.yaml": yaml.safe_dump(make_config(shape), sort_keys=False, allow_unicode=True),
        "configuration.json": json.dumps(hub | {"file_path_metas": metas}, indent=1),
    }
    for name, text in texts.items():
        (directory / name).write_text(text, encoding="utf-8")
    model = build(shape, seed)
    partial = directory / "model.pt.part"
    torch.save(model.state_dict(), partial)
    partial.replace(directory / "model.pt")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Make a punctuation model directory with random weights.")
    parser.add_argument("output", type=Path, help="directory to write; made if missing")
    parser.add_argument("--size", choices=sorted(SHAPES), default="full")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if (options.output / "model.pt").exists():
        print(
            f"{options.output} already holds a model. Give another directory, or remove it.", file=sys.stderr
        )
        return 1
    write_directory(SHAPES[options.size], options.seed, options.output)
    print(f"wrote {options.output} ({options.size}, seed {options.seed})")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

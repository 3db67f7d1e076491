"""A FunASR model directory, read without FunASR: configuration, vocabulary, normalisation.

Here: the small text files and where the checkpoint lies. The checkpoint itself is opened by packing.py.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from app.asr.architecture import (
    PUNCTUATION_KIND,
    Architecture,
    PunctuationShape,
    from_funasr_config,
    punctuation_from_config,
)
from app.asr.audio import SAMPLE_RATE, FrontendConfig
from app.asr.errors import SourceError

_FIX = "Fetch the model directory again; it needs configuration.json, config.yaml, model.pt, tokens.json and am.mvn."


@dataclass(frozen=True)
class FunasrSource:
    """A FunASR directory whose small files have been read."""

    directory: Path
    architecture: Architecture
    frontend: FrontendConfig
    checkpoint: Path
    tokens: tuple[str, ...]
    seg_dict: Path | None


@dataclass(frozen=True)
class PunctuationSource:
    """A FunASR directory of a punctuation model; `unknown` is the token that stands for all others."""

    directory: Path
    shape: PunctuationShape
    checkpoint: Path
    tokens: tuple[str, ...]
    unknown: str


def is_punctuation_source(directory: Path) -> bool:
    """Whether the directory holds a CT-Transformer. Raises SourceError when it cannot be told."""
    config = _yaml(directory / _file_paths(directory)["config"])
    return config.get("model") == PUNCTUATION_KIND


def read_punctuation_source(directory: Path) -> PunctuationSource:
    """Reads everything but the weights of a punctuation model.

    Raises:
        SourceError: a file is missing or unreadable, or describes a model this network does not implement.
    """
    paths = _file_paths(directory)
    config = _yaml(directory / paths["config"])
    if (directory / "jieba_usr_dict").exists():
        config["jieba_usr_dict"] = "jieba_usr_dict"  # named in configuration.json only
    tokens = _tokens(directory / paths["tokens"])
    unknown = str((config.get("tokenizer_conf") or {}).get("unk_symbol", "<unk>"))
    if unknown not in tokens or len(set(tokens)) != len(tokens):
        raise SourceError(
            f"{directory / paths['tokens']} has a token twice, or lacks the one for unknown words ({unknown})",
            fix=_FIX,
        )
    return PunctuationSource(
        directory=directory,
        shape=punctuation_from_config(config, vocabulary_size=len(tokens)),
        checkpoint=_existing(directory / paths["checkpoint"]),
        tokens=tokens,
        unknown=unknown,
    )


def read_source(directory: Path) -> FunasrSource:
    """Reads everything but the weights.

    Raises:
        SourceError: a file is missing or unreadable, or describes a model this network does not implement.
    """
    paths = _file_paths(directory)
    config = _yaml(directory / paths["config"])
    tokens = _tokens(directory / paths["tokens"])
    shift, scale = read_cmvn(directory / paths["cmvn"])
    seg_dict = directory / paths["seg_dict"]
    return FunasrSource(
        directory=directory,
        architecture=from_funasr_config(config, vocabulary_size=len(tokens)),
        frontend=_frontend(config, shift, scale),
        checkpoint=_existing(directory / paths["checkpoint"]),
        tokens=tokens,
        seg_dict=seg_dict if seg_dict.is_file() else None,
    )


def _file_paths(directory: Path) -> dict[str, str]:
    """The file names that configuration.json gives, FunASR's usual ones where it is silent."""
    data = _json(directory / "configuration.json")
    metas = data.get("file_path_metas") if isinstance(data, dict) else None
    metas = metas if isinstance(metas, dict) else {}
    tokenizer, frontend = metas.get("tokenizer_conf") or {}, metas.get("frontend_conf") or {}
    names = {
        "config": metas.get("config", "config.yaml"),
        "checkpoint": metas.get("init_param", "model.pt"),
        "tokens": tokenizer.get("token_list", "tokens.json"),
        "seg_dict": tokenizer.get("seg_dict_file", "seg_dict"),
        "cmvn": frontend.get("cmvn_file", "am.mvn"),
    }
    for name in names.values():
        if not isinstance(name, str) or Path(name).name != name:
            raise SourceError(f"configuration.json names {name!r}, which is not a plain file name", fix=_FIX)
    return names


def read_cmvn(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Kaldi-style am.mvn -> what to add and what to multiply by, each (width,). Raises SourceError."""
    vectors: dict[str, NDArray[np.float32]] = {}
    section = ""
    for line in _text(path).splitlines():
        words = line.split()
        if words and words[0] in ("<AddShift>", "<Rescale>"):
            section = words[0]
        elif words and words[0] == "<LearnRateCoef>" and section:
            try:
                vectors[section] = np.array(words[3:-1], dtype=np.float32)
            except ValueError as error:
                raise SourceError(f"{path} has a value that is not a number ({error})", fix=_FIX) from error
    if set(vectors) != {"<AddShift>", "<Rescale>"}:
        raise SourceError(f"{path} lacks its <AddShift> or <Rescale> values", fix=_FIX)
    return vectors["<AddShift>"], vectors["<Rescale>"]


def _frontend(
    config: dict[str, Any], shift: NDArray[np.float32], scale: NDArray[np.float32]
) -> FrontendConfig:
    conf = dict(config.get("frontend_conf") or {})
    rate = int(conf.get("fs", SAMPLE_RATE))
    if config.get("frontend", "WavFrontend") != "WavFrontend" or rate != SAMPLE_RATE:
        raise SourceError(
            f"the model hears through {config.get('frontend')} at {rate} Hz",
            fix="Use a 16 kHz model with FunASR's WavFrontend.",
        )
    return FrontendConfig(
        cmvn_shift=shift,
        cmvn_scale=scale,
        n_mels=int(conf.get("n_mels", 80)),
        frame_length_ms=int(conf.get("frame_length", 25)),
        frame_shift_ms=int(conf.get("frame_shift", 10)),
        window=str(conf.get("window", "hamming")),
        lfr_m=int(conf.get("lfr_m", 7)),
        lfr_n=int(conf.get("lfr_n", 6)),
    )


def _tokens(path: Path) -> tuple[str, ...]:
    tokens = _json(path)
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise SourceError(f"{path} is not a list of tokens", fix=_FIX)
    return tuple(tokens)


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise SourceError(f"{path} is missing", fix=_FIX)
    return path


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise SourceError(f"{path} is missing", fix=_FIX) from error
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} cannot be read ({error})", fix=_FIX) from error


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except ValueError as error:
        raise SourceError(f"{path} is not JSON ({error})", fix=_FIX) from error


def _yaml(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(_text(path))
    except yaml.YAMLError as error:
        raise SourceError(f"{path} is not YAML ({error})", fix=_FIX) from error
    if not isinstance(data, dict):
        raise SourceError(f"{path} holds no settings", fix=_FIX)
    return data

"""The shapes of our networks as plain numbers, and how FunASR's config.yaml spells them.

Here: one frozen dataclass a family (Paraformer, punctuation) that the network, the packs and the memory planner share,
and its readers.
Not here: tensors (model.py), files and checksums (pack.py, packing.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol

from app.asr.errors import SourceError

KINDS = {"SeacoParaformer": "seaco", "BiCifParaformer": "bicif", "Paraformer": "paraformer"}
PUNCTUATION_KIND = "CTTransformer"
PREDICTORS = {"CifPredictorV2", "CifPredictorV3"}
UPSAMPLERS = {"cnn", "cnn_blstm"}

# What FunASR assumes where a config is silent (funasr/models/{sanm/encoder,paraformer/decoder}.py).
ENCODER_DEFAULTS: dict[str, Any] = {
    "output_size": 256,
    "attention_heads": 4,
    "linear_units": 2048,
    "num_blocks": 6,
    "kernel_size": 11,
}
_DECODER_DEFAULTS: dict[str, Any] = {
    "attention_heads": 4,
    "linear_units": 2048,
    "num_blocks": 6,
    "att_layer_num": 6,
    "kernel_size": 21,
}


class EncoderShape(Protocol):
    """What a SAN-M encoder must know of the network it is part of."""

    @property
    def feature_size(self) -> int: ...

    @property
    def size(self) -> int: ...

    @property
    def encoder_layers(self) -> int: ...

    @property
    def encoder_heads(self) -> int: ...

    @property
    def encoder_units(self) -> int: ...

    @property
    def encoder_kernel(self) -> int: ...


@dataclass(frozen=True)
class DecoderShape:
    """Layers of one SAN-M decoder: `layers` attend to a memory, `plain_layers` (after them) do not."""

    layers: int
    plain_layers: int
    heads: int
    units: int
    kernel: int


@dataclass(frozen=True)
class PredictorShape:
    """The CIF predictor. `upsample` is "" when it has no time-stamp branch (CifPredictorV2)."""

    left_order: int
    right_order: int
    smooth_factor: float
    noise_threshold: float
    tail_threshold: float
    upsample: str = ""
    upsample_times: int = 3
    upsample_from_conv: bool = False
    smooth_factor2: float = 1.0
    noise_threshold2: float = 0.0


@dataclass(frozen=True)
class Architecture:
    """All numbers needed to build the network; `bias` is None without a hot-word branch."""

    kind: str
    vocabulary_size: int
    feature_size: int
    size: int
    encoder_layers: int
    encoder_heads: int
    encoder_units: int
    encoder_kernel: int
    decoder: DecoderShape
    predictor: PredictorShape
    bias: DecoderShape | None = None
    no_bias_id: int = -1

    @property
    def has_hotwords(self) -> bool:
        """True when the network has the SeACo hot-word branch."""
        return self.bias is not None

    def to_json(self) -> dict[str, Any]:
        """As nested plain dicts, for a manifest."""
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Architecture:
        """The inverse of `to_json`. Raises KeyError, TypeError or ValueError on a foreign shape."""
        values = dict(data)
        unknown = set(values) - {field.name for field in fields(Architecture)}
        if unknown:
            raise ValueError(f"unknown architecture fields {sorted(unknown)}")
        values["decoder"] = DecoderShape(**values["decoder"])
        values["predictor"] = PredictorShape(**values["predictor"])
        if values.get("bias") is not None:
            values["bias"] = DecoderShape(**values["bias"])
        return Architecture(**values)


@dataclass(frozen=True)
class PunctuationShape:
    """A CT-Transformer: a table of token embeddings, a SAN-M encoder and one linear layer.

    `marks` are what may stand behind a token ("" for nothing), `sentence_end` is the full stop's place among them.
    """

    vocabulary_size: int
    feature_size: int
    size: int
    encoder_layers: int
    encoder_heads: int
    encoder_units: int
    encoder_kernel: int
    marks: tuple[str, ...]
    sentence_end: int


def punctuation_from_config(config: Mapping[str, Any], *, vocabulary_size: int) -> PunctuationShape:
    """Reads the config.yaml of a CTTransformer. Raises SourceError when it is of a form not implemented here."""
    _require(config.get("model") == PUNCTUATION_KIND, "model", config.get("model"), PUNCTUATION_KIND)
    encoder = ENCODER_DEFAULTS | dict(config.get("encoder_conf") or {})
    check_encoder(config, encoder)
    conf = dict(config.get("model_conf") or {})
    jieba = config.get("jieba_usr_dict") or conf.get("jieba_usr_dict")
    _require(
        not jieba, "jieba_usr_dict", jieba, "models that take Chinese by the character, such as ct-punc-c,"
    )
    width, size = int(conf.get("embed_unit", 128)), int(encoder["output_size"])
    attention = conf.get("att_unit", 256)
    _require(attention == size, "model_conf.att_unit", attention, size)
    _require(encoder.get("input_size") == width, "encoder_conf.input_size", encoder.get("input_size"), width)
    listed = conf.get("punc_list") or ()
    _require(len(listed) > 1, "model_conf.punc_list", listed, "lists of marks")
    end = int(conf.get("sentence_end_id", 3))
    _require(0 <= end < len(listed), "model_conf.sentence_end_id", end, f"0 to {len(listed) - 1}")
    return PunctuationShape(
        vocabulary_size=vocabulary_size,
        feature_size=width,
        size=size,
        encoder_layers=int(encoder["num_blocks"]),
        encoder_heads=int(encoder["attention_heads"]),
        encoder_units=int(encoder["linear_units"]),
        encoder_kernel=int(encoder["kernel_size"]),
        marks=tuple("" if len(str(mark)) > 1 or mark == "_" else str(mark) for mark in listed),
        sentence_end=end,
    )


def from_funasr_config(config: Mapping[str, Any], *, vocabulary_size: int) -> Architecture:
    """Reads FunASR's config.yaml (already parsed).

    Raises:
        SourceError: the model is of a family this network does not implement; the reason is named.
    """
    model = str(config.get("model"))
    if model not in KINDS:
        raise SourceError(
            f"config.yaml describes a model of class {model!r}",
            fix=f"Our own network runs {', '.join(sorted(KINDS))}; use one of these models.",
        )
    kind = KINDS[model]
    encoder = ENCODER_DEFAULTS | dict(config.get("encoder_conf") or {})
    check_encoder(config, encoder)
    frontend = dict(config.get("frontend_conf") or {})
    size = int(encoder["output_size"])
    bias, no_bias = None, -1
    if kind == "seaco":
        model_conf = dict(config.get("model_conf") or {})
        bias = _decoder_shape(config, "seaco_decoder")
        no_bias = int(model_conf.get("NO_BIAS", 8377))
        inner = model_conf.get("inner_dim", 256)
        _require(inner == size, "model_conf.inner_dim", inner, size)
        encoder_type = model_conf.get("bias_encoder_type", "lstm")
        _require(encoder_type == "lstm", "model_conf.bias_encoder_type", encoder_type, "lstm")
        _require(not model_conf.get("bias_encoder_bid", False), "model_conf.bias_encoder_bid", True, False)
    return Architecture(
        kind=kind,
        vocabulary_size=vocabulary_size,
        feature_size=int(frontend.get("n_mels", 80)) * int(frontend.get("lfr_m", 7)),
        size=size,
        encoder_layers=int(encoder["num_blocks"]),
        encoder_heads=int(encoder["attention_heads"]),
        encoder_units=int(encoder["linear_units"]),
        encoder_kernel=int(encoder["kernel_size"]),
        decoder=_decoder_shape(config, "decoder"),
        predictor=_predictor_shape(config),
        bias=bias,
        no_bias_id=no_bias,
    )


def check_encoder(config: Mapping[str, Any], encoder: Mapping[str, Any]) -> None:
    """Raises SourceError when a config's encoder is not the one that is implemented here."""
    _require(config.get("encoder") == "SANMEncoder", "encoder", config.get("encoder"), "SANMEncoder")
    _require(encoder.get("input_layer") == "pe", "encoder_conf.input_layer", encoder.get("input_layer"), "pe")
    _check_layers("encoder_conf", encoder)


def _decoder_shape(config: Mapping[str, Any], name: str) -> DecoderShape:
    _require(config.get(name) == "ParaformerSANMDecoder", name, config.get(name), "ParaformerSANMDecoder")
    conf = _DECODER_DEFAULTS | dict(config.get(f"{name}_conf") or {})
    _check_layers(f"{name}_conf", conf)
    attending = int(conf["att_layer_num"])
    return DecoderShape(
        layers=attending,
        plain_layers=max(0, int(conf["num_blocks"]) - attending),
        heads=int(conf["attention_heads"]),
        units=int(conf["linear_units"]),
        kernel=int(conf["kernel_size"]),
    )


def _predictor_shape(config: Mapping[str, Any]) -> PredictorShape:
    name = str(config.get("predictor"))
    if name not in PREDICTORS:
        raise _unsupported("predictor", name, " or ".join(sorted(PREDICTORS)))
    conf = dict(config.get("predictor_conf") or {})
    _require(float(conf.get("threshold", 1.0)) == 1.0, "predictor_conf.threshold", conf.get("threshold"), 1.0)
    upsample = ""
    if name == "CifPredictorV3":
        upsample = str(conf.get("upsample_type", "cnn"))
        if upsample not in UPSAMPLERS:
            raise _unsupported("predictor_conf.upsample_type", upsample, " or ".join(sorted(UPSAMPLERS)))
    return PredictorShape(
        left_order=int(conf.get("l_order", 1)),
        right_order=int(conf.get("r_order", 1)),
        smooth_factor=float(conf.get("smooth_factor", 1.0)),
        noise_threshold=float(conf.get("noise_threshold", 0.0)),
        tail_threshold=float(conf.get("tail_threshold", 0.0)),
        upsample=upsample,
        upsample_times=int(conf.get("upsample_times", 5)),
        upsample_from_conv=bool(conf.get("use_cif1_cnn", True)),
        smooth_factor2=float(conf.get("smooth_factor2", 1.0)),
        noise_threshold2=float(conf.get("noise_threshold2", 0.0)),
    )


def _check_layers(where: str, conf: Mapping[str, Any]) -> None:
    for key, default in (("normalize_before", True), ("concat_after", False), ("sanm_shfit", 0)):
        value = conf.get(key, default)
        _require((value or 0) == (default or 0), f"{where}.{key}", value, default)


def _require(holds: bool, key: str, found: object, needed: object) -> None:
    if not holds:
        raise _unsupported(key, found, needed)


def _unsupported(key: str, found: object, needed: object) -> SourceError:
    return SourceError(
        f"config.yaml has {key} = {found!r}, and our network implements {needed} only",
        fix="Use a Paraformer, BiCifParaformer, SeacoParaformer or CTTransformer with the usual SAN-M layers.",
    )

"""Tiny random checkpoints of the models that FunASR runs, as their model directories or files lie on a disk.

Real FunASR (and Whisper) classes with few layers, filled from a seed: what they "recognise" means nothing, but every
line of their code runs. The Paraformer family is made by scripts/random_checkpoint.py.
"""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import torch
import yaml

from scripts.random_checkpoint import cmvn_text, make_tokens, probe_audio

WIDTH = 32
FRONTEND: dict[str, Any] = {
    "fs": 16000,
    "window": "hamming",
    "n_mels": 80,
    "frame_length": 25,
    "frame_shift": 10,
    "lfr_m": 7,
    "lfr_n": 6,
}
# What SenseVoice says before its text: language, feeling, sound, whether numbers are written as digits.
TAGS = ("<|zh|>", "<|en|>", "<|NEUTRAL|>", "<|HAPPY|>", "<|Speech|>", "<|BGM|>", "<|withitn|>", "<|woitn|>")


def sensevoice(directory: Path, seed: int = 0, *, reads_back: bool = True) -> Path:
    """SenseVoiceSmall: an encoder of two blocks, and a sentencepiece model trained on a few lines.

    Args:
        reads_back: whether a piece of text alone becomes that piece again, without which FunASR's times are nonsense.
    """
    directory.mkdir(parents=True)
    size = _train_pieces(directory, reads_back)
    encoder = _encoder() | {"num_blocks": 2, "tp_blocks": 1, "input_layer": "pe", "sanm_shfit": 0}
    config = {
        "model": "SenseVoiceSmall",
        "model_conf": {"length_normalized_loss": True, "sos": 1, "eos": 2, "ignore_id": -1},
        "encoder": "SenseVoiceEncoderSmall",
        "encoder_conf": encoder,
        "frontend": "WavFrontend",
        "frontend_conf": FRONTEND,
        "tokenizer": "SentencepiecesTokenizer",
        "tokenizer_conf": {"bpemodel": None, "unk_symbol": "<unk>", "split_with_space": True},
    }
    metas = {"tokenizer_conf": {"bpemodel": "tiny.bpe.model"}}
    _write(directory, config, metas, vocabulary=size, seed=seed)
    _say_tags_first(directory, config, size)
    return directory


def uniasr(directory: Path, seed: int = 0) -> Path:
    """UniASR: both of its encoders and decoders with two blocks."""
    directory.mkdir(parents=True)
    tokens = make_tokens(300)
    (directory / "tokens.json").write_text(json.dumps(tokens, ensure_ascii=False), encoding="utf-8")
    (directory / "seg_dict").write_text("hello he@@ llo\n", encoding="utf-8")
    encoder = _encoder() | {
        "num_blocks": 2,
        "input_layer": "pe",
        "normalize_before": True,
        "selfattention_layer_type": "sanm",
        "pad_left": [0, 0],
        "encoder_att_look_back_factor": [0, 0],
        "decoder_att_look_back_factor": [0, 0],
    }
    decoder = {
        "attention_dim": WIDTH,
        "attention_heads": 2,
        "linear_units": 48,
        "num_blocks": 2,
        "att_layer_num": 1,
    }
    predictor = {"idim": WIDTH, "threshold": 1.0, "l_order": 1, "r_order": 1}
    config = {
        "model": "UniASR",
        "model_conf": {
            "ctc_weight": 0.0,
            "ctc2_weight": 0.0,
            "predictor_weight": 1.0,
            "predictor2_weight": 1.0,
        },
        "encoder": "SANMEncoderChunkOpt",
        "encoder_conf": encoder | {"chunk_size": [20, 60], "stride": [10, 40], "pad_left": [5, 10]},
        "encoder2": "SANMEncoderChunkOpt",
        "encoder2_conf": encoder | {"chunk_size": [45, 70], "stride": [35, 50], "pad_left": [5, 10]},
        "decoder": "FsmnDecoderSCAMAOpt",
        "decoder_conf": decoder | {"kernel_size": 11, "concat_embeds": True},
        "decoder2": "FsmnDecoderSCAMAOpt",
        "decoder2_conf": decoder | {"kernel_size": 11, "concat_embeds": True},
        "predictor": "CifPredictorV2",
        "predictor_conf": predictor,
        "predictor2": "CifPredictorV2",
        "predictor2_conf": predictor,
        "stride_conv": "stride_conv1d",
        "stride_conv_conf": {"kernel_size": 2, "stride": 2, "pad": [0, 1]},
        "frontend": "WavFrontend",
        "frontend_conf": FRONTEND,
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
        "beam_size": 3,
    }
    metas = {"tokenizer_conf": {"token_list": "tokens.json", "seg_dict_file": "seg_dict"}}
    return _write(directory, config, metas, vocabulary=len(tokens), seed=seed)


def whisper_checkpoint(file: Path, seed: int = 0) -> Path:
    """A checkpoint as OpenAI's are: dimensions and weights; its vocabulary is that of the multilingual models."""
    from whisper.model import ModelDimensions, Whisper

    dims = {
        "n_mels": 80,
        "n_audio_ctx": 1500,
        "n_audio_state": WIDTH,
        "n_audio_head": 2,
        "n_audio_layer": 1,
        "n_vocab": 51865,
        "n_text_ctx": 48,
        "n_text_state": WIDTH,
        "n_text_head": 2,
        "n_text_layer": 1,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Whisper(ModelDimensions(**dims))
        for name, weights in network.named_parameters():
            # Loud ears: else its decoder would say the same whatever it hears.
            torch.nn.init.normal_(weights, std=2.0 if "cross_attn" in name else 0.2)
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"dims": dims, "model_state_dict": network.state_dict()}, file)
    return file


def _encoder() -> dict[str, Any]:
    return {"output_size": WIDTH, "attention_heads": 2, "linear_units": 48, "kernel_size": 11}


def _train_pieces(directory: Path, reads_back: bool) -> int:
    import sentencepiece

    lines = ["今天天气怎么样", "我们明天去北京开会", "hello world", "the weather is fine today"] * 4
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        vocab_size=80,
        model_type="char",
        user_defined_symbols=list(TAGS),
        hard_vocab_limit=False,
        add_dummy_prefix=not reads_back,
        minloglevel=2,
    )
    (directory / "tiny.bpe.model").write_bytes(model.getvalue())
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return int(pieces.vocab_size())


def _say_tags_first(directory: Path, config: dict[str, Any], size: int) -> None:
    """Sets the output layer so that the four query frames give one tag each, and all others mostly nothing."""
    import sentencepiece
    from funasr.register import tables

    pieces = sentencepiece.SentencePieceProcessor(model_file=str(directory / "tiny.bpe.model"))
    # No lone space either: read back it is nothing, and FunASR then takes a number that this small model lacks.
    banned = [pieces.piece_to_id(piece) for piece in (*TAGS, "▁", "<s>", "</s>")]
    network = _network(config, size, seed=0)
    network.load_state_dict(torch.load(directory / "model.pt", weights_only=True))
    frontend = tables.frontend_classes["WavFrontend"](
        **FRONTEND, dither=0.0, cmvn_file=str(directory / "am.mvn")
    )
    samples = torch.from_numpy(probe_audio(0))[None]
    features, _ = frontend(samples, [samples.shape[1]])
    with torch.no_grad():
        queries = network.embed(torch.tensor([[0, 1, 2, network.textnorm_dict["withitn"]]]))
        hidden, _ = network.eval().encoder(
            torch.cat([queries, features], dim=1), torch.tensor([features.shape[1] + 4])
        )
        layer = network.ctc.ctc_lo
        layer.bias[banned] = -100.0
        for place, tag in enumerate(("<|zh|>", "<|NEUTRAL|>", "<|Speech|>", "<|withitn|>")):
            number = pieces.piece_to_id(tag)
            layer.weight[number] = hidden[0, place]
            layer.bias[number] = -0.75 * float(hidden[0, place] @ hidden[0, place])
        said = layer(hidden)[0, 4:].max(dim=1).values
        layer.weight[network.blank_id] = 0.0
        layer.bias[network.blank_id] = said.quantile(0.6)
    torch.save(network.state_dict(), directory / "model.pt")


def _write(
    directory: Path, config: dict[str, Any], metas: dict[str, Any], *, vocabulary: int, seed: int
) -> Path:
    """The directory's text files, and its weights."""
    files = {"init_param": "model.pt", "config": "config.yaml", "frontend_conf": {"cmvn_file": "am.mvn"}}
    (directory / "configuration.json").write_text(
        json.dumps({"file_path_metas": files | metas}), encoding="utf-8"
    )
    (directory / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (directory / "am.mvn").write_text(cmvn_text(), encoding="utf-8")
    torch.save(_network(config, vocabulary, seed).state_dict(), directory / "model.pt")
    return directory


def _network(config: dict[str, Any], vocabulary: int, seed: int) -> Any:
    """FunASR's own class, built as AutoModel builds it, filled from the seed."""
    with contextlib.redirect_stdout(io.StringIO()):
        from funasr.register import tables

        options = {
            key: value for key, value in config.items() if not key.startswith(("frontend", "tokenizer"))
        }
        options |= options.pop("model_conf")
        build = tables.model_classes[options.pop("model")]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = build(
                **options, input_size=FRONTEND["n_mels"] * FRONTEND["lfr_m"], vocab_size=vocabulary
            )
            for name, weights in network.named_parameters():
                if weights.dim() > 1:
                    torch.nn.init.normal_(weights, std=1.5 / weights[0].numel() ** 0.5)
                elif not name.endswith("weight"):
                    torch.nn.init.normal_(weights, std=0.1)
    return network

"""Making punctuation packs from FunASR's CT-Transformer checkpoints: the table, the graph, the golden text.

The steps around it (source, disk, a directory that appears whole) are packing.py's; the format is that of
punctuation_pack.py. Needs torch and onnx; serving does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from app.asr import onnx_export, pack
from app.asr.checkpoints import filled
from app.asr.errors import SourceError
from app.asr.funasr_source import PunctuationSource
from app.asr.marks import split
from app.asr.punctuation import Punctuation
from app.asr.punctuation_network import PunctuationNetwork
from app.asr.punctuation_pack import (
    GRAPH,
    KEYS,
    PRECISIONS,
    ROWS,
    SCALES,
    GoldenText,
    PunctuationManifest,
    PunctuationPack,
    key_of,
)

# Any text will do; this one has questions, a list, Latin words, numbers and a word that no table has.
GOLDEN_TEXT = (
    "大家好今天的会议有三件事第一是下个月的预算第二是新产品的名字第三谁去上海参加展览我们先看预算"
    "你们觉得够不够如果不够需要多少hello everyone please read the document before friday 请把问题发给张三李四和王五"
    "不要写在群里qwertzuiop 好了现在几点了三点半那我们三点四十继续谢谢"
)
_HEAD = ("decoder",)  # stays float: which mark wins hangs on it, and it is tiny


@dataclass(frozen=True)
class PackJob:
    """What is to be made of a source.

    Args:
        origin: what the manifest says of where it came from.
        progress: called with one line a step.
    """

    name: str
    origin: Mapping[str, str]
    precision: str
    progress: Callable[[str], None]


def load_network(source: PunctuationSource) -> PunctuationNetwork:
    """The network with the source's weights. Raises SourceError."""
    with torch.device("meta"):
        network = PunctuationNetwork(source.shape)
    return filled(network, source.checkpoint)


def write(source: PunctuationSource, network: PunctuationNetwork, directory: Path, *, job: PackJob) -> None:
    """Writes a pack into an empty directory.

    Raises:
        SourceError: a precision that punctuation packs do not have, or two tokens with one key.
    """
    if job.precision not in PRECISIONS:
        raise SourceError(
            f"a punctuation model is not packed in {job.precision}",
            fix="Pack it with --precision int8 or fp32.",
        )
    job.progress(f"exporting the {job.precision} graph")
    width = source.shape.feature_size
    counts = {1: "tokens"}
    graph = onnx_export.export_graph(
        network,
        onnx_export.StageExport(
            run=network.forward,
            inputs={"rows": (torch.zeros(1, 7, width), counts)},
            outputs={"scores": counts},
        ),
        fold=True,
    )
    if job.precision == "int8":
        graph = onnx_export.quantised(graph, keep=_HEAD)
    tensors, unknown = _table(source, network, job.precision)
    onnx_export.write_packed_graphs({GRAPH: graph}, directory, tensors)
    job.progress("punctuating the golden text")
    tokens = split(GOLDEN_TEXT)
    draft = PunctuationManifest(
        name=job.name,
        precision=job.precision,
        source=dict(job.origin) | {"sha256": pack.record_of(source.checkpoint).sha256},
        shape=source.shape,
        unknown_row=unknown,
        golden=GoldenText(tuple(tokens), _marks_of(source, network, tokens), ()),
        files={path.name: pack.record_of(path) for path in sorted(directory.iterdir())},
    )
    model = Punctuation(PunctuationPack(directory, draft))
    found = tuple(model.best(model.rows(tokens)))
    same = sum(mine == theirs for mine, theirs in zip(found, draft.golden.marks, strict=True))
    job.progress(f"{same} of {len(tokens)} marks of the golden text are those of fp32")
    manifest = replace(draft, golden=replace(draft.golden, packed_marks=found))
    (directory / pack.MANIFEST).write_text(manifest.to_json(), encoding="utf-8")


def _table(
    source: PunctuationSource, network: PunctuationNetwork, precision: str
) -> tuple[dict[str, NDArray[Any]], int]:
    """Keys in order, rows in that order, and the row of unknown tokens."""
    keys = np.array([key_of(token) for token in source.tokens], np.int64)
    order = np.argsort(keys)
    keys = keys[order]
    if (keys[1:] == keys[:-1]).any():
        raise SourceError("two tokens have the same key", fix="Report it with the name of the model.")
    rows = network.embed.weight.numpy()[order]
    unknown = int(np.flatnonzero(order == source.tokens.index(source.unknown))[0])
    if precision == "fp32":
        return {KEYS: keys, ROWS: rows}, unknown
    largest = np.abs(rows).max(axis=1)
    scales = np.where(largest > 0, largest / 127, 1.0).astype(np.float32)
    return {KEYS: keys, ROWS: np.rint(rows / scales[:, None]).astype(np.int8), SCALES: scales}, unknown


def _marks_of(source: PunctuationSource, network: PunctuationNetwork, tokens: list[str]) -> tuple[int, ...]:
    numbers = {token: number for number, token in enumerate(source.tokens)}
    ids = torch.tensor([[numbers.get(token, numbers[source.unknown]) for token in tokens]])
    with torch.inference_mode():
        return tuple(int(mark) for mark in network(network.embed(ids))[0].argmax(dim=1))

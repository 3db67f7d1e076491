"""The least time that the network's matrix products can take on this machine, in int8 and in fp32.

    python -m scripts.bench.floor PACK THREADS

Each product of activations with weights is run alone in onnxruntime, with weights of its shape that stay in the cache,
for a segment as the service cuts them; their sum is the floor. Left out, so that it stays one: attention,
normalisation, quantising, the memory blocks' convolutions, timestamps, fetching weights from memory, and all that is
not the network. PACK is an int8 pack: in others the optimiser has hidden the shapes. Needs onnx (.venv-dev).
"""

from __future__ import annotations

import collections
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scripts.bench.run_peer import tell

SEGMENT_SECONDS = 15  # sentences are joined up to this
FRAMES_PER_SECOND, TOKENS_PER_SECOND = 1 / 0.06, 4.0
_RUNS, _LEAST_SECONDS = 15, 0.2
# Rows that go through each graph's products, for a second of audio.
ROWS = {"encoder": FRAMES_PER_SECOND, "decoder": TOKENS_PER_SECOND}
# The decoder's keys and values are made of the encoder's frames, not of tokens.
_FRAMES_SIDE = (512, 1024)
_KEPT_WORDS = 50  # hot words that a segment keeps (app/asr/backend.py)
HOTWORDS = 100


@dataclass(frozen=True)
class Product:
    """rows x inner times inner x outer, `count` times in a segment."""

    rows: int
    inner: int
    outer: int
    count: int

    @property
    def macs(self) -> int:
        """Multiplications, each with its addition, of all of them."""
        return self.rows * self.inner * self.outer * self.count


def products_of(pack: Path) -> list[Product]:
    """The products with weights in the encoder and the decoder of an int8 pack.

    Raises:
        ValueError: there are none, as in a pack of another precision.
    """
    found: collections.Counter[tuple[int, int, int]] = collections.Counter()
    for name, per_second in ROWS.items():
        for (inner, outer), count in _shapes(pack, name).items():
            rate = FRAMES_PER_SECOND if name == "decoder" and (inner, outer) == _FRAMES_SIDE else per_second
            found[(round(rate * SEGMENT_SECONDS), inner, outer)] += count
    if not found:
        raise ValueError(f"{pack} shows no products of matrices. Give an int8 pack.")
    return [Product(*key, count) for key, count in sorted(found.items())]


def hotword_products_of(pack: Path, words: int) -> list[Product]:
    """The same of the hot-word branch, which a pack keeps in fp32: once to choose words where there are more than a
    segment keeps, then for both sides; empty for a model without hot words."""
    if not (pack / "bias_decoder.onnx").exists():
        return []
    tokens = round(TOKENS_PER_SECOND * SEGMENT_SECONDS)
    passes = [tokens, 2 * tokens] if words > _KEPT_WORDS else [2 * tokens]
    found: collections.Counter[tuple[int, int, int]] = collections.Counter()
    for (inner, outer), count in _shapes(pack, "bias_decoder").items():
        for rows in passes:
            found[(rows, inner, outer)] += count
    for (inner, outer), count in _shapes(pack, "bias_head").items():
        found[(tokens, inner, outer)] += count
    return [Product(*key, count) for key, count in sorted(found.items())]


def _shapes(pack: Path, name: str) -> collections.Counter[tuple[int, int]]:
    """How many products with weights of each shape a graph holds."""
    import onnx

    graph = onnx.load(pack / f"{name}.onnx", load_external_data=False).graph
    shapes = {weight.name: tuple(weight.dims) for weight in graph.initializer}
    found: collections.Counter[tuple[int, int]] = collections.Counter()
    for node in graph.node:
        shape = shapes.get(node.input[1], ()) if node.op_type in ("MatMul", "MatMulInteger") else ()
        if len(shape) == 2:
            found[(shape[0], shape[1])] += 1
    return found


def seconds_of(product: Product, precision: str, threads: int) -> float:
    """Seconds of one such product. Of many runs the fastest tenth counts: a floor is not for a busy moment."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    whole = precision == "int8"
    chance = np.random.default_rng(0)
    shape = (product.inner, product.outer)
    weights = chance.integers(-64, 64, shape, np.int8) if whole else chance.standard_normal(shape, np.float32)
    into, out = (TensorProto.UINT8, TensorProto.INT32) if whole else (TensorProto.FLOAT, TensorProto.FLOAT)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger" if whole else "MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", into, [product.rows, product.inner])],
        [helper.make_tensor_value_info("y", out, [product.rows, product.outer])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    rows = chance.integers(0, 255, (product.rows, product.inner)).astype(np.uint8 if whole else np.float32)
    taken: list[float] = []
    until = time.perf_counter() + _LEAST_SECONDS
    while len(taken) < _RUNS or time.perf_counter() < until:
        begun = time.perf_counter()
        session.run(None, {"x": rows})
        taken.append(time.perf_counter() - begun)
    return statistics.quantiles(taken, n=10)[0]


def floor(pack: Path, threads: int) -> dict[str, Any]:
    """By precision: RTF of the floor, and multiplications a second (10^9) that the products reached here; and what the
    branch for hot words adds, in fp32."""
    products = products_of(pack)
    macs = sum(product.macs for product in products)
    found: dict[str, Any] = {"gmacs_per_audio_second": macs / SEGMENT_SECONDS / 1e9}
    for precision in ("int8", "fp32"):
        seconds = sum(seconds_of(product, precision, threads) * product.count for product in products)
        found[precision] = {"rtf": seconds / SEGMENT_SECONDS, "gmacs_per_second": macs / seconds / 1e9}
    branch = hotword_products_of(pack, HOTWORDS)
    seconds = sum(seconds_of(product, "fp32", threads) * product.count for product in branch)
    found["hotwords"] = {"words": HOTWORDS, "rtf": seconds / SEGMENT_SECONDS}
    return found


if __name__ == "__main__":
    tell("done", **floor(Path(sys.argv[1]), int(sys.argv[2])))

"""From the network to ONNX graphs whose weights lie in one safetensors file.

Here: one graph a stage, the int8 conversion, and the step that moves large tensors out of the graphs. All graphs
take one segment (batch 1): onnxruntime's dynamic int8 takes one range for a whole tensor, so that batch mates would
change each other's result; and on a CPU a segment of some seconds fills the matrix units by itself.
Not here: checkpoints, manifests, directories (packing.py).
"""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from safetensors.numpy import save_file
from torch import Tensor, nn

from app.asr import pack
from app.asr.half import is_half
from app.asr.model import ParaformerNetwork
from app.asr.tensor_file import tensor_offsets

OPSET = 17
# Tensors from this size on live in the safetensors file; smaller ones stay in the graph.
EXTERNAL_BYTES = 1024
# Kept in float whatever the precision: the token count hangs on the first, the choice of token on the second.
FLOAT_LAYERS = ("cif_output", "output_layer")
FLOAT_STAGES = (pack.HOTWORD_ENCODER, pack.BIAS_DECODER, pack.BIAS_HEAD)


class _Stage(nn.Module):
    """One method of the network as a module, which is what the exporter takes."""

    def __init__(self, network: nn.Module, run: Callable[..., Any]) -> None:
        super().__init__()
        self.network = network
        self.run = run

    def forward(self, *inputs: Tensor) -> Any:
        return self.run(*inputs)


@dataclass(frozen=True)
class StageExport:
    """What the exporter must know of a stage: how to run it, on what, and which axes vary."""

    run: Callable[..., Any]
    inputs: Mapping[str, tuple[Tensor, Mapping[int, str]]]
    outputs: Mapping[str, Mapping[int, str]]


def stage_exports(network: ParaformerNetwork) -> dict[str, StageExport]:
    """The stages this network has, by file name. Example lengths differ, so that no two axes look the same."""
    shape = network.shape
    frames, tokens, words = 40, 7, 5
    hidden = torch.zeros(1, frames, shape.size)
    acoustic = torch.zeros(1, tokens, shape.size)
    times, counts = {1: "frames"}, {1: "tokens"}

    def encode(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        state, tokens_out, _, alphas = network.encode(features)
        return state, tokens_out, alphas

    exports = {
        pack.ENCODER: StageExport(
            run=encode,
            inputs={"features": (torch.zeros(1, frames, shape.feature_size), times)},
            outputs={"hidden": times, "acoustic": counts, "alphas": {1: "alphas"}},
        ),
        pack.DECODER: StageExport(
            run=lambda hidden, acoustic: network.decode(hidden, None, acoustic, None),
            inputs={"hidden": (hidden, times), "acoustic": (acoustic, counts)},
            outputs={"ids": counts, "state": counts},
        ),
    }
    if shape.predictor.upsample:
        exports[pack.TIMESTAMPS] = StageExport(
            run=lambda hidden: network.predictor.fine_alphas(hidden, None),
            inputs={"hidden": (hidden, times)},
            outputs={"alphas": {1: "steps"}},
        )
    if shape.has_hotwords:
        exports |= _hotword_exports(network, acoustic, words)
    return exports


def _hotword_exports(network: ParaformerNetwork, acoustic: Tensor, words: int) -> dict[str, StageExport]:
    counts, sides = {1: "tokens"}, {0: "streams", 1: "tokens"}
    ids, lengths = torch.zeros(words, 3, dtype=torch.long), torch.full((words,), 3)
    layers = len(network.seaco_decoder.decoders)
    memory, streams = torch.zeros(words, layers, 2 * network.shape.size), torch.cat([acoustic, acoustic])
    return {
        pack.HOTWORD_ENCODER: StageExport(
            run=network.hotword_memory,
            inputs={"ids": (ids, {0: "words", 1: "length"}), "lengths": (lengths, {0: "words"})},
            outputs={"memory": {0: "words"}},
        ),
        pack.BIAS_DECODER: StageExport(
            run=network.bias_hidden_of,
            inputs={"streams": (streams, sides), "memory": (memory, {0: "words"})},
            outputs={"hidden": sides, "scores": {0: "streams", 1: "words"}},
        ),
        pack.BIAS_HEAD: StageExport(
            run=network.bias_ids,
            inputs={"acoustic_side": (acoustic, counts), "decoder_side": (acoustic, counts)},
            outputs={"ids": counts},
        ),
    }


def export_graph(network: nn.Module, stage: StageExport, *, fold: bool) -> onnx.ModelProto:
    """One stage as an fp32 graph; `fold` bakes transposes into the weights (for int8), else they keep their names."""
    buffer: Any = io.BytesIO()
    axes = {name: dict(axes) for name, (_, axes) in stage.inputs.items()}
    axes |= {name: dict(axes) for name, axes in stage.outputs.items()}
    with warnings.catch_warnings():
        # The tracing exporter is deprecated, but its successor (dynamo) fails on data-dependent token counts.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Stage(network, stage.run).eval(),
            tuple(tensor for tensor, _ in stage.inputs.values()),
            buffer,
            input_names=list(stage.inputs),
            output_names=list(stage.outputs),
            dynamic_axes=axes,
            opset_version=OPSET,
            custom_opsets={"com.microsoft": 1},
            autograd_inlining=False,
            do_constant_folding=fold,
            dynamo=False,
        )
    return onnx.load_from_string(buffer.getvalue())


def quantised(model: onnx.ModelProto, keep: Collection[str] = FLOAT_LAYERS) -> onnx.ModelProto:
    """Dynamic int8: weights per channel in 7 bits, activations in 8 bits by range at run time; `keep` stays float.

    Seven bits, because without VNNI a CPU adds pairs of products in 16 bits: 2 * 255 * 127 would saturate there,
    2 * 255 * 64 does not. With VNNI the spare bit costs no time.
    """
    float_nodes = [node.name for node in model.graph.node if any(layer in node.name for layer in keep)]
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "fp32.onnx", Path(scratch) / "int8.onnx"
        onnx.save(model, str(source))
        quantize_dynamic(
            str(source),
            str(target),
            op_types_to_quantize=["MatMul", "LSTM"],
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=float_nodes,
        )
        return onnx.load(str(target))


def write_float_graphs(
    graphs: Mapping[str, onnx.ModelProto], weights: Mapping[str, Tensor], directory: Path
) -> None:
    """fp32 and fp16 packs: the checkpoint's tensors under their own names, which torch reads too; graphs refer to them.

    Weights stored in float16 are cast to float32 when a graph is loaded: a CPU has no fast float16.
    """
    offsets = _save_tensors({name: tensor.numpy() for name, tensor in weights.items()}, directory)
    for name, model in graphs.items():
        keys = {tensor.name: tensor.name.removeprefix("network.") for tensor in model.graph.initializer}
        mine = {
            tensor.name: keys[tensor.name]
            for tensor in model.graph.initializer
            if keys[tensor.name] in weights
        }
        halves = {name for name, key in mine.items() if weights[key].dtype == torch.float16}
        _refer(model, {name: offsets[key] for name, key in mine.items()}, halves)
        onnx.save(model, str(directory / name))


def write_packed_graphs(
    graphs: Mapping[str, onnx.ModelProto], directory: Path, more: Mapping[str, NDArray[Any]] | None = None
) -> None:
    """Every large tensor of every graph in one file, named `<stage>/<tensor>`, and beside them those in `more`.

    Float tensors whose every value is a float16 number (a checkpoint that was stored in half) are stored so: exact.
    """
    tensors: dict[str, NDArray[Any]] = {name: _smallest(array) for name, array in (more or {}).items()}
    for stage, model in graphs.items():
        for initializer in model.graph.initializer:
            if initializer.ByteSize() >= EXTERNAL_BYTES:
                tensors[f"{stage}/{initializer.name}"] = _smallest(numpy_helper.to_array(initializer))
    offsets = _save_tensors(tensors, directory)
    for stage, model in graphs.items():
        names = [tensor.name for tensor in model.graph.initializer if f"{stage}/{tensor.name}" in offsets]
        halves = {name for name in names if tensors[f"{stage}/{name}"].dtype == np.float16}
        _refer(model, {name: offsets[f"{stage}/{name}"] for name in names}, halves)
        onnx.save(model, str(directory / stage))


def _smallest(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype != np.float32:
        return array
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    return half if np.array_equal(half.astype(np.float32), array) else array


def _save_tensors(tensors: Mapping[str, NDArray[Any]], directory: Path) -> dict[str, tuple[int, int]]:
    target = directory / pack.WEIGHTS
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, str(target))
    target.chmod(0o644)
    return tensor_offsets(target)


def _refer(model: onnx.ModelProto, spans: Mapping[str, tuple[int, int]], halves: Collection[str]) -> None:
    """Points initializers into the weights file; those in `halves` lie there in float16 and are cast when loaded."""
    casts = []
    for initializer in model.graph.initializer:
        if initializer.name not in spans:
            continue
        _point(initializer, *spans[initializer.name])
        if initializer.name in halves:
            stored = f"{initializer.name}.fp16"
            casts.append(helper.make_node("Cast", [stored], [initializer.name], to=TensorProto.FLOAT))
            initializer.name, initializer.data_type = stored, TensorProto.FLOAT16
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _point(initializer: TensorProto, offset: int, length: int) -> None:
    """Replaces a tensor's bytes by a reference into the weights file."""
    for field in ("raw_data", "float_data", "int32_data", "int64_data"):
        initializer.ClearField(field)
    initializer.data_location = TensorProto.EXTERNAL
    del initializer.external_data[:]
    for key, value in (("location", pack.WEIGHTS), ("offset", str(offset)), ("length", str(length))):
        initializer.external_data.add(key=key, value=value)


def weights_for(network: ParaformerNetwork, precision: str) -> dict[str, Tensor]:
    """The network's tensors as a pack stores them: contiguous, in float32 or (large ones of fp16 packs) float16."""

    def kind(name: str) -> torch.dtype:
        return torch.float16 if precision == "fp16" and is_half(name) else torch.float32

    return {
        name: tensor.detach().to(kind(name)).contiguous() for name, tensor in network.state_dict().items()
    }


def finite_in_half(weights: Mapping[str, Tensor]) -> list[str]:
    """Names of tensors that float16 cannot hold (should be none)."""
    return [name for name, tensor in weights.items() if not np.isfinite(tensor.numpy()).all()]

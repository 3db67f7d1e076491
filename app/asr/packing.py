"""Making packs: a FunASR model directory or hub id in, a checked pack out.

Here: the golden clip, the float16 pre-scales, and the steps in order. Weights are read by checkpoints.py, graphs are
made by onnx_export.py; the format belongs to pack.py. A punctuation model is handed on to punctuation_packing.py.
Needs torch and onnx; serving does not.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from app.asr import hub, onnx_export, pack, punctuation_packing
from app.asr.audio import AudioReader, Frontend
from app.asr.checkpoints import count_of, filled
from app.asr.errors import OutputError, ResourceError, SourceError
from app.asr.funasr_source import (
    FunasrSource,
    is_punctuation_source,
    read_punctuation_source,
    read_source,
)
from app.asr.half import VALUES, exponent_for, is_half
from app.asr.model import ParaformerNetwork
from app.asr.onnx_backend import OnnxBackend
from app.asr.punctuation_pack import PunctuationPack
from app.asr.punctuation_packing import PackJob
from app.asr.tokens import Vocabulary

# Clip by which a pack proves itself on a device; any speech will do, this one is generated.
GOLDEN_CLIP = Path(__file__).parent.parent / "demo" / "recordings" / "golden.wav"


def pack_model(
    source: str, output: Path, precision: str, progress: Callable[[str], None], *, name: str | None = None
) -> Path:
    """Makes a pack. The output directory appears whole or not at all.

    Args:
        source: FunASR model directory, or a ModelScope id `owner/name`.
        output: directory to make; must not exist.
        precision: fp32, fp16 (stored in half, computed in fp32 on a CPU) or int8.
        progress: called with one line a step.
        name: what the model is called; the source's own name if None.

    Raises:
        SourceError, ResourceError, OutputError: with the file or limit named.
    """
    if precision not in pack.PRECISIONS:
        raise SourceError(
            f"unknown precision {precision!r}", fix=f"Choose one of {', '.join(pack.PRECISIONS)}."
        )
    if output.exists():
        raise OutputError(f"{output} exists already", fix="Choose another --output, or remove it first.")
    directory, origin = _resolve(source, output, progress)
    progress(f"reading {directory}")
    job = PackJob(name or directory.name, origin, precision, progress)
    write, parameters = _writer(directory, job)
    unfinished = output.with_name(f".{output.name}.partial")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        _check_disk(unfinished, parameters)
        write(unfinished)
        unfinished.rename(output)
    except OSError as error:
        raise OutputError(
            f"the pack could not be written to {output} ({error.strerror or error})",
            fix="Check the free space and the permissions there.",
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    (PunctuationPack if is_punctuation_source(directory) else pack.Pack).open(output)
    progress(f"packed {output} ({sum(f.stat().st_size for f in output.iterdir()) / 1e6:.1f} MB, {precision})")
    return output


def _writer(directory: Path, job: PackJob) -> tuple[Callable[[Path], None], int]:
    """What writes the pack into a directory, and how many parameters the model has. Raises SourceError."""
    if is_punctuation_source(directory):
        punctuation = read_punctuation_source(directory)
        marker = punctuation_packing.load_network(punctuation)
        return partial(punctuation_packing.write, punctuation, marker, job=job), count_of(marker)
    funasr = read_source(directory)
    network = load_network(funasr)
    return partial(_write, funasr, network, job=job), count_of(network)


def _resolve(source: str, output: Path, progress: Callable[[str], None]) -> tuple[Path, dict[str, str]]:
    if Path(source).is_dir():
        return Path(source), {"kind": "directory", "id": Path(source).resolve().name}
    if hub.HUB_ID.fullmatch(source):
        directory = hub.fetch(source, output.parent / ".hub", progress)
        return directory, {"kind": "hub", "id": source}
    raise SourceError(
        f"{source} is neither a directory nor a hub id",
        fix="Give a FunASR model directory, or an id of the form owner/name.",
    )


def _check_disk(directory: Path, parameters: int) -> None:
    needed = 4 * parameters + (64 << 20)
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise ResourceError(
            f"the disk of {directory.parent} has {free / 1e6:.0f} MB free, packing may need {needed / 1e6:.0f} MB",
            fix="Free some space, or choose another --output.",
        )


def load_network(source: FunasrSource) -> ParaformerNetwork:
    """The network with the source's weights, mapped from the checkpoint file where it is fp32. Raises SourceError."""
    with torch.device("meta"):
        network = ParaformerNetwork(source.architecture)
    return filled(network, source.checkpoint)


def _write(source: FunasrSource, network: ParaformerNetwork, directory: Path, *, job: PackJob) -> None:
    precision, progress = job.precision, job.progress
    _write_small_files(source, directory)
    weights = onnx_export.weights_for(network, precision)
    if overflowing := onnx_export.finite_in_half(weights):
        raise SourceError(
            f"{overflowing[0]} does not fit into {precision}", fix="Pack with --precision fp32."
        )
    if precision == "fp16":
        network.load_state_dict({key: value.float() for key, value in weights.items()}, assign=True)
    progress(f"exporting {precision} graphs")
    graphs = {
        stage: onnx_export.export_graph(network, export, fold=precision == "int8")
        for stage, export in onnx_export.stage_exports(network).items()
    }
    if precision == "int8":
        for stage in graphs.keys() - set(onnx_export.FLOAT_STAGES):
            progress(f"converting {stage} to int8")
            graphs[stage] = onnx_export.quantised(graphs[stage])
        onnx_export.write_packed_graphs(graphs, directory)
    else:
        onnx_export.write_float_graphs(graphs, weights, directory)
    progress("recognising the golden clip")
    features = Frontend(source.frontend).features(read_clip(GOLDEN_CLIP))
    reference, prescales = golden_run(network, features)
    files = {path.name: pack.record_of(path) for path in sorted(directory.iterdir())}
    draft = pack.Manifest(
        name=job.name,
        precision=precision,
        source=dict(job.origin) | {"sha256": pack.record_of(source.checkpoint).sha256},
        architecture=source.architecture,
        golden=pack.Golden(reference, (), Vocabulary(source.tokens).decode(reference)),
        files=files,
        prescales=prescales,
    )
    _finish(directory, draft, features)


def _finish(directory: Path, draft: pack.Manifest, features: NDArray[np.float32]) -> None:
    """Runs the new graphs on the golden clip, keeps their tokens, and writes the manifest."""
    [found] = OnnxBackend(pack.Pack(directory, draft), threads=1).recognise([features], None)
    tokens = found.ids
    golden = pack.Golden(draft.golden.tokens, tuple(int(token) for token in tokens), draft.golden.text)
    manifest = replace(draft, golden=golden)
    (directory / pack.MANIFEST).write_text(manifest.to_json(), encoding="utf-8")


def _write_small_files(source: FunasrSource, directory: Path) -> None:
    (directory / pack.TOKENS).write_text(json.dumps(source.tokens, ensure_ascii=False), encoding="utf-8")
    if source.seg_dict is not None:
        shutil.copyfile(source.seg_dict, directory / pack.SEG_DICT)
    (directory / pack.FRONTEND).write_text(pack.frontend_to_json(source.frontend), encoding="utf-8")
    shutil.copyfile(GOLDEN_CLIP, directory / pack.GOLDEN)


def read_clip(path: Path) -> NDArray[np.float32]:
    """All samples of a short file, 16 kHz mono."""
    with AudioReader(path) as reader:
        return np.concatenate(list(reader.blocks()))


def golden_run(
    network: ParaformerNetwork, features: NDArray[np.float32]
) -> tuple[tuple[int, ...], dict[str, int]]:
    """Token ids of one segment in fp32, and the exponents that keep linear layers' outputs within float16 (half.py)."""
    with torch.inference_mode(), _largest_outputs(network) as largest:
        hidden, acoustic, _, _ = network.encode(torch.from_numpy(features)[None])
        if not acoustic.shape[1]:
            return (), _exponents(largest)
        ids, state = network.decode(hidden, None, acoustic, None)
        tokens = tuple(int(token) for token in ids[0] if int(token) > 2)
        if network.shape.has_hotwords:
            # The clip's own words, and one that is not in it, stand for all hot words.
            words = torch.tensor([[*tokens[:3], 3, 3, 3][:3], [3, 4, 5], [1, 0, 0]])
            rows = network.encode_hotwords(words, torch.tensor([3, 3, 1]))[None]
            for stream in (acoustic, state):
                network.bias_hidden(stream, None, rows)
    return tokens, _exponents(largest)


def _exponents(largest: Mapping[str, float]) -> dict[str, int]:
    exponents = {name: exponent_for(top) for name, top in largest.items()}
    return {name: exponent for name, exponent in exponents.items() if exponent < 0}


@contextlib.contextmanager
def _largest_outputs(network: nn.Module) -> Iterator[dict[str, float]]:
    """Watches the largest absolute output of every linear layer that may be half; of joint projections, the values'
    apart from the rest."""
    largest: dict[str, float] = {}
    hooks = []

    def watch(name: str, parts: int) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def note(key: str, values: Tensor) -> None:
            largest[key] = max(largest.get(key, 0.0), float(values.abs().max()))

        def hook(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
            rest = output.shape[2] - output.shape[2] // parts if parts else output.shape[2]
            note(name, output[..., :rest])
            if parts:
                note(name + VALUES, output[..., rest:])

        return hook

    for name, layer in network.named_modules():
        if isinstance(layer, nn.Linear) and is_half(f"{name}.weight"):
            parts = {"linear_q_k_v": 3, "linear_k_v": 2}.get(name.rpartition(".")[2], 0)
            hooks.append(layer.register_forward_hook(watch(name, parts)))
    try:
        yield largest
    finally:
        for handle in hooks:
            handle.remove()

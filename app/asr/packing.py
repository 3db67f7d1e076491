"""Making packs: a FunASR model directory or hub id in, a checked pack out.

Here: reading the checkpoint without running anything in it, the golden clip, the float16 pre-scales, and the steps
in order. Graphs are made by onnx_export.py; the format belongs to pack.py. Needs torch and onnx; serving does not.
"""

from __future__ import annotations

import contextlib
import json
import math
import pickle
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from app.asr import hub, onnx_export, pack
from app.asr.audio import AudioReader, Frontend
from app.asr.errors import OutputError, ResourceError, SourceError
from app.asr.funasr_source import FunasrSource, read_source
from app.asr.model import EncoderLayer, ParaformerNetwork
from app.asr.onnx_backend import OnnxBackend
from app.asr.tokens import Vocabulary

# Clip by which a pack proves itself on a device; any speech will do, this one is generated.
GOLDEN_CLIP = Path(__file__).parent.parent / "demo" / "recordings" / "golden.wav"
# Layers' outputs are scaled so that eight times the golden clip's largest value still fits into float16.
HALF_MAX = 65504.0
PRESCALE_MARGIN = 8.0
# Parts of FunASR checkpoints that only training uses.
TRAINING_ONLY = ("ctc.", "criterion", "error_calculator", "specaug")


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
    funasr = read_source(directory)
    network = load_network(funasr)
    partial = output.with_name(f".{output.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _check_disk(partial, network)
        _write(funasr, network, partial, _Job(name or directory.name, origin, precision, progress))
        partial.rename(output)
    except OSError as error:
        raise OutputError(
            f"the pack could not be written to {output} ({error.strerror or error})",
            fix="Check the free space and the permissions there.",
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    pack.Pack.open(output)
    progress(f"packed {output} ({sum(f.stat().st_size for f in output.iterdir()) / 1e6:.1f} MB, {precision})")
    return output


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


def _check_disk(directory: Path, network: ParaformerNetwork) -> None:
    needed = 4 * sum(tensor.numel() for tensor in network.state_dict().values()) + (64 << 20)
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise ResourceError(
            f"the disk of {directory.parent} has {free / 1e6:.0f} MB free, packing may need {needed / 1e6:.0f} MB",
            fix="Free some space, or choose another --output.",
        )


def load_network(source: FunasrSource) -> ParaformerNetwork:
    """The network with the source's weights, mapped from the checkpoint file where it is fp32.

    Raises:
        SourceError: the checkpoint is damaged, holds code, or does not fit config.yaml.
    """
    state = _read_checkpoint(source.checkpoint)
    with torch.device("meta"):
        network = ParaformerNetwork(source.architecture)
    wanted = network.state_dict()
    state = {key: value for key, value in state.items() if not key.startswith(TRAINING_ONLY)}
    missing, extra = sorted(set(wanted) - set(state)), sorted(set(state) - set(wanted))
    wrong = [key for key in wanted if key in state and state[key].shape != wanted[key].shape]
    for what, keys in (("lacks", missing), ("has unexpected", extra), ("has other shapes for", wrong)):
        if keys:
            raise SourceError(
                f"{source.checkpoint} {what} {len(keys)} tensors that config.yaml describes otherwise, e.g. {keys[0]}",
                fix="Use the config.yaml that belongs to this checkpoint.",
            )
    network.load_state_dict({key: value.float() for key, value in state.items()}, assign=True)
    broken = [key for key, value in network.state_dict().items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise SourceError(
            f"{source.checkpoint} holds NaN or Inf in {broken[0]}", fix="Fetch the checkpoint again."
        )
    return network.eval().requires_grad_(False)


def _read_checkpoint(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; what cannot be read is refused below
            # Only torch's zip format can be mapped; older files are read whole.
            state = torch.load(path, map_location="cpu", mmap=zipfile.is_zipfile(path), weights_only=True)
    except pickle.UnpicklingError as error:
        raise SourceError(
            f"{path} holds more than tensors, or is no checkpoint at all; it was not loaded, since that could run code",
            fix="Use a checkpoint saved as a plain state dict.",
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise SourceError(
            f"{path} is damaged or truncated ({str(error).splitlines()[0]})",
            fix="Fetch the checkpoint again.",
        ) from error
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise SourceError(f"{path} is not a dictionary of tensors", fix="Use the model.pt of a FunASR model.")
    return {key.removeprefix("module."): value for key, value in state.items()}


@dataclass(frozen=True)
class _Job:
    """What is to be made of a source."""

    name: str
    origin: Mapping[str, str]
    precision: str
    progress: Callable[[str], None]


def _write(source: FunasrSource, network: ParaformerNetwork, directory: Path, job: _Job) -> None:
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
        onnx_export.write_int8_graphs(graphs, directory)
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
    tokens = OnnxBackend(pack.Pack(directory, draft), threads=1).recognise(features, None).ids
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
    """Token ids of one segment in fp32, and the exponents by which float16 must scale each encoder layer's outputs."""
    with torch.inference_mode(), _largest_outputs(network.encoder) as largest:
        hidden, acoustic, _, _ = network.encode(torch.from_numpy(features)[None])
        ids = network.decode(hidden, None, acoustic, None)[0] if acoustic.shape[1] else torch.zeros(1, 0)
    tokens = tuple(int(token) for token in ids[0] if int(token) > 2)
    exponents = {
        name: min(0, math.floor(math.log2(HALF_MAX / (PRESCALE_MARGIN * top))))
        for name, top in largest.items()
        if top > 0
    }
    return tokens, {name: exponent for name, exponent in exponents.items() if exponent < 0}


@contextlib.contextmanager
def _largest_outputs(encoder: nn.Module) -> Iterator[dict[str, float]]:
    """Watches the largest absolute output of every attention and feed-forward block."""
    largest: dict[str, float] = {}
    hooks = []

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
            largest[name] = max(largest.get(name, 0.0), float(output.abs().max()))

        return hook

    for name, layer in encoder.named_modules():
        if isinstance(layer, EncoderLayer):
            for part in ("self_attn", "feed_forward"):
                hooks.append(getattr(layer, part).register_forward_hook(watch(f"encoder.{name}.{part}")))
    try:
        yield largest
    finally:
        for handle in hooks:
            handle.remove()

"""The torch backend: the network in fp32 or fp16 on a CUDA device (or, for tests and as a last resort, on a CPU).

Here: loading weights without holding them twice, one batch from features to tokens, and what torch calls its
failures. Which device and precision a host gets is decided in devices.py, how large a batch may be in memory.py
and batching.py. Settings of the CUDA allocator must be made before torch first touches the device: `prepare_cuda`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from app.asr import half, pack
from app.asr.audio import Frontend
from app.asr.backend import HOTWORD_FILTER, EncodedHotwords
from app.asr.devices import Card, CudaReport, covered, cuda_problem
from app.asr.errors import DeviceLostError, DeviceMemoryError, InputError, NumericError
from app.asr.host import nvidia_driver
from app.asr.joining import Recognition
from app.asr.memory import FRAME_MULTIPLE, DeviceMemory, HostMemory
from app.asr.model import ParaformerNetwork
from app.asr.predictor import valid_mask
from app.asr.tensor_file import TensorFile
from app.asr.timing import FRAME_SECONDS, token_times
from app.asr.tokens import Vocabulary

PRECISIONS = ("fp32", "fp16", half.STORAGE_ONLY)
# Tensors that only hot words need.
HOTWORD_PARTS = ("bias_encoder.", "seaco_decoder.", "hotword_output_layer.", "decoder.embed.")
_SPECIAL_IDS = (Vocabulary.blank_id, Vocabulary.sos_id, Vocabulary.eos_id)
_HOTWORD_BATCH = 128
_CUDA_ENVIRONMENT = {
    "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",  # segments of all lengths: no fragments
    "CUDA_MODULE_LOADING": "LAZY",  # kernels are loaded when used: some hundred MB less
    "CUBLAS_WORKSPACE_CONFIG": ":4096:2:16:8",  # 8 MiB and not the 32 of newer cards; makes results repeatable too
}


def prepare_cuda() -> None:
    """Sets what torch reads when it first touches CUDA; a user's own settings stay."""
    for name, value in _CUDA_ENVIRONMENT.items():
        os.environ.setdefault(name, value)


class TorchBackend:
    """Runs an opened fp32 or fp16 pack. Use it from one thread.

    Args:
        model: the pack, already checked.
        device: "cpu" or "cuda:N".
        precision: one of PRECISIONS; an fp16 pack can run in fp32, an fp32 pack in fp16.
        threads: on the CPU; torch has one setting for the process.
        hotwords: load the part of the network that serves hot words.

    Raises:
        DeviceMemoryError: the weights do not fit.
        DeviceLostError: the device failed.
        InputError: the pack has no float weights.
    """

    most_rows = 64
    pads = True

    def __init__(
        self,
        model: pack.Pack,
        *,
        device: str = "cpu",
        precision: str = "fp32",
        threads: int = 1,
        hotwords: bool = True,
    ) -> None:
        if model.precision == "int8" or precision not in PRECISIONS:
            raise InputError(
                f"a pack in {model.precision} cannot run as {precision} with torch",
                fix="Use an fp16 or fp32 pack, or the CPU.",
            )
        self.device, self.precision = device, precision
        self._device = torch.device(device)
        self._shape = model.manifest.architecture
        self._frontend = Frontend(model.frontend)
        if self._device.type == "cpu":
            torch.set_num_threads(threads)
        else:
            prepare_cuda()
            # Ampere and later round the inputs of float32 convolutions and LSTMs to 10 bits unless told not to; those
            # decide where tokens are (CIF), and are kept in float32 for that reason.
            torch.backends.cudnn.allow_tf32 = False
        self._hotwords = hotwords and self._shape.has_hotwords
        with _failures_named(device):
            self._network = load(model, self._device, precision, hotwords=self._hotwords)
        held = [tensor for tensor in self._network.state_dict().values() if not tensor.is_meta]
        self.weight_bytes = sum(tensor.numel() * tensor.element_size() for tensor in held)
        self.memory: DeviceMemory = CudaMemory(self._device) if self._device.type == "cuda" else HostMemory()

    def prepare(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """16 kHz mono samples (n,) -> features (frames, width)."""
        return self._frontend.features(samples)

    def release(self) -> None:
        """Gives the allocator's unused blocks back to the device. Raises DeviceLostError."""
        if self._device.type == "cuda":
            with _failures_named(self.device):
                torch.cuda.empty_cache()

    @torch.inference_mode()
    def encode_hotwords(self, words: Sequence[Sequence[int]]) -> EncodedHotwords:
        """Token ids of each word -> rows (H + 1, D) on the device, the no-bias row last.

        Raises:
            InputError: the model has no hot-word branch, or it was not loaded.
        """
        if not self._hotwords:
            raise InputError("there are no hot words in what was loaded", fix="Leave --hotwords out.")
        listed = [list(word) for word in words] + [[Vocabulary.sos_id]]
        parts = []
        with _failures_named(self.device):
            for first in range(0, len(listed), _HOTWORD_BATCH):
                batch = listed[first : first + _HOTWORD_BATCH]
                lengths = torch.tensor([len(word) for word in batch])
                ids = torch.zeros(len(batch), int(lengths.max()), dtype=torch.long)
                for row, word in zip(ids, batch, strict=True):
                    row[: len(word)] = torch.tensor(word)
                parts.append(self._network.encode_hotwords(ids.to(self._device), lengths.to(self._device)))
            return EncodedHotwords(torch.cat(parts), words, self)

    @torch.inference_mode()
    def recognise(
        self, batch: Sequence[NDArray[np.float32]], hotwords: EncodedHotwords | None
    ) -> list[Recognition]:
        """Features (frames, width) of segments -> for each its tokens and their times.

        Raises:
            DeviceMemoryError, DeviceLostError, NumericError: as `Backend` says.
        """
        filled = [index for index, features in enumerate(batch) if len(features)]
        found = [Recognition.nothing()] * len(batch)
        if filled:
            with _failures_named(self.device):
                results = self._run([batch[index] for index in filled], hotwords)
            for index, result in zip(filled, results, strict=True):
                found[index] = result
        return found

    def _run(
        self, batch: Sequence[NDArray[np.float32]], hotwords: EncodedHotwords | None
    ) -> list[Recognition]:
        network = self._network
        features, lengths = self._padded(batch)
        hidden, acoustic, counts, alphas = network.encode(features, lengths)
        del features
        # The one time the device is waited for: how many tokens there are is what it was asked to find out.
        if not bool(torch.isfinite(alphas).all()):
            raise NumericError(
                f"{self.device} computed NaN or Inf in {self.precision}",
                fix="Use --precision fp32, or --device cpu.",
            )
        if not acoustic.shape[1]:
            return [Recognition.nothing()] * len(batch)
        fine = network.predictor.fine_alphas(hidden, lengths) if self._shape.predictor.upsample else alphas
        ids, state = network.decode(hidden, lengths, acoustic, counts)
        del hidden
        if hotwords is not None:
            biased = self._biased_ids(acoustic, state, counts, hotwords.rows)
            ids = torch.where(biased == self._shape.no_bias_id, ids, biased)
        return self._results(
            ids.cpu().numpy(), counts.cpu().numpy(), fine.float().cpu().numpy(), lengths.numpy()
        )

    def _padded(self, batch: Sequence[NDArray[np.float32]]) -> tuple[Tensor, Tensor]:
        """Segments -> (B, T, F) on the device; lengths (B,) on the host."""
        lengths = torch.tensor([len(features) for features in batch])
        longest = -(-int(lengths.max()) // FRAME_MULTIPLE) * FRAME_MULTIPLE
        pinned = self._device.type == "cuda"
        padded = torch.zeros(len(batch), longest, batch[0].shape[1], pin_memory=pinned)
        for row, features in zip(padded, batch, strict=True):
            row[: len(features)] = torch.from_numpy(features)
        return padded.to(self._device, non_blocking=pinned), lengths

    def _biased_ids(self, acoustic: Tensor, state: Tensor, counts: Tensor, rows: Tensor) -> Tensor:
        """What the hot-word branch answers, (B, N)."""
        network, words = self._network, rows[None]
        mask = valid_mask(counts, acoustic.shape[1], self._device)
        if len(rows) > HOTWORD_FILTER:
            _, scores = network.bias_hidden(state, mask, words)
            words = rows[filtered_rows(scores)]
        sides = [network.bias_hidden(stream, mask, words)[0] for stream in (acoustic, state)]
        return network.bias_ids(*sides)

    def _results(
        self,
        ids: NDArray[np.int64],
        counts: NDArray[np.int64],
        weights: NDArray[np.float32],
        lengths: NDArray[np.int64],
    ) -> list[Recognition]:
        predictor = self._shape.predictor
        times = predictor.upsample_times if predictor.upsample else 1
        extra = 0 if predictor.upsample else 1  # plain CIF weights have the tail as a last step
        found = []
        for row, count, weight, length in zip(ids, counts, weights, lengths, strict=True):
            chosen = row[:count]
            chosen = chosen[~np.isin(chosen, _SPECIAL_IDS)].astype(np.int32)
            steps = weight[: length * times + extra]
            starts, ends = token_times(steps, len(chosen), step_seconds=FRAME_SECONDS / times)
            found.append(Recognition(chosen, starts, ends))
        return found


def filtered_rows(scores: Tensor) -> Tensor:
    """Scores (B, H) -> rows that each segment keeps, (B, HOTWORD_FILTER + 1): backend.filtered_rows, for a batch."""
    best = torch.sort(scores, dim=1, descending=True, stable=True).indices
    best = best[:, : min(HOTWORD_FILTER, scores.shape[1] - 1)]
    return nn.functional.pad(best, (0, 1), value=scores.shape[1] - 1)


def load(model: pack.Pack, device: torch.device, precision: str, *, hotwords: bool) -> ParaformerNetwork:
    """The network with the pack's weights on a device.

    Tensors go there one after the other; what has been copied is let go. On a CPU in fp32 they are the mapped file.
    Without hot words their part stays without weights.

    Raises:
        PackError: tensors are missing or have other shapes.
    """
    with torch.device("meta"):
        network = ParaformerNetwork(model.manifest.architecture)
        plan = (
            {}
            if precision == "fp32"
            else half.convert(network, model.manifest.prescales, storage_only=precision == half.STORAGE_ONLY)
        )
    path = model.path(pack.WEIGHTS)
    wanted = network.state_dict()
    with TensorFile(path) as file:
        if set(file) != set(wanted):
            raise pack.not_this_network(path)
        for name in wanted:
            if not hotwords and name.startswith(HOTWORD_PARTS):
                continue
            array = file[name]
            if tuple(array.shape) != tuple(wanted[name].shape):
                raise pack.not_this_network(path)
            tensor = plan.get(name, half.Stored()).apply(torch.from_numpy(array)).to(device)
            _assign(network, name, tensor)
            if tensor.data_ptr() != array.ctypes.data:
                file.let_go(name)
    for module in network.modules():
        if isinstance(module, nn.LSTM) and not module.weight_ih_l0.is_meta:
            module.flatten_parameters()
    return network.eval().requires_grad_(False)


def _assign(network: nn.Module, name: str, tensor: Tensor) -> None:
    owner, _, attribute = name.rpartition(".")
    setattr(network.get_submodule(owner), attribute, nn.Parameter(tensor, requires_grad=False))


def cuda_report() -> CudaReport:
    """The CUDA devices torch can use, or why there is none."""
    prepare_cuda()
    if torch.version.cuda is None or not torch.cuda.is_available():
        return cuda_problem(torch.version.cuda, nvidia_driver(), torch.__version__)
    cards = []
    try:
        architectures = torch.cuda.get_arch_list()
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            capability = (properties.major, properties.minor)
            runnable = covered(capability, architectures)
            # Asking a card for its memory opens a context on it, which one that cannot be used need not pay.
            free = torch.cuda.mem_get_info(index)[0] if runnable else 0
            cards.append(Card(index, properties.name, capability, properties.total_memory, free, runnable))
    except RuntimeError as error:
        said = (str(error).splitlines() or ["no reason given"])[0]
        return CudaReport(
            tuple(cards),
            f"CUDA failed ({said})",
            "Look at `nvidia-smi` and the kernel log, or use --device cpu.",
        )
    return CudaReport(tuple(cards))


class CudaMemory:
    """Memory of a CUDA device, as torch's allocator and the driver tell it. Every question may raise DeviceLostError:
    a fault that happened in a batch is often told by the next call, whatever that is."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._peak = 0

    def held(self) -> int:
        with _failures_named(self._device):
            return torch.cuda.memory_allocated(self._device)

    def available(self) -> int:
        with _failures_named(self._device):
            free, _ = torch.cuda.mem_get_info(self._device)
            reserved = torch.cuda.memory_reserved(self._device)
            return free + reserved - torch.cuda.memory_allocated(self._device)

    def peak_of(self, work: Callable[[], None]) -> int:
        with _failures_named(self._device):
            torch.cuda.synchronize(self._device)
            self._peak = self.peak()
            torch.cuda.reset_peak_memory_stats(self._device)
            before = torch.cuda.memory_allocated(self._device)
            work()
            torch.cuda.synchronize(self._device)
            return torch.cuda.max_memory_allocated(self._device) - before

    def peak(self) -> int:
        with _failures_named(self._device):
            return max(self._peak, torch.cuda.max_memory_allocated(self._device))

    def identity(self) -> str:
        with _failures_named(self._device):
            properties: Any = torch.cuda.get_device_properties(self._device)
        driver = nvidia_driver() or "unknown"
        return f"{properties.name} {properties.uuid} driver {driver} torch {torch.__version__}"


class _failures_named:  # noqa: N801 - used as a statement: `with _failures_named(device):`
    """Turns torch's failures into ours."""

    def __init__(self, device: str | torch.device) -> None:
        self._device = device

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if error is None or not isinstance(error, (RuntimeError, MemoryError)):
            return
        said = (str(error).splitlines() or [type(error).__name__])[0]
        if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "allocate memory" in said:
            raise DeviceMemoryError(
                f"{self._device} has not enough memory for this batch ({said})",
                fix="Use --batch-size 1 or shorter segments (--segment-seconds 10), or stop other programs.",
            ) from error
        if "CUDA" in said or "cuDNN" in said or "CUBLAS" in said:
            raise DeviceLostError(
                f"{self._device} failed ({said})",
                fix="Start again; if it fails again, look for Xid lines in the kernel log, or use --device cpu.",
            ) from error

"""What a batch costs, found by measuring, and how much of the device may be used for it right now.

Here: the cost model and its three probe batches, the place where measurements are kept, and the budget. The same
code serves a GPU (bytes of torch's allocator) and a CPU (resident memory of this process, limits of its control
group). Which segments then form a batch is batching.py's work; reading the device is the backend's.

Sources: why prediction and not retry alone, reference figures of FunASR's own batching (funasr issues #1641, #742).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from app.asr.host import cpu_features, cpu_grant, memory_grant, peak_rss_bytes, peak_rss_during, rss_bytes

MIB = 1 << 20
# Kept free of a device for what other programs, and the driver, need in between: of a GPU and of a host.
GPU_RESERVE_BYTES, HOST_RESERVE_BYTES = 64 * MIB, 64 * MIB
# Without a limit by the user, batches take no more than this beside the weights: more gains little speed.
WORKING_BYTES = 120 * MIB
# Two and more segments side by side on a CPU take no more than this beside the weights: four of 15 s fit. One alone may
# take what there is.
SIDE_BY_SIDE_BYTES = 256 * MIB
# Probe batches, (rows, frames). A backend that takes one segment at a time gets three lengths.
PROBES = ((1, 128), (1, 640), (5, 128))
PROBES_OF_ONE = ((1, 64), (1, 192), (1, 320))
PROBE_HOTWORDS = 200
# Backends round the frames of a batch up to a multiple of this (torch_backend.py), so predictions do too.
FRAME_MULTIPLE = 8
CACHE_VARIABLE = "ASR_CACHE_DIR"
_CACHE_FILE = "memory.json"
# A frame's features alone: 560 float32. Resident memory may show less, when a batch finds room that another one left;
# a cost that does not grow would make halving a batch that failed do nothing.
_LEAST_PER_FRAME = 560 * 4.0
# After a batch did not fit, predictions count more; with each batch that fits they lose this share of it again.
_DISTRUST, _RECOVERY = 1.25, 0.995


@dataclass(frozen=True)
class BatchShape:
    """Size of a batch: segments, frames of the longest, hot words (0: none)."""

    rows: int
    frames: int
    hotwords: int = 0


class DeviceMemory(Protocol):
    """Readings of a device, in bytes."""

    def held(self) -> int:
        """What this process holds there now: weights, and what a batch in flight takes."""
        ...

    def available(self) -> int:
        """What it could still take."""
        ...

    def peak_of(self, work: Callable[[], None]) -> int:
        """The most that `work` took at once, beside what was held before."""
        ...

    def peak(self) -> int:
        """The most that this process has held at once so far."""
        ...

    def identity(self) -> str:
        """What a measurement is valid for: the device and the software that drives it."""
        ...


class Probed(Protocol):
    """What calibration needs of a backend."""

    def encode_hotwords(self, words: Sequence[Sequence[int]]) -> Any: ...

    def recognise(self, batch: Sequence[NDArray[np.float32]], hotwords: Any) -> object: ...


@dataclass(frozen=True)
class CostModel:
    """Bytes a batch takes beside the weights: a sum of what does not depend on it, and of what grows with it."""

    fixed: float
    per_frame: float
    per_frame_squared: float = 0.0
    per_hotword_frame: float = 0.0
    per_row: float = 0.0

    @property
    def least(self) -> float:
        """What even the smallest batch takes."""
        return self.fixed + self.per_row

    def bytes(self, shape: BatchShape) -> int:
        """Prediction for one batch."""
        frames = -(-shape.frames // FRAME_MULTIPLE) * FRAME_MULTIPLE
        padded = shape.rows * frames
        cost = (
            self.fixed
            + shape.rows * self.per_row
            + padded * (self.per_frame + self.per_frame_squared * frames)
        )
        return int(cost + self.per_hotword_frame * padded * shape.hotwords)

    def longest(self, budget: int, hotwords: int = 0, *, at_most: int = 1 << 20) -> int:
        """The most frames that a single segment may have within `budget`; 0 if none fits."""
        low, high = 0, at_most
        while low < high:
            middle = (low + high + 1) // 2
            if self.bytes(BatchShape(1, middle, hotwords)) <= budget:
                low = middle
            else:
                high = middle - 1
        return low


def calibrate(measure: Callable[[BatchShape], int], *, one_at_a_time: bool, with_hotwords: bool) -> CostModel:
    """A cost model from three probe batches, and a fourth for hot words.

    Args:
        measure: runs a batch of a shape; gives the bytes it took.
    """
    probes = [BatchShape(rows, frames) for rows, frames in (PROBES_OF_ONE if one_at_a_time else PROBES)]
    measure(probes[0])  # what is set up once, on the first batch, is not the cost of a batch
    costs = np.array([float(measure(shape)) for shape in probes])
    cost = _fit(probes, costs)
    if one_at_a_time:  # its segments share nothing, so that each takes what one alone takes
        cost = replace(cost, fixed=0.0, per_row=cost.fixed)
    if not with_hotwords:
        return cost
    shape = BatchShape(1, PROBES[1][1], PROBE_HOTWORDS)
    measure(replace(shape, frames=PROBES[0][1]))
    more = measure(shape) - cost.bytes(replace(shape, hotwords=0))
    return replace(cost, per_hotword_frame=max(0.0, more / (shape.rows * shape.frames * shape.hotwords)))


def _fit(probes: Sequence[BatchShape], costs: NDArray[np.float64]) -> CostModel:
    """The model through the measurements; terms that would be negative are left out."""
    terms = np.array([[1.0, p.rows * p.frames, p.rows * p.frames**2] for p in probes])
    for kept in ((0, 1, 2), (0, 1), (1,)):
        columns = list(kept)
        found, *_ = np.linalg.lstsq(terms[:, columns], costs, rcond=None)
        values = dict(zip(columns, found.tolist(), strict=True))
        # Rounding of the allocator alone can make the quadratic term or the constant a little negative.
        if all(value >= 0.0 for value in values.values()):
            break
    per_frame = max(_LEAST_PER_FRAME, values[1])
    model = CostModel(values.get(0, 0.0), per_frame, max(0.0, values.get(2, 0.0)))
    # Never below what was seen.
    short = max(cost / max(1, model.bytes(probe)) for cost, probe in zip(costs.tolist(), probes, strict=True))
    if short <= 1.0:
        return model
    return CostModel(model.fixed * short, model.per_frame * short, model.per_frame_squared * short)


def probe_with(
    backend: Probed, memory: DeviceMemory, speech: NDArray[np.float32]
) -> Callable[[BatchShape], int]:
    """What `calibrate` measures with: batches of real speech, repeated to the length asked for.

    Speech, because noise gives more or fewer tokens, and tokens take memory too.
    """

    def measure(shape: BatchShape) -> int:
        repeats = -(-shape.frames // max(1, len(speech)))
        segment = np.concatenate([speech] * repeats)[: shape.frames]
        hotwords = backend.encode_hotwords([[3]] * (shape.hotwords - 1)) if shape.hotwords else None
        return memory.peak_of(lambda: _ignore(backend.recognise([segment] * shape.rows, hotwords)))

    return measure


def _ignore(_: object) -> None:
    """Results of a probe are thrown away at once."""


class MeasurementStore:
    """Cost models by what they are valid for, in one small file; losing it costs a second of measuring."""

    def __init__(self, directory: Path | None = None) -> None:
        self._path = (directory or cache_directory()) / _CACHE_FILE

    def get(self, key: str) -> CostModel | None:
        """The stored model, None when there is none (or the file cannot be read)."""
        try:
            return CostModel(**self._read()[key])
        except (KeyError, TypeError):
            return None

    def put(self, key: str, cost: CostModel) -> None:
        """Stores a model; a directory that cannot be written to is not an error."""
        entries = self._read() | {key: asdict(cost)}
        partial = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
            partial.replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                partial.unlink()

    def _read(self) -> dict[str, dict[str, float]]:
        try:
            entries = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return entries if isinstance(entries, dict) else {}


def cache_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Where measurements of this host are kept."""
    chosen = environment.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen)
    base = environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME") or "/tmp") / ".cache"  # noqa: S108
    return Path(base) / "seaco-speech"


class Budget:
    """How many bytes the next batch may take: read anew each time, since other programs come and go.

    Args:
        memory: the device.
        limit: bytes that this process may hold there in all, weights included; None: no such limit.
        working: bytes that a batch may take at most; None: as much as there is.
        reserve: bytes to leave free for others.
    """

    def __init__(self, memory: DeviceMemory, *, limit: int | None, working: int | None, reserve: int) -> None:
        self._memory, self._limit, self._working, self._reserve = memory, limit, working, reserve
        self._distrust = 1.0  # by how much predictions are too small, as far as failures have shown
        self._fixed = 0  # of a prediction, what no smaller batch would save

    def now(self) -> int:
        """Bytes for the next batch; 0 when there is no room at all."""
        room = self._room()
        return int(min(room, self._fixed) + max(0.0, room - self._fixed) / self._distrust)

    def _room(self) -> float:
        room: float = self._memory.available() - self._reserve
        if self._limit is not None:
            room = min(room, self._limit - self._memory.held())
        if self._working is not None:
            room = min(room, self._working)
        return max(0.0, room)

    def did_not_fit(self, predicted: int, fixed: int = 0) -> None:
        """A batch of this prediction, of which `fixed` bytes are for any batch, ran out of memory: the next ones are at
        most half as large."""
        self._fixed = fixed
        halved = 2 * (self._room() - fixed) / max(1, predicted - fixed)
        self._distrust = max(self._distrust * _DISTRUST, halved)

    def fitted(self) -> None:
        """A batch went well: after a failure, trust comes back step by step."""
        self._distrust = max(1.0, self._distrust * _RECOVERY)


class HostMemory:
    """A CPU as a device: this process's resident memory, and what the host or its control group can still give.

    Made when the weights are loaded: what the process has taken since then it can use again, as its libraries keep
    memory of earlier batches for later ones.
    """

    def __init__(self) -> None:
        self._loaded = rss_bytes()

    def held(self) -> int:
        return self._loaded

    def available(self) -> int:
        available = memory_grant().available
        return 1 << 50 if available is None else available + max(0, rss_bytes() - self._loaded)

    def peak_of(self, work: Callable[[], None]) -> int:
        return max(0, peak_rss_during(work) - self._loaded)

    def peak(self) -> int:
        return peak_rss_bytes()

    def identity(self) -> str:
        return f"cpu {cpu_features().model} {cpu_grant().cores} threads"

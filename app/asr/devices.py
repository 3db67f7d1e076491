"""Which device and precision a host should use, and why: rules only, nothing is touched or loaded here.

Facts about cards come as a `CudaReport` (torch_backend.cuda_report reads it), packs as the bytes of their weights.
The answer is a list of candidates, best first, each with its reason; opening.py tries them in that order, and a
candidate counts only when its self-check passes.

What decides (sources in docs/devices.md): compute capability against the architectures torch was built for, the
driver against torch's CUDA, whether float16 is worth having (none on Maxwell and Pascal, doubtful on the GTX 16
series), and free memory against weights plus a batch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.asr.engine import DEVICE
from app.asr.errors import DeviceError, InputError
from app.asr.memory import GPU_RESERVE_BYTES, MIB, WORKING_BYTES

PRECISIONS = ("fp32", "fp16", "int8")
FP16_STORAGE = "fp16 storage"
# On a CPU int8 is the fastest by far and the smallest; float16 is stored in half and computed in float32.
CPU_PREFERENCE = ("int8", "fp32", "fp16")
# The oldest Linux driver that runs programs built for a CUDA major version (NVIDIA, minor version compatibility).
OLDEST_DRIVER = {12: "525.60.13", 13: "580.65.06"}
# Bytes of a float network in memory against those of its fp32 weights: a few parts stay float32 in half (half.py).
_SHARE = {"fp32": 1.0, "fp16": 0.56, FP16_STORAGE: 0.56}
# Turing without tensor cores: float16 gave NaN there in cuDNN's convolutions (pytorch issue #58123).
_DOUBTFUL = re.compile(r"GTX 16\d\d|CMP 30HX|\bMX[45]50\b|\bT(400|500|550|600|1000|1200|2000)\b")


@dataclass(frozen=True)
class Card:
    """One CUDA device: memory in bytes, compute capability as (major, minor)."""

    index: int
    name: str
    capability: tuple[int, int]
    total: int
    free: int
    runnable: bool = True  # torch holds code for its architecture

    @property
    def doubtful_half(self) -> bool:
        """True where float16 must first prove itself."""
        return _DOUBTFUL.search(self.name) is not None

    @property
    def gains_from_half(self) -> bool:
        """True where float16 arithmetic is faster than float32: Volta (7.0) and later, and GP100 (6.0)."""
        return self.capability >= (7, 0) or self.capability == (6, 0)


@dataclass(frozen=True)
class CudaReport:
    """The cards there are; without any usable one, `problem` and `fix` say why and what to do."""

    cards: tuple[Card, ...] = ()
    problem: str = ""
    fix: str = ""


@dataclass(frozen=True)
class Candidate:
    """A way to run: the pack's precision, the precision to compute in, and why this one."""

    device: str
    precision: str
    pack: str
    reason: str


@dataclass(frozen=True)
class Wish:
    """What the user asked for."""

    device: str = "auto"
    precision: str = "auto"
    vram_limit: int | None = None


def cuda_problem(built_for: str | None, driver: str | None, torch: str) -> CudaReport:
    """Why torch sees no card.

    Args:
        built_for: torch's CUDA version ("12.6"), None for a build without.
        driver: version of the loaded NVIDIA driver, None without one.
        torch: torch's version.
    """
    if built_for is None:
        return CudaReport(
            problem=f"torch {torch} is built without CUDA",
            fix="Use one of the CUDA images, or the torch build of PyTorch's cu126 index.",
        )
    needed = OLDEST_DRIVER.get(int(built_for.partition(".")[0]), max(OLDEST_DRIVER.values()))
    if driver is None:
        return CudaReport(
            problem="no NVIDIA driver is loaded on this host",
            fix=f"Install driver {needed} or newer (a container needs the GPU passed to it: --gpus all).",
        )
    if _number(driver) < _number(needed):
        return CudaReport(
            problem=f"the NVIDIA driver is {driver}, and CUDA {built_for} needs {needed} or newer",
            fix=f"Install driver {needed} or newer, and start again.",
        )
    return CudaReport(
        problem=f"the NVIDIA driver {driver} is loaded, but shows this process no GPU",
        fix="Pass the GPU to the container (--gpus all), and check CUDA_VISIBLE_DEVICES and `nvidia-smi`.",
    )


def covered(capability: tuple[int, int], architectures: Sequence[str]) -> bool:
    """Whether code for these architectures ("sm_86", "compute_90") runs on a card: the same major version and a minor
    one that is not higher, or intermediate code of any lower version."""
    for name in architectures:
        kind, _, digits = name.partition("_")
        if not digits[:-1].isdigit() or not digits[-1:].isdigit():
            continue
        major, minor = int(digits[:-1]), int(digits[-1])
        if kind == "sm" and major == capability[0] and minor <= capability[1]:
            return True
        if kind == "compute" and (major, minor) <= capability:
            return True
    return False


def candidates(wish: Wish, report: CudaReport, packs: Mapping[str, int]) -> tuple[list[Candidate], list[str]]:
    """Ways to run, best first, and why others were left out.

    Args:
        packs: bytes of the weights by the pack's precision.

    Raises:
        InputError: the wish contradicts itself.
        DeviceError: a device was asked for that is not there or cannot do it.
    """
    if not DEVICE.fullmatch(wish.device):
        raise InputError(f"the device {wish.device!r} is not known", fix="Use auto, cpu, cuda or cuda:N.")
    if wish.device == "cpu":
        return _on_cpu(wish, packs, "it was asked for"), []
    if wish.device.startswith("cuda") and wish.precision == "int8":
        raise InputError(
            "int8 runs on the CPU only", fix="Use --device cpu, or --precision fp16 or fp32 on the GPU."
        )
    found, left_out = _on_gpu(wish, report, packs)
    if wish.device == "auto":
        found += _on_cpu(wish, packs, "; ".join(left_out) or "should the GPU fail")
    if not found and wish.device != "auto":
        fix = report.fix or "Use --device auto, which goes on with the CPU, or make an fp16 pack."
        raise DeviceError(f"{wish.device} cannot be used: {'; '.join(left_out)}", fix=fix)
    return found, left_out


def _on_cpu(wish: Wish, packs: Mapping[str, int], reason: str) -> list[Candidate]:
    order = CPU_PREFERENCE if wish.precision == "auto" else (wish.precision,)
    return [
        Candidate("cpu", FP16_STORAGE if name == "fp16" else name, name, reason)
        for name in order
        if name in packs
    ]


def _on_gpu(wish: Wish, report: CudaReport, packs: Mapping[str, int]) -> tuple[list[Candidate], list[str]]:
    if wish.precision == "int8":
        return [], ["int8 runs on the CPU only"]
    if not report.cards:
        return [], [report.problem]
    card = _card(wish.device, report.cards)
    device = f"cuda:{card.index}"
    if not card.runnable:
        shown = ".".join(map(str, card.capability))
        return [], [f"{card.name} has compute capability {shown}, and this torch holds no code for it"]
    if not {"fp32", "fp16"} & set(packs):
        return [], [
            f"{device} needs an fp16 or fp32 pack, and there is {' and '.join(sorted(packs)) or 'none'}"
        ]
    found: list[Candidate] = []
    left_out: list[str] = []
    for precision, why in _precisions(card, wish.precision):
        pack, weights = _weights(precision, packs)
        needed = weights + WORKING_BYTES // 2 + GPU_RESERVE_BYTES
        room = card.free if wish.vram_limit is None else min(card.free, wish.vram_limit + GPU_RESERVE_BYTES)
        if needed > room:
            bound = "may be used" if room < card.free else "are free"
            left_out.append(
                f"{precision} needs {needed // MIB} MiB on {device}, and {room // MIB} MiB {bound} there"
            )
            continue
        found.append(Candidate(device, precision, pack, f"{card.name}: {why}"))
    return found, left_out


def _card(device: str, cards: Sequence[Card]) -> Card:
    if ":" not in device:
        # The most free memory among those that can run it.
        return max(cards, key=lambda card: (card.runnable, card.free, -card.index))
    wanted = int(device.partition(":")[2])
    for card in cards:
        if card.index == wanted:
            return card
    there = ", ".join(f"cuda:{card.index} ({card.name})" for card in cards)
    raise DeviceError(f"there is no {device} on this host, only {there}", fix="Choose one of these.")


def _precisions(card: Card, wanted: str) -> list[tuple[str, str]]:
    """Precisions worth trying on a card, best first, with the reason."""
    if wanted == "fp32":
        return [("fp32", "fp32 was asked for")]
    if wanted == "fp16":
        return [
            ("fp16", "fp16 was asked for"),
            (FP16_STORAGE, "fp16 weights, as its arithmetic failed the check"),
        ]
    if card.doubtful_half:
        return [
            ("fp16", "fp16 has proved itself on this card, whose series often computes NaN in it"),
            ("fp32", "fp16 is not reliable on this series"),
            (FP16_STORAGE, "fp32 does not fit; weights in fp16, computed in fp32"),
        ]
    if not card.gains_from_half:
        return [
            ("fp32", "this generation gains nothing from fp16"),
            (FP16_STORAGE, "fp32 does not fit; weights in fp16, computed in fp32"),
        ]
    return [
        ("fp16", "fp16 is fast here and takes half the memory"),
        ("fp32", "fp16 failed the check"),
        (FP16_STORAGE, "fp32 does not fit; weights in fp16, computed in fp32"),
    ]


def _weights(precision: str, packs: Mapping[str, int]) -> tuple[str, int]:
    """The pack to take for a precision, and the bytes its network will hold."""
    first = "fp32" if precision == "fp32" else "fp16"
    pack = first if first in packs else ("fp32" if first == "fp16" else "fp16")
    full = packs[pack] if pack == "fp32" else packs[pack] / _SHARE["fp16"]
    return pack, int(full * _SHARE[precision])


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))

"""Which device and precision a host gets, and the sentences that say why."""

from __future__ import annotations

import pytest

from app.asr.devices import (
    FP16_STORAGE,
    Candidate,
    Card,
    CudaReport,
    Wish,
    candidates,
    covered,
    cuda_problem,
)
from app.asr.errors import DeviceError, InputError

MIB = 1 << 20
FULL = {"fp32": 944 * MIB, "fp16": 509 * MIB, "int8": 300 * MIB}


def _card(name: str, capability: tuple[int, int], free: int, index: int = 0, runnable: bool = True) -> Card:
    return Card(index, name, capability, 2 * free, free * MIB, runnable)


def _ways(
    card: Card | None, wish: Wish | None = None, packs: dict[str, int] | None = None
) -> list[tuple[str, str]]:
    report = CudaReport((card,)) if card else CudaReport(problem="there is no GPU here", fix="Buy one.")
    found, _ = candidates(wish or Wish(), report, packs or FULL)
    return [(candidate.device, candidate.precision) for candidate in found]


CPU = [("cpu", "int8"), ("cpu", "fp32"), ("cpu", FP16_STORAGE)]
GPU16, GPU32, GPU_STORAGE = ("cuda:0", "fp16"), ("cuda:0", "fp32"), ("cuda:0", FP16_STORAGE)


@pytest.mark.parametrize(
    ("card", "ways"),
    [
        (_card("NVIDIA GeForce RTX 3050 Laptop GPU", (8, 6), 3700), [GPU16, GPU32, GPU_STORAGE]),
        (_card("NVIDIA GeForce RTX 4050 Laptop GPU", (8, 9), 5700), [GPU16, GPU32, GPU_STORAGE]),
        (_card("Tesla V100-SXM2-16GB", (7, 0), 15000), [GPU16, GPU32, GPU_STORAGE]),
        (_card("NVIDIA GeForce GTX 1650", (7, 5), 3600), [GPU16, GPU32, GPU_STORAGE]),
        (_card("NVIDIA GeForce GTX 1050 Ti", (6, 1), 3700), [GPU32, GPU_STORAGE]),
        (_card("NVIDIA GeForce GTX 960", (5, 2), 1700), [GPU32, GPU_STORAGE]),
        # 2 GB with a desktop on it: float32 does not fit, its weights in half do.
        (_card("NVIDIA GeForce MX150", (6, 1), 900), [GPU_STORAGE]),
        (_card("NVIDIA GeForce RTX 3050 Laptop GPU", (8, 6), 800), [GPU16, GPU_STORAGE]),
        (_card("NVIDIA GeForce GT 730", (3, 5), 1900, runnable=False), []),
        (_card("NVIDIA GeForce RTX 3050 Laptop GPU", (8, 6), 200), []),
        (None, []),
    ],
)
def test_ways_to_run_on_a_card(card: Card | None, ways: list[tuple[str, str]]) -> None:
    assert _ways(card) == ways + CPU


@pytest.mark.parametrize(
    "name",
    ["GTX 1660 SUPER", "MX450", "NVIDIA T600 Laptop GPU", "NVIDIA GeForce GTX 1650", "NVIDIA CMP 30HX"],
)
def test_turing_without_tensor_cores_must_prove_half(name: str) -> None:
    found, _ = candidates(Wish(), CudaReport((_card(name, (7, 5), 3000),)), FULL)
    assert "proved itself" in found[0].reason and "not reliable" in found[1].reason


@pytest.mark.parametrize("name", ["Tesla T4", "NVIDIA RTX T6000", "Quadro RTX 4000"])
def test_turing_with_tensor_cores_is_not_doubted(name: str) -> None:
    assert not _card(name, (7, 5), 3000).doubtful_half


def test_what_is_asked_for_is_done_or_refused() -> None:
    card = _card("NVIDIA GeForce RTX 3050", (8, 6), 5000)
    assert _ways(card, Wish(device="cuda")) == [GPU16, GPU32, GPU_STORAGE]
    assert _ways(card, Wish(device="cpu")) == CPU
    assert _ways(card, Wish(device="cpu", precision="fp32")) == [("cpu", "fp32")]
    assert _ways(card, Wish(device="cuda:0", precision="fp32")) == [GPU32]
    assert _ways(card, Wish(precision="fp16")) == [GPU16, GPU_STORAGE, ("cpu", FP16_STORAGE)]
    assert _ways(card, Wish(precision="int8")) == [("cpu", "int8")]
    with pytest.raises(InputError, match="int8 runs on the CPU only"):
        candidates(Wish(device="cuda", precision="int8"), CudaReport((card,)), FULL)
    with pytest.raises(DeviceError, match="no cuda:3 on this host, only cuda:0"):
        candidates(Wish(device="cuda:3"), CudaReport((card,)), FULL)
    with pytest.raises(InputError, match="not known"):
        candidates(Wish(device="tpu"), CudaReport(), FULL)


def test_a_limit_below_the_weights_is_said_with_both_numbers() -> None:
    report = CudaReport((_card("NVIDIA GeForce RTX 3050", (8, 6), 5000),))
    with pytest.raises(DeviceError, match=r"fp16 needs \d+ MiB on cuda:0, and 164 MiB may be used"):
        candidates(Wish(device="cuda", vram_limit=100 * MIB), report, FULL)
    found, left_out = candidates(Wish(vram_limit=100 * MIB), report, FULL)
    assert [way.device for way in found] == ["cpu"] * 3
    assert len(left_out) == 3 and left_out[0] in found[0].reason


def test_a_gpu_needs_float_weights() -> None:
    report = CudaReport((_card("NVIDIA GeForce RTX 3050", (8, 6), 5000),))
    found, left_out = candidates(Wish(), report, {"int8": 300 * MIB})
    assert [(way.device, way.precision) for way in found] == [("cpu", "int8")]
    assert left_out == ["cuda:0 needs an fp16 or fp32 pack, and there is int8"]
    with pytest.raises(DeviceError, match="needs an fp16 or fp32 pack"):
        candidates(Wish(device="cuda"), report, {"int8": 300 * MIB})


def test_one_pack_serves_the_other_precision_too() -> None:
    report = CudaReport((_card("NVIDIA GeForce RTX 3050", (8, 6), 5000),))
    for only in ("fp32", "fp16"):
        found, _ = candidates(Wish(device="cuda"), report, {only: FULL[only]})
        assert {way.pack for way in found} == {only}
        assert [way.precision for way in found] == ["fp16", "fp32", FP16_STORAGE]


def test_of_several_cards_the_one_with_most_free_memory_that_can_run_it() -> None:
    cards = (
        _card("NVIDIA GeForce GT 710", (3, 5), 9000, 0, runnable=False),
        _card("NVIDIA GeForce RTX 3050", (8, 6), 2000, 1),
        _card("NVIDIA GeForce RTX 3050", (8, 6), 4000, 2),
    )
    found, _ = candidates(Wish(), CudaReport(cards), FULL)
    assert found[0].device == "cuda:2"
    found, _ = candidates(Wish(device="cuda:1"), CudaReport(cards), FULL)
    assert found[0].device == "cuda:1"
    with pytest.raises(DeviceError, match=r"compute capability 3\.5"):
        candidates(Wish(device="cuda:0"), CudaReport(cards), FULL)


@pytest.mark.parametrize(
    ("built_for", "driver", "problem", "fix"),
    [
        (None, "535.1", "torch 2.13.0 is built without CUDA", "cu126"),
        ("12.6", None, "no NVIDIA driver is loaded", "Install driver 525.60.13 or newer"),
        ("12.6", "470.256.02", "the NVIDIA driver is 470.256.02, and CUDA 12.6 needs 525.60.13", "525.60.13"),
        ("13.0", "550.163.01", "the NVIDIA driver is 550.163.01, and CUDA 13.0 needs 580.65.06", "580.65.06"),
        ("12.6", "535.247.01", "is loaded, but shows this process no GPU", "--gpus all"),
        ("14.1", "535.247.01", "CUDA 14.1 needs 580.65.06", "580.65.06"),
    ],
)
def test_why_torch_sees_no_card(built_for: str | None, driver: str | None, problem: str, fix: str) -> None:
    report = cuda_problem(built_for, driver, "2.13.0")
    assert not report.cards and problem in report.problem and fix in report.fix
    with pytest.raises(DeviceError) as raised:
        candidates(Wish(device="cuda"), report, FULL)
    assert problem in raised.value.problem and raised.value.fix == report.fix
    found, _ = candidates(Wish(), report, FULL)
    assert found[0] == Candidate("cpu", "int8", "int8", report.problem)


def test_which_cards_torch_holds_code_for() -> None:
    cu126 = ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"]
    for capability in ((5, 0), (5, 2), (6, 1), (7, 5), (8, 6), (8, 9), (9, 0)):
        assert covered(capability, cu126)
    for capability in ((3, 5), (12, 0)):
        assert not covered(capability, cu126)
    assert not covered((6, 1), ["sm_75", "sm_80"])
    assert not covered((8, 0), ["sm_86"])
    assert covered((12, 0), ["sm_90", "compute_90"]), "intermediate code is translated by the driver"
    assert not covered((8, 6), ["compute_90", "nonsense", "sm_"])

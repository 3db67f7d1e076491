"""A device that fails at every call the torch engine makes to it: each failure has its name, none is a traceback.

The calls are found, not listed: those on tensors by running the backend once and noting where it calls torch, those on
the device (torch.cuda) by reading the source. A new call without a name for its failures fails these tests. The device
is the CPU; what a card does is in tests/gpu.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="the network needs torch; serving on a CPU does not")

from torch.overrides import TorchFunctionMode  # noqa: E402

from app.asr import torch_backend  # noqa: E402
from app.asr.audio import Frontend  # noqa: E402
from app.asr.backend import HOTWORD_FILTER  # noqa: E402
from app.asr.catalogue import DEMO_PACKS  # noqa: E402
from app.asr.errors import DeviceLostError, DeviceMemoryError  # noqa: E402
from app.asr.pack import Pack  # noqa: E402
from app.asr.torch_backend import CudaMemory, TorchBackend  # noqa: E402
from tests.support.heldout import heldout  # noqa: E402

ENGINE = Path(torch_backend.__file__).parent
Site = tuple[str, int]  # file, line
FAILURES = {
    "memory": (
        lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB"),
        DeviceMemoryError,
    ),
    "lost": (lambda: torch.AcceleratorError("CUDA error: unspecified launch failure"), DeviceLostError),
}
# What asks no device for anything.
ON_THE_HOST = {
    "device",
    "set_num_threads",
    "__get__",
    "detach",
    "numel",
    "element_size",
    "data_ptr",
    "size",
    "dim",
    "__len__",
    "__repr__",
}
WORDS = [[3 + number % 200, 5] for number in range(HOTWORD_FILTER + 5)]  # so many that they are filtered


class FailingTorch(TorchFunctionMode):
    """Notes from where in the engine torch is called, and raises at the first call from `place`."""

    def __init__(self, place: Site | None = None, failure: Callable[[], Exception] = RuntimeError) -> None:
        super().__init__()
        self._place, self._failure = place, failure
        self.seen: dict[Site, str] = {}

    def __torch_function__(
        self,
        function: Any,
        types: Any,
        arguments: Sequence[Any] = (),
        options: Mapping[str, Any] | None = None,
    ) -> Any:
        name = getattr(function, "__name__", repr(function))
        if name not in ON_THE_HOST:
            site = _site()
            self.seen.setdefault(site, name)
            if site == self._place:
                self._place = None
                raise self._failure()
        return function(*arguments, **(options or {}))


def _site() -> Site:
    """Where in the engine the call under way comes from."""
    frame = sys._getframe(2)
    while frame.f_back is not None and Path(frame.f_code.co_filename).parent != ENGINE:
        frame = frame.f_back
    return Path(frame.f_code.co_filename).name, frame.f_lineno


@pytest.fixture(scope="module")
def pack() -> Pack:
    return Pack.open(DEMO_PACKS / "fp16")


@pytest.fixture(scope="module")
def clips(pack: Pack) -> list[NDArray[np.float32]]:
    frontend = Frontend(pack.frontend)
    return [frontend.features(utterance.samples) for utterance in heldout("rare")[:2]]


@pytest.mark.parametrize("kind", FAILURES)
@pytest.mark.parametrize("phase", ["load", "encode_hotwords", "recognise"])
def test_every_call_on_a_tensor_may_fail(
    pack: Pack, clips: list[NDArray[np.float32]], phase: str, kind: str
) -> None:
    failure, named = FAILURES[kind]
    backend = TorchBackend(pack, precision="fp16")
    encoded = backend.encode_hotwords(WORDS)
    wanted = [result.ids.tolist() for result in backend.recognise(clips, encoded)]
    work: Callable[[], object] = {
        "load": lambda: TorchBackend(pack, precision="fp16"),
        "encode_hotwords": lambda: backend.encode_hotwords(WORDS),
        "recognise": lambda: backend.recognise(clips, encoded),
    }[phase]
    with FailingTorch() as calm:
        work()
    assert len(calm.seen) >= 5
    wrong = []
    for place, called in calm.seen.items():
        try:
            with FailingTorch(place, failure):
                work()
        except named:
            continue
        except Exception as error:  # noqa: BLE001 - told
            wrong.append(f"{place}, {called}: {error!r}")
        else:
            wrong.append(f"{place}, {called}: the failure was swallowed")
    assert wrong == []
    assert [result.ids.tolist() for result in backend.recognise(clips, encoded)] == wanted


def _cuda_calls(tree: ast.AST) -> set[str]:
    """Names of what is called in torch.cuda."""
    return {
        node.func.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and ast.unparse(node.func.value) == "torch.cuda"
    }


def _questions() -> dict[str, Callable[[], object]]:
    """Everything that is asked of a device without a batch."""
    memory = CudaMemory(torch.device("cuda:0"))
    backend = object.__new__(TorchBackend)
    backend.device, backend._device = "cuda:0", torch.device("cuda:0")
    methods = [
        name for name, _ in inspect.getmembers(CudaMemory, inspect.isfunction) if not name.startswith("_")
    ]
    asked = {name: getattr(memory, name) for name in methods if name != "peak_of"}
    return {**asked, "peak_of": lambda: memory.peak_of(lambda: None), "release": backend.release}


class FakeCuda:
    """Stands for torch.cuda: every function answers 0 or a pair, `failing` raises."""

    def __init__(self, failing: str = "", failure: Callable[[], Exception] = RuntimeError) -> None:
        self._failing, self._failure = failing, failure
        self.called: set[str] = set()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*_: object) -> Any:
            self.called.add(name)
            if name == self._failing:
                raise self._failure()
            return (0, 0) if name == "mem_get_info" else FakeCard() if name == "get_device_properties" else 0

        return call


class FakeCard:
    """Properties of a card that is not there."""

    name, uuid = "a card", "a number"
    major, minor, total_memory = 8, 0, 1 << 30


@pytest.mark.parametrize("kind", FAILURES)
def test_every_question_to_a_card_may_fail(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    failure, named = FAILURES[kind]
    inside = _cuda_calls(ast.parse(inspect.getsource(torch_backend)))
    at_the_start = _cuda_calls(ast.parse(inspect.getsource(torch_backend.cuda_report)))
    questions, reached = _questions(), set()
    for ask in questions.values():
        calm = FakeCuda()
        monkeypatch.setattr(torch, "cuda", calm)
        ask()
        reached |= calm.called
        for name in calm.called:
            monkeypatch.setattr(torch, "cuda", FakeCuda(name, failure))
            with pytest.raises(named):
                ask()
    assert inside - at_the_start <= reached, "a call to torch.cuda that this test does not reach"


def test_looking_for_cards_tells_of_one_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever fails then is a reason to use the CPU, and no end of the program."""
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    working = {"is_available": lambda: True, "get_arch_list": lambda: ["sm_80"], "device_count": lambda: 1}
    names = _cuda_calls(ast.parse(inspect.getsource(torch_backend.cuda_report))) - {"is_available"}
    assert names
    for name in names:
        fake = FakeCuda(name, FAILURES["lost"][0])
        vars(fake).update({other: answer for other, answer in working.items() if other != name})
        monkeypatch.setattr(torch, "cuda", fake)
        assert "unspecified launch failure" in torch_backend.cuda_report().problem, name

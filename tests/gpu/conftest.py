"""Everything in this folder is marked gpu: only `make test-gpu` runs it. Without a CUDA device all of it skips, with
one reason; with ASR_GPU_REHEARSAL=cpu the CPU stands for it.

Here: the device, and the models that several modules use. The full-size one is that of the benchmark.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from app.asr.catalogue import DEMO_PACKS
from scripts.bench.gpu_materials import Materials
from scripts.bench.measure import BenchError
from tests.support.device import CHOSEN, REHEARSED, ROOT, Device, find_device
from tests.support.heldout import read_samples

HERE = Path(__file__).resolve().parent
NO_STATISTICS = "needs the statistics of a CUDA device; this is a rehearsal on the CPU"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(scope="session")
def found_device() -> Device:
    return find_device()


@pytest.fixture(scope="session")
def device(found_device: Device) -> Device:
    """What the tests run on."""
    if not found_device.name:
        pytest.skip(f"no CUDA device: {found_device.problem}")
    return found_device


@pytest.fixture(scope="session")
def cuda(device: Device) -> Device:
    """The same, for tests that a rehearsal cannot run."""
    if not device.cuda:
        pytest.skip(NO_STATISTICS)
    return device


@pytest.fixture(autouse=True)
def same_card(clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that a test starts see the cards that the tests see."""
    for name, value in CHOSEN.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def demo() -> Path:
    return DEMO_PACKS / "fp16"


@pytest.fixture(scope="session")
def materials(device: Device) -> Materials:
    """A random checkpoint of full size (in a rehearsal a tiny one), and packs of it."""
    size = "tiny" if REHEARSED else "full"
    made = Materials(ROOT / "build" / "bench-gpu" / ("rehearsal" if REHEARSED else "full"), size)
    there = (made.checkpoint / "model.pt").exists()
    if not there and importlib.util.find_spec("funasr") is None:
        pytest.skip("the full-size checkpoint is made with funasr, which is not installed here")
    try:
        made.make_model()
    except BenchError as error:
        pytest.fail(f"the full-size model could not be made: {error}")
    return made


@pytest.fixture(scope="session")
def meeting() -> NDArray[np.float32]:
    """The shipped recording of a meeting, 16 kHz mono."""
    return read_samples(ROOT / "app" / "demo" / "recordings" / "meeting.ogg")

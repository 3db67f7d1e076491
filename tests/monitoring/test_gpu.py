"""GPUs through the real process and the real pynvml, with a stand-in for NVML below them (tests/fakes/nvml)."""

from __future__ import annotations

from pathlib import Path

import pytest

from monitoring.exporter.collector import Collector, Source
from monitoring.exporter.errors import NvmlError, ReadingError
from monitoring.exporter.gpu import GpuReading, GpuWatch, has_nvidia
from monitoring.exporter.nvml_client import Patience
from monitoring.exporter.render import render
from tests.fakes.kernel import FakeKernel, container_id
from tests.monitoring.conftest import Card
from tests.support.nvml import CAPTURE_NAMES, capture
from tests.support.page import samples

FIRST = "GPU-11111111-2060-4000-8000-000000000001"
SECOND = "GPU-22222222-2080-4000-8000-000000000002"
MIB = 1 << 20


def watch_of(card: Card, root: Path) -> GpuWatch:
    return GpuWatch(root, card.client, {container_id("asr"): "asr"}.get, "on")


def page_of(watch: GpuWatch, *, each_process: bool = False) -> dict[str, float]:
    sources = [Source("gpu", watch.read), Source("gpu_processes", watch.read_processes)]
    return samples(render(Collector(sources, 60.0).collect(), each_process=each_process))


@pytest.mark.parametrize("name", CAPTURE_NAMES)
def test_every_capture_gives_what_is_recorded(card: Card, tmp_path: Path, name: str) -> None:
    """The expected pages lie beside the captures; read the difference before writing them anew."""
    card.says(capture(name))
    kernel = FakeKernel(tmp_path / "root")
    kernel.process(4711, "python3", "asr")
    kernel.process(4712, "python3", "unnamed")
    kernel.process(31, "python3", None)
    page = page_of(watch_of(card, kernel.root), each_process=True)
    told = "".join(f"{name} {value:.12g}\n" for name, value in page.items() if name.startswith("asr_gpu"))
    expected = Path(__file__).parents[1] / "captures" / "nvml" / f"{name}.metrics"
    assert told == expected.read_text(encoding="utf-8")


def test_memory_adds_up_and_the_drivers_share_is_apart(card: Card, tmp_path: Path) -> None:
    card.says(capture("two-cards"))
    reading = watch_of(card, tmp_path).read()
    for gpu in reading.gpus:
        assert gpu.memory["total"] == gpu.memory["used"] + gpu.memory["free"] + gpu.memory["reserved"]
    assert reading.gpus[1].memory["reserved"] == 427_819_008


def test_the_first_memory_call_where_the_second_fails(card: Card, tmp_path: Path) -> None:
    card.says(capture("wsl"))
    (gpu,) = watch_of(card, tmp_path).read().gpus
    assert "reserved" not in gpu.memory
    assert gpu.memory["total"] == gpu.memory["used"] + gpu.memory["free"]


def test_what_is_not_offered_has_no_series(card: Card, tmp_path: Path) -> None:
    card.says(capture("wsl"))
    page = page_of(watch_of(card, tmp_path))
    absent = ("utilization", "power", "throttled", "ecc", "pcie_link", "reserved", "container_memory", "xid")
    assert not [name for name in page if any(f"asr_gpu_{word}" in name for word in absent)]
    assert page["asr_gpus"] == 1


def test_one_of_two_fails(card: Card, tmp_path: Path) -> None:
    card.says(capture("two-cards"))
    watch = watch_of(card, tmp_path)
    whole = page_of(watch)
    card.says(capture("two-cards").replace("uuid GPU-2", "error 15\nuuid GPU-2"))
    page = page_of(watch)
    assert page["asr_gpus"] == 1
    assert page['asr_gpu_up{index="0"}'] == 1
    assert page['asr_gpu_up{index="1"}'] == 0
    assert page['asr_exporter_collector_success{collector="gpu"}'] == 1
    kept = {name: value for name, value in whole.items() if FIRST in name}
    assert kept
    assert kept.items() <= page.items()
    assert not [name for name in page if SECOND in name]
    card.says(capture("two-cards"))
    assert page_of(watch)["asr_gpus"] == 2


def test_a_card_that_is_gone_lowers_the_count(card: Card, tmp_path: Path) -> None:
    card.says(capture("two-cards"))
    watch = watch_of(card, tmp_path)
    assert page_of(watch)["asr_gpus"] == 2
    card.says(capture("two-cards").rpartition("gpu\n")[0])
    page = page_of(watch)
    assert page["asr_gpus"] == 1
    assert 'asr_gpu_up{index="1"}' not in page


def test_none_answers_and_all_come_back(card: Card, tmp_path: Path) -> None:
    text = capture("gtx-1050")
    card.says(text.replace("gpu\n", "gpu\nerror 15\n"))
    watch = watch_of(card, tmp_path)
    page = page_of(watch)
    assert page['asr_gpu_nvml_error{error="no_gpu_answers"}'] == 1
    assert page['asr_exporter_collector_success{collector="gpu"}'] == 0
    assert "asr_gpus" not in page
    card.says(text)
    page = page_of(watch)
    assert page["asr_gpus"] == 1
    assert not [name for name in page if name.startswith("asr_gpu_nvml_error")]


def test_a_host_whose_cards_were_all_taken_out(card: Card, tmp_path: Path) -> None:
    page = page_of(watch_of(card, tmp_path))
    assert page["asr_gpus"] == 0


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("init_error 9", "driver_not_loaded"),
        ("init_error 18", "lib_rm_version_mismatch"),
        ("init_error 999", "other"),
        ("count_error 999", "other"),
        ("count_error 15", "gpu_is_lost"),
    ],
)
def test_errors_of_nvml_are_told_and_gone_when_they_are_gone(
    card: Card, tmp_path: Path, line: str, code: str
) -> None:
    card.says(f"{line}\n{capture('gtx-1050')}")
    watch = watch_of(card, tmp_path)
    page = page_of(watch)
    assert page[f'asr_gpu_nvml_error{{error="{code}"}}'] == 1
    assert not [name for name in page if name.startswith("asr_gpu_memory")]
    card.says(capture("gtx-1050"))
    assert page_of(watch)["asr_gpus"] == 1


def test_no_library(card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    with pytest.raises(NvmlError, match="Install the NVIDIA driver") as caught:
        watch_of(card, tmp_path).read()
    assert caught.value.code == "library_not_found"


@pytest.mark.parametrize("where", ["init", "memory"])
def test_a_driver_that_hangs(card: Card, tmp_path: Path, where: str) -> None:
    card.says(f"hang {where}\n{capture('gtx-1050')}")
    watch = watch_of(card, tmp_path)
    card.client._patience = Patience(answer=1.0, start=1.0, pause=0.0)
    with pytest.raises(NvmlError) as caught:
        watch.read()
    if caught.value.code == "starting":
        with pytest.raises(NvmlError) as caught:
            watch.read()
    assert caught.value.code == "hang"
    card.says(capture("gtx-1050"))
    card.client._patience = Patience(answer=30.0, start=60.0, pause=0.0)
    assert len(watch.read().gpus) == 1


@pytest.mark.parametrize("line", ["hang processes", "crash processes", "processes"])
def test_the_question_for_processes_alone_fails(card: Card, tmp_path: Path, line: str) -> None:
    """A list of processes that is not to be had must not look like an idle GPU, and costs nothing else."""
    text = capture("gtx-1050")
    card.says(f"{line}\n{text}" if " " in line else text.replace("gpu\n", "gpu\nprocesses_error 999\n"))
    watch = watch_of(card, tmp_path)
    card.client.start(60.0)
    if line.startswith("hang"):
        card.client._patience = Patience(answer=2.0, start=60.0, pause=600.0)
    with pytest.raises(ReadingError):
        watch.read_processes()
    card.client._patience = Patience(answer=30.0, start=60.0, pause=600.0)
    page = page_of(watch)
    assert page['asr_exporter_collector_success{collector="gpu"}'] == 1
    assert page['asr_exporter_collector_success{collector="gpu_processes"}'] == 0
    assert page["asr_gpus"] == 1
    assert not [name for name in page if name.startswith("asr_gpu_container")]


def test_memory_by_container(card: Card, tmp_path: Path) -> None:
    card.says(capture("two-cards"))
    kernel = FakeKernel(tmp_path / "root")
    kernel.process(4711, "python3", "asr")
    kernel.process(4712, "python3", "asr")
    kernel.process(900, "Xorg", None)
    page = page_of(watch_of(card, kernel.root))
    assert {name: value / MIB for name, value in page.items() if "container_memory" in name} == {
        f'asr_gpu_container_memory_used_bytes{{uuid="{FIRST}",container="asr"}}': 1536,
        f'asr_gpu_container_memory_used_bytes{{uuid="{FIRST}",container="(host)"}}': 100,
    }
    assert not [name for name in page if "process_memory" in name]


def test_processes_that_are_not_visible(card: Card, tmp_path: Path) -> None:
    """An exporter in a container of its own, without the host's processes."""
    card.says(capture("gtx-1050"))
    page = page_of(watch_of(card, tmp_path))
    assert [name for name in page if 'container="(unknown)"' in name]


def test_xid_errors_are_counted_once_each(card: Card, tmp_path: Path) -> None:
    card.says(capture("two-cards"))
    watch = watch_of(card, tmp_path)
    assert not watch.read().xids
    text = capture("two-cards")
    card.says(f"xid 0 31\nxid 1 79\nxid 0 31\n{text}")
    reading: GpuReading = watch.read()
    assert {key: count for key, (count, _) in reading.xids.items()} == {(FIRST, 31): 2, (SECOND, 79): 1}
    assert {key: count for key, (count, _) in watch.read().xids.items()} == {(FIRST, 31): 2, (SECOND, 79): 1}
    page = page_of(watch)
    assert page[f'asr_gpu_xid_errors_total{{uuid="{FIRST}",xid="31"}}'] == 2
    assert page[f'asr_gpu_xid_last_timestamp_seconds{{uuid="{SECOND}",xid="79"}}'] > 1_700_000_000


def test_where_gpus_are_looked_for(card: Card, tmp_path: Path) -> None:
    kernel = FakeKernel(tmp_path / "root")
    watch = GpuWatch(kernel.root, card.client, lambda _: None)
    assert not watch.offered()
    kernel.write("sys/bus/pci/devices/0000:01:00.1/vendor", "0x10de\n")
    kernel.write("sys/bus/pci/devices/0000:01:00.1/class", "0x040300\n")  # the card's sound
    assert not has_nvidia(kernel.root)
    kernel.write("sys/bus/pci/devices/0000:01:00.0/vendor", "0x10de\n")
    kernel.write("sys/bus/pci/devices/0000:01:00.0/class", "0x030200\n")
    assert has_nvidia(kernel.root)
    assert not watch.offered()  # looked a moment ago
    watch._looked = -1000.0
    assert watch.offered()
    for answer, wanted in ((True, "on"), (False, "off")):
        assert GpuWatch(tmp_path, card.client, lambda _: None, wanted).offered() is answer


@pytest.mark.parametrize("path", ["dev/nvidiactl", "dev/dxg", "proc/driver/nvidia/version"])
def test_a_driver_without_a_card_on_the_bus(tmp_path: Path, path: str) -> None:
    kernel = FakeKernel(tmp_path)
    kernel.write(path, "")
    assert has_nvidia(tmp_path)

"""images/variants.json: the shipped table is whole, one with a hole is refused with its place, the page is fresh."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts.picking.errors import InputError
from scripts.picking.fleet import USE
from scripts.picking.page import PAGE, page
from scripts.picking.table import load_table, table_of
from tests.support.hosts import TABLE, table_data

ROOT = Path(__file__).resolve().parents[3]


def test_the_page_is_as_new_as_the_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(TABLE), "run: python3 -m scripts.picking.page"


def test_every_field_is_missed_when_it_is_not_there() -> None:
    """A hole anywhere, down to the last field, is named with its path; nothing is filled in silently."""
    whole = table_data()
    holes = 0
    for path in _paths(whole):
        holed = copy.deepcopy(whole)
        inner = holed
        for step in path[:-1]:
            inner = inner[step]
        del inner[path[-1]]
        if _is_a_name_of_ones_own(path):
            continue
        with pytest.raises(InputError) as raised:
            table_of(holed)
        assert str(path[-1]) in raised.value.problem, path
        holes += 1
    assert holes > 150


def _is_a_name_of_ones_own(path: tuple[Any, ...]) -> bool:
    """Keys that the table chooses for itself; who names one that is gone is refused elsewhere."""
    return (path[0] in {"sources", "half"} and len(path) == 2) or "environment" in path[:-1]


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every field of every object."""
    found: list[tuple[Any, ...]] = []
    if isinstance(value, dict):
        for name, inner in value.items():
            found += [(*path, name), *_paths(inner, (*path, name))]
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            found += _paths(inner, (*path, index))
    return found


def _set(*path: Any, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: Any) -> None:
        for step in path[:-1]:
            data = data[step]
        data[path[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_set("schema", to=2), "has schema 2, and this program reads schema 1"),
        (
            _set("variants", 0, "wheels", to="cu999"),
            "variants[0].wheels is 'cu999', which is none of cpu, cu126",
        ),
        (_set("variants", 0, "wheels", to="cpu"), "names no wheels with CUDA"),
        (_set("variants", 0, "wheels", to=None), "names no wheels with CUDA"),
        (
            _set("variants", 0, "needs", "vram_mib", to=500),
            "cuda-fp16: needs.vram_mib is 500, but the memory plan",
        ),
        (_set("variants", 2, "needs", "ram_mib", to=500), "cpu: needs.ram_mib is 500"),
        (_set("variants", 0, "device", to="tpu"), "must be one of cuda, cpu"),
        (_set("variants", 0, "name", to="cpu"), "has cpu twice"),
        (_set("variants", 2, "device", to="cuda"), "names no wheels with CUDA"),
        (_set("wheels", 0, "index", to="NOWHERE"), "index is 'NOWHERE', which is none of BASE_IMAGE"),
        (_set("wheels", 1, "architectures", to=[]), "cu126 has CUDA, but no architectures"),
        (_set("wheels", 1, "architectures", 0, to="50"), 'must be an architecture such as "sm_86"'),
        (_set("wheels", 1, "minimum_driver", to=None), "no minimum_driver"),
        (_set("wheels", 1, "minimum_driver", "linux", to="new"), "must be a version"),
        (_set("architectures", 2, "half", to="fsat"), "half is 'fsat', which is none of none, slow"),
        (_set("architectures", 2, "modules", to=[]), "has no modules or no devices"),
        (_set("architectures", 2, "last_branch", to="58"), "must be a driver branch"),
        (_set("architectures", 2, "devices", 0, to="13bf-1340"), "has the range 13bf-1340"),
        (
            _set("architectures", 2, "devices", 0, to="1340-13c5"),
            "device 13c0 is both Maxwell 5.0 and Maxwell 5.2",
        ),
        (_set("architectures", 2, "devices", 0, to="1340"), "must be PCI device ids"),
        (_set("quirks", 0, "devices", to=["3ff0-3fff"]), "is of no generation"),
        (_set("quirks", 0, "half", to="x"), "half is 'x'"),
        (_set("memory", "context_mib", to=-1), "must be a whole number"),
        (_set("memory", "context_mib", to=True), "must be a whole number"),
        (_set("memory", "context_mib", to=321), "but the memory plan give"),
        (_set("memory", "limit_factor", to=float("nan")), "must be a number"),
        (_set("memory", "origin", to={}), "origin says nothing of context_mib"),
        (_set("speed", 0, "device", to="npu"), "must be one of cuda, cpu"),
        (_set("driver", "branch", to=580), "must be a driver branch"),
        (_set("surprise", to=1), "has surprise, which nothing reads"),
        (_set("variants", to={}), "must be a list"),
        (_set("sources", to=[]), "must be an object"),
    ],
)
def test_a_contradiction_is_named_with_its_place(
    change: Callable[[dict[str, Any]], None], problem: str
) -> None:
    data = table_data()
    change(data)
    with pytest.raises(InputError) as raised:
        table_of(data)
    assert problem in raised.value.problem and raised.value.fix


@pytest.mark.parametrize("count", [0, 2])
def test_there_is_exactly_one_variant_for_processors(count: int) -> None:
    data = table_data()
    last = data["variants"].pop()
    data["variants"] += [{**last, "name": f"cpu{number}"} for number in range(count)]
    with pytest.raises(InputError, match="exactly one variant with device cpu"):
        table_of(data)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "3", '"x"', "[" * 100_000])
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "variants.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(InputError):
        load_table(file)
    with pytest.raises(InputError, match="cannot be read"):
        load_table(tmp_path / "none.json")
    file.write_bytes(b"\xff\xfe{}")
    with pytest.raises(InputError, match="cannot be read"):
        load_table(file)


def test_what_is_known_of_device_ids() -> None:
    """Chips of pci.ids, the first and last of their kind, and their neighbours that are no such cards."""
    for device, generation, capability in [
        (0x128B, "Kepler", "3.x"),
        (0x0FC0, "Kepler", "3.x"),
        (0x1340, "Maxwell", "5.0"),
        (0x13C0, "Maxwell", "5.2"),
        (0x15F8, "Pascal", "6.0"),
        (0x1D56, "Pascal", "6.1"),
        (0x1DB6, "Volta", "7.0"),
        (0x1E02, "Turing", "7.5"),
        (0x1F76, "Turing", "7.5"),
        (0x1F81, "Turing without tensor cores", "7.5"),
        (0x1FF9, "Turing without tensor cores", "7.5"),
        (0x2182, "Turing without tensor cores", "7.5"),
        (0x21D1, "Turing without tensor cores", "7.5"),
        (0x20B5, "Ampere", "8.0"),
        (0x25FB, "Ampere", "8.6"),
        (0x28E1, "Ada", "8.9"),
        (0x2331, "Hopper", "9.0"),
        (0x2901, "Blackwell", "10.0"),
        (0x2D04, "Blackwell", "12.0"),
    ]:
        found = TABLE.generation(device, None)
        assert found is not None and (found.name, found.capability) == (generation, capability), hex(device)
    for audio in (0x0FBC, 0x10F1, 0x1AEB, 0x1AED, 0x228E, 0x22BA, 0x3FFF):
        assert TABLE.generation(audio, None) is None, hex(audio)


def test_what_the_driver_tells_wins_over_the_id() -> None:
    found = TABLE.generation(0x2D05, "8.9")
    assert found is not None and found.name == "Ada"
    for capability, name in [
        ("8.7", "Ampere"),
        ("12.1", "Blackwell"),
        ("7.5", "Turing without tensor cores"),
    ]:
        nearest = TABLE.generation(None, capability)
        assert nearest is not None and nearest.name == name
    orin = TABLE.generation(None, "8.7")
    assert orin is not None and orin.capability == "8.6", "the next lower one, not the lowest"
    kepler = TABLE.generation(0x128B, "3.5")
    assert kepler is not None and kepler.name == "Kepler"
    assert TABLE.generation(None, None) is None and TABLE.generation(0x2D05, "13.0") is None


def test_torch_in_the_table_is_the_one_that_is_tested() -> None:
    pinned = re.search(
        r"^torch=(\S+)\+cpu$", (ROOT / "scripts/make_venv.sh").read_text("utf-8"), re.MULTILINE
    )
    assert pinned is not None
    assert {one.torch.partition("+")[0] for one in TABLE.wheels} == {pinned.group(1)}
    assert all(one.torch.partition("+")[2] == one.name for one in TABLE.wheels)


def test_every_source_is_an_address_or_a_name_with_a_meaning() -> None:
    assert {one.index for one in TABLE.wheels} <= set(TABLE.sources)
    for name, row in TABLE.sources.items():
        assert re.fullmatch(r"[A-Z][A-Z0-9_]*", name) and row["meaning"]
        assert row["default"] or "empty:" in row["meaning"], f"{name}: what happens without it?"


def test_the_pages_give_the_figures_of_the_table() -> None:
    told = (ROOT / "docs/picking.md").read_text(encoding="utf-8")
    memory = TABLE.memory
    for figure in (
        f"{TABLE.cpu_variant.ram_mib + memory['system_ram_mib']} MiB of memory",
        f"({memory['context_mib']} MiB)",
        f"({memory['cuda_engine_ram_mib'] / 1024:g} GiB)",
        f"{USE:.0%}".replace("%", " %"),
    ):
        assert figure in told, figure
    shape = (ROOT / "images/README.md").read_text(encoding="utf-8")
    assert all(f"`{part}`" in shape for part in table_data())

"""images/variants.json as checked objects: variants, builds of torch, generations of cards, figures of memory.

Lives here: reading the table, finding its holes, and what can be read off it directly (which generation a PCI id is,
whether a build holds code for a card). Does not live here: which variant a host gets (cards.py, plan.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.picking.errors import InputError
from scripts.picking.shapes import check, read_json
from scripts.picking.table_shape import SCHEMA, SHAPE

PATH = Path(__file__).resolve().parent.parent.parent / "images" / "variants.json"


@dataclass(frozen=True)
class Wheels:
    """A build of torch: architectures as torch names them ("sm_86"), and the oldest driver per system."""

    name: str
    torch: str
    index: str
    cuda: str | None
    architectures: tuple[str, ...]
    minimum_driver: Mapping[str, str | None]

    def covers(self, capability: tuple[int, int]) -> bool:
        """Whether it holds code for a card: of the same major version and no higher minor, or code that the driver
        translates ("compute_..."), for this or any lower version."""
        for name in self.architectures:
            kind, _, digits = name.partition("_")
            built = int(digits[:-1]), int(digits[-1])
            if kind == "sm" and built[0] == capability[0] and built[1] <= capability[1]:
                return True
            if kind == "compute" and built <= capability:
                return True
        return False

    @property
    def span(self) -> str:
        """The capabilities it was built for, as a clause."""
        built = [name.partition("_")[2] for name in self.architectures]
        return ", ".join(dict.fromkeys(f"{digits[:-1]}.{digits[-1]}" for digits in built))


@dataclass(frozen=True)
class Variant:
    """An image: what it computes on and in, and what it needs in MiB."""

    name: str
    title: str
    wheels: Wheels | None
    device: str
    precision: str
    pack: str
    platforms: tuple[str, ...]
    environment: Mapping[str, str]
    vram_mib: int
    ram_mib: int
    disk_mib: int


@dataclass(frozen=True)
class Half:
    """How a kind of card is used: the precision to compute in, the setting that gives it, and why."""

    precision: str | None
    setting: str | None
    reason: str


@dataclass(frozen=True)
class Generation:
    """Cards of one compute capability that are driven and used alike."""

    name: str
    capability: str
    half: str
    modules: tuple[str, ...]
    first_branch: int | None
    last_branch: int | None
    devices: tuple[tuple[int, int], ...]

    @property
    def number(self) -> tuple[int, int]:
        """The compute capability as numbers; the lowest of a whole family."""
        return capability_of(self.capability) or (0, 0)

    def holds(self, device: int) -> bool:
        """Whether a PCI device id is one of them."""
        return any(first <= device <= last for first, last in self.devices)


@dataclass(frozen=True)
class Quirk:
    """Cards that differ from their generation in how half precision behaves."""

    name: str
    half: str
    reason: str
    devices: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Table:
    """The whole table. `memory` and `cpu` are as in the file; `sources` maps a variable to default and meaning."""

    sources: Mapping[str, Mapping[str, str]]
    wheels: tuple[Wheels, ...]
    variants: tuple[Variant, ...]
    memory: Mapping[str, Any]
    speed: tuple[Mapping[str, Any], ...]
    cpu: Mapping[str, Any]
    branch: int
    branch_reason: str
    generations: tuple[Generation, ...]
    quirks: tuple[Quirk, ...]
    halves: Mapping[str, Half]

    @property
    def cpu_variant(self) -> Variant:
        """The variant that needs no card."""
        return next(variant for variant in self.variants if variant.device == "cpu")

    def generation(self, device: int | None, capability: str | None) -> Generation | None:
        """The generation of a card by its PCI device id, else by its compute capability; None for an unknown one.

        Ids are given to new cards every month, so a capability that the driver tells wins over an id of another
        one. One that is not in the table counts as the next lower of its major version, which runs the same code.
        Of several generations with that capability the one used with most care is taken.
        """
        by_id = next((one for one in self.generations if device is not None and one.holds(device)), None)
        told = capability_of(capability)
        if told is None or (by_id is not None and capability_of(by_id.capability) == told):
            return by_id
        lower = [one for one in self.generations if _like(one, told)]
        # The nearest, and of those the careful ones first.
        lower.sort(key=lambda one: (-one.number[1], self.halves[one.half].precision == "fp16"))
        return next(iter(lower), None)

    def quirk(self, device: int | None) -> Quirk | None:
        """What is special about a card, by its PCI device id."""
        for one in self.quirks:
            if device is not None and any(first <= device <= last for first, last in one.devices):
                return one
        return None


def _like(one: Generation, told: tuple[int, int]) -> bool:
    return one.number[0] == told[0] and one.number[1] <= told[1]


def load_table(path: Path = PATH) -> Table:
    """Reads and checks the table.

    Raises:
        InputError: it cannot be read, or has a hole or a contradiction; the path to it is in the message.
    """
    return table_of(read_json(path, "the table of variants"))


def table_of(data: Any) -> Table:
    """The same, for data that were read already."""
    if isinstance(data, dict) and data.get("schema", SCHEMA) != SCHEMA:
        raise InputError(
            f"the table of variants has schema {data['schema']!r}, and this program reads schema {SCHEMA}",
            "Take program and table from one release.",
        )
    check(data, SHAPE, "variants.json")
    wheels = {row["name"]: _wheels(row) for row in data["wheels"]}
    table = Table(
        sources=data["sources"],
        wheels=tuple(wheels.values()),
        variants=tuple(
            _variant(row, wheels, f"variants.json.variants[{index}]")
            for index, row in enumerate(data["variants"])
        ),
        memory=data["memory"],
        speed=tuple(data["speed"]),
        cpu=data["cpu"],
        branch=int(data["driver"]["branch"]),
        branch_reason=data["driver"]["reason"],
        generations=tuple(_generation(row) for row in data["architectures"]),
        quirks=tuple(
            Quirk(row["name"], row["half"], row["reason"], _ranges(row["devices"])) for row in data["quirks"]
        ),
        halves={name: Half(**row) for name, row in data["half"].items()},
    )
    _check_names(table)
    _check_needs(table)
    _check_devices(table)
    return table


def _wheels(row: Mapping[str, Any]) -> Wheels:
    return Wheels(
        name=row["name"],
        torch=row["torch"],
        index=row["index"],
        cuda=row["cuda"],
        architectures=tuple(row["architectures"]),
        minimum_driver=row["minimum_driver"] or {"linux": None, "windows": None},
    )


def _variant(row: Mapping[str, Any], wheels: Mapping[str, Wheels], where: str) -> Variant:
    if row["wheels"] is not None and row["wheels"] not in wheels:
        raise InputError(
            f"{where}.wheels is {row['wheels']!r}, which is none of {', '.join(wheels)}", "Correct it."
        )
    if row["device"] == "cuda" and (row["wheels"] is None or wheels[row["wheels"]].cuda is None):
        raise InputError(f"{where} is for CUDA, and names no wheels with CUDA", "Name some in `wheels`.")
    return Variant(
        name=row["name"],
        title=row["title"],
        wheels=wheels[row["wheels"]] if row["wheels"] is not None else None,
        device=row["device"],
        precision=row["precision"],
        pack=row["pack"],
        platforms=tuple(row["platforms"]),
        environment=row["environment"],
        **row["needs"],
    )


def _generation(row: Mapping[str, Any]) -> Generation:
    first, last = row["first_branch"], row["last_branch"]
    return Generation(
        name=row["name"],
        capability=row["capability"],
        half=row["half"],
        modules=tuple(row["modules"]),
        first_branch=None if first is None else int(first),
        last_branch=None if last is None else int(last),
        devices=_ranges(row["devices"]),
    )


def _ranges(devices: Sequence[str]) -> tuple[tuple[int, int], ...]:
    return tuple((int(pair[:4], 16), int(pair[5:], 16)) for pair in devices)


def _check_names(table: Table) -> None:
    """Every name that one part takes from another is there, and none is given twice."""
    _unique([one.name for one in table.wheels], "wheels")
    _unique([one.name for one in table.variants], "variants")
    for wheels in table.wheels:
        _known(wheels.index, table.sources, f"variants.json.wheels {wheels.name}: index")
        if wheels.cuda is not None and not (wheels.architectures and wheels.minimum_driver["linux"]):
            raise InputError(
                f"variants.json.wheels {wheels.name} has CUDA, but no architectures or no minimum_driver",
                "Add both.",
            )
    if [one.device for one in table.variants].count("cpu") != 1:
        raise InputError(
            "variants.json.variants must hold exactly one variant with device cpu", "Correct it."
        )
    for name in [one.half for one in table.generations] + [one.half for one in table.quirks]:
        _known(name, table.halves, "variants.json: half")
    for one in table.generations:
        if not one.modules or not one.devices:
            raise InputError(
                f"variants.json: {one.name} {one.capability} has no modules or no devices", "Add them."
            )


def _check_needs(table: Table) -> None:
    """Needs are sums of the memory plan, so that one figure cannot change without the other."""
    memory = table.memory
    for variant in table.variants:
        wanted = memory["web_ram_mib"] + memory[f"{variant.device}_engine_ram_mib"]
        _same(variant.ram_mib, wanted, f"{variant.name}: needs.ram_mib", "web process and engine")
        vram = vram_needed(table, variant.precision) if variant.device == "cuda" else 0
        _same(variant.vram_mib, vram, f"{variant.name}: needs.vram_mib", "the memory plan")
    unsaid = sorted(set(memory) - {"origin"} - set(memory["origin"]))
    if unsaid:
        raise InputError(
            f"variants.json.memory.origin says nothing of {', '.join(unsaid)}", "Say where it is from."
        )


def vram_needed(table: Table, weights: str) -> int:
    """The least free memory of a card, in MiB, for weights in a precision: weights, half of the working memory, the
    reserve, and CUDA's own."""
    memory = table.memory
    held = memory["weights_mib"][weights] + memory["working_mib"] // 2
    return int(held + memory["reserve_mib"] + memory["context_mib"])


def _check_devices(table: Table) -> None:
    """No device id belongs to two generations, and every quirk to one."""
    ranges = [(pair, one) for one in table.generations for pair in one.devices]
    ranges.sort(key=lambda row: row[0])
    for (first, last), one in ranges:
        if last < first:
            raise InputError(
                f"variants.json: {one.name} has the range {first:04x}-{last:04x}", "Turn it around."
            )
    for (pair, one), (after, other) in zip(ranges, ranges[1:]):
        if after[0] <= pair[1]:
            raise InputError(
                f"variants.json: device {after[0]:04x} is both {one.name} {one.capability} and {other.name} "
                f"{other.capability}",
                "Correct the ranges.",
            )
    for quirk in table.quirks:
        if any(table.generation(device, None) is None for pair in quirk.devices for device in pair):
            raise InputError(f"variants.json: quirk {quirk.name!r} is of no generation", "Correct its ids.")


def _unique(names: list[str], where: str) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"variants.json.{where} has {', '.join(twice)} twice", "Keep one.")


def _known(name: str, among: Mapping[str, Any], where: str) -> None:
    if name not in among:
        raise InputError(f"{where} is {name!r}, which is none of {', '.join(among)}", "Correct it.")


def _same(found: int, wanted: int, where: str, sum_of: str) -> None:
    if found != wanted:
        raise InputError(
            f"variants.json.variants {where} is {found}, but {sum_of} give {wanted}", "Correct one."
        )


def capability_of(text: str | None) -> tuple[int, int] | None:
    """(7, 5) of "7.5"; the lowest of a whole family for "3.x"; None for what is no capability."""
    found = re.fullmatch(r"(\d+)\.(\d|x)", text or "")
    if found is None:
        return None
    return int(found.group(1)), 0 if found.group(2) == "x" else int(found.group(2))


def version_of(text: str) -> tuple[int, ...]:
    """A driver version as numbers that compare."""
    return tuple(int(part) for part in re.findall(r"\d+", text))

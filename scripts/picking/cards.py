"""What one card would run: the variant, the precision, the memory it may take, or why it runs nothing.

The same rules as the engine's at run time (app/asr/devices.py), told before anything is installed; a test holds the two
together. The engine reads what is free after CUDA has taken its part, so here that part is counted in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from scripts.picking.driver import Obstacle, obstacle
from scripts.picking.host import Gpu, Host
from scripts.picking.reasons import Reason
from scripts.picking.table import Generation, Half, Table, Variant, Wheels, capability_of, vram_needed

STORAGE = "fp16 storage"  # as the engine calls it: weights in half, computed in single precision


@dataclass(frozen=True)
class Way:
    """How a card runs: MiB that the process will hold there, and the settings that bring it about."""

    variant: Variant
    precision: str
    pack: str
    setting: str
    vram: int


@dataclass(frozen=True)
class CardVerdict:
    """A card, what it runs (`way`), or why it does not.

    Attributes:
        part: the part of a divided card (MIG) that this is about.
        obstacle: what the driver lacks; `way` is None then.
        later: the variant that it would run without the obstacle, if its memory is large enough.
        reasons: why it is so; each names its limit.
        changes: what would change the verdict.
    """

    card: Gpu
    part: Mapping[str, object] | None = None
    generation: Generation | None = None
    wheels: Wheels | None = None
    way: Way | None = None
    obstacle: Obstacle | None = None
    later: Variant | None = None
    reasons: tuple[Reason, ...] = ()
    changes: tuple[Reason, ...] = ()

    @property
    def rank(self) -> tuple[int, int]:
        """Better cards compare higher: half before single precision before half storage, then memory."""
        if self.way is None:
            return (0, 0)
        return ({STORAGE: 1, "fp32": 2, "fp16": 3}[self.way.precision], self.card.free or 0)


def judge(card: Gpu, host: Host, table: Table) -> list[CardVerdict]:
    """The verdict on a card; one for each part when it is divided."""
    found = table.generation(card.device, card.capability)
    if found is None:
        return [_unknown(card)]
    capability = card.capability or found.capability
    half = table.halves[_half_of(card, found, table)]
    variant = _variant(table, half, capability)
    if variant is None or variant.wheels is None:
        return [_uncovered(card, found, capability, table)]
    base = CardVerdict(card, generation=found, wheels=variant.wheels)
    if host.platform not in variant.platforms:
        limit = ", ".join(variant.platforms)
        text = f"the {variant.name} image is built for {limit}, and this host is {host.architecture}"
        change = f"An image for {host.architecture} would change this; so far it is built for {limit}."
        return [replace(base, reasons=(Reason(text, limit),), changes=(Reason(change, limit),))]
    stopped = obstacle(card, found, variant.wheels, host)
    if stopped is not None:
        return [_stopped(base, stopped, variant)]
    why = _why(card, capability, found, half, variant, table)
    if card.parts is not None:
        return _parts(replace(base, reasons=(why,)), half, table)
    return [_placed(replace(base, reasons=(why,)), half, table, card.label, card.free)]


def _unknown(card: Gpu) -> CardVerdict:
    if card.capability is not None:
        text = (
            f"{card.label} has compute capability {card.capability}, which is in no generation of the table"
        )
        change = f"A newer table of variants that knows {card.capability} would change this."
        return CardVerdict(
            card, reasons=(Reason(text, card.capability),), changes=(Reason(change, card.capability),)
        )
    text = (
        f"{card.label} is in no generation that the table knows, and no driver tells its compute capability"
    )
    change = "With its driver loaded (nvidia-smi -L lists it) it could be judged by its compute capability."
    return CardVerdict(
        card, reasons=(Reason(text, "compute capability"),), changes=(Reason(change, "nvidia-smi -L"),)
    )


def _half_of(card: Gpu, one: Generation, table: Table) -> str:
    quirk = table.quirk(card.device)
    return quirk.half if quirk is not None else one.half


def _variant(table: Table, half: Half, capability: str) -> Variant | None:
    """The first variant with the precision for this kind of card whose torch holds code for it."""
    number = capability_of(capability)
    for variant in table.variants:
        if variant.device != "cuda" or variant.precision != half.precision or variant.wheels is None:
            continue
        if number is not None and variant.wheels.covers(number):
            return variant
    return None


def _uncovered(card: Gpu, one: Generation, capability: str, table: Table) -> CardVerdict:
    names = {v.wheels.name for v in table.variants if v.device == "cuda" and v.wheels is not None}
    built = [wheels for wheels in table.wheels if wheels.name in names]
    span = "; ".join(f"{wheels.name}: {wheels.span}" for wheels in built)
    text = (
        f"{card.label} is {one.name} with compute capability {capability}, and the torch in our images holds code for "
        f"other ones ({span})"
    )
    number = capability_of(capability)
    others = [
        wheels
        for wheels in table.wheels
        if wheels not in built and number is not None and wheels.covers(number)
    ]
    if others:
        other = others[0]
        minimum = other.minimum_driver["linux"]
        change = (
            f"An image with torch {other.torch} would run it (driver {minimum} or newer, {one.modules[0]} kernel "
            f"module); none is built so far."
        )
        changes = (Reason(change, str(minimum)),)
    else:
        torch = table.wheels[0].torch.partition("+")[0]
        change = (
            f"Only another card would change this: no build of torch {torch} holds code for {capability}."
        )
        changes = (Reason(change, capability),)
    return CardVerdict(card, generation=one, reasons=(Reason(text, capability),), changes=changes)


def _stopped(base: CardVerdict, stopped: Obstacle, variant: Variant) -> CardVerdict:
    needed = f"{variant.vram_mib} MiB"
    change = (
        f"To use {base.card.label}: {stopped.remedy}. It would then run {variant.name}, if {needed} of its memory are "
        "free."
    )
    return replace(
        base, obstacle=stopped, later=variant, reasons=(stopped.reason,), changes=(Reason(change, needed),)
    )


def _why(card: Gpu, capability: str, one: Generation, half: Half, variant: Variant, table: Table) -> Reason:
    quirk = table.quirk(card.device)
    said = f"{quirk.reason}; {half.reason}" if quirk is not None else half.reason
    words = {"fp16": "half", "fp32": "single"}[variant.precision]
    return Reason(
        f"{card.label} is {one.name}, compute capability {capability}: {words} precision, since {said}",
        capability,
    )


def _parts(base: CardVerdict, half: Half, table: Table) -> list[CardVerdict]:
    card = base.card
    if not card.parts:
        text = f"{card.label} is divided (MIG is on), but has no MIG instance to run on"
        change = (
            "An instance (nvidia-smi mig -cgi ... -C), or MIG switched off, would change this: MIG needs one."
        )
        return [replace(base, reasons=(Reason(text, "MIG"),), changes=(Reason(change, "MIG"),))]
    verdicts = []
    for part in card.parts:
        total = part["total_mib"]
        label = f"MIG instance {part['profile']} of {card.label}"
        room = total if isinstance(total, int) else None
        verdicts.append(_placed(replace(base, part=part), half, table, label, room))
    return verdicts


def _placed(base: CardVerdict, half: Half, table: Table, label: str, free: int | None) -> CardVerdict:
    """The most precise way that fits into the free memory."""
    if free is None:
        text = f"how much memory of {label} is free is not known (nvidia-smi gave no memory.free)"
        change = "A driver that tells memory.free would change this."
        return replace(
            base,
            reasons=(*base.reasons, Reason(text, "memory.free")),
            changes=(Reason(change, "memory.free"),),
        )
    smallest = vram_needed(table, "fp16")
    capability = base.card.capability or (base.generation.capability if base.generation else "")
    variant = _variant(table, half, capability)
    if variant is None:
        return base
    if free >= variant.vram_mib:
        limit = f"{variant.vram_mib} MiB"
        fits = Reason(f"the {variant.name} image needs {limit} on {label}, where {free} MiB are free", limit)
        way = Way(
            variant,
            variant.precision,
            variant.pack,
            half.setting or "auto",
            _held(table, variant.precision, free),
        )
        return replace(base, way=way, reasons=(*base.reasons, fits))
    if variant.precision == "fp32" and free >= smallest:
        return _stored_in_half(base, half, variant, table, label, free)
    return _too_small(base, label, free, smallest)


def _stored_in_half(
    base: CardVerdict, half: Half, variant: Variant, table: Table, label: str, free: int
) -> CardVerdict:
    limit = f"{variant.vram_mib} MiB"
    text = (
        f"single-precision weights need {limit} on {label}, where {free} MiB are free: they are kept in half and "
        f"converted when they are used, which takes {vram_needed(table, 'fp16')} MiB"
    )
    if half.setting == "fp32":
        text += "; half precision is tried first, and kept if its self-check passes"
    change = f"With {limit} free on {label} its weights would be held in single precision."
    way = Way(variant, STORAGE, "fp16", "auto", _held(table, "fp16", free))
    reasons = (*base.reasons, Reason(text, limit))
    return replace(base, way=way, reasons=reasons, changes=(Reason(change, limit),))


def _too_small(base: CardVerdict, label: str, free: int, smallest: int) -> CardVerdict:
    total = base.card.total or free
    text = f"at least {smallest} MiB of {label} must be free, and {free} of {total} MiB are"
    if total >= smallest and base.part is None:
        change = (
            f"With {smallest} MiB of {label} free it can be used; other programs hold {total - free} MiB now."
        )
    else:
        change = f"A card with {smallest} MiB or more would change this."
    limit = f"{smallest} MiB"
    return replace(base, reasons=(*base.reasons, Reason(text, limit)), changes=(Reason(change, limit),))


def _held(table: Table, weights: str, free: int) -> int:
    """What the process will hold on the card: never more than is free there."""
    memory = table.memory
    fixed = memory["weights_mib"][weights] + memory["context_mib"]
    working = min(memory["working_mib"], free - memory["reserve_mib"] - fixed)
    return int(fixed + working)

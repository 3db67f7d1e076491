"""The verdict on a host: which instances to run, what to do about the driver, why, and what would change it.

One instance runs on every card that can be used, as far as the host's memory goes; a host without such a card gets
one on its processor. Where nothing can run, the plan says so. Facts in, plan out: nothing is read or started here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from scripts.picking.cards import CardVerdict, judge
from scripts.picking.driver import Advice, advise
from scripts.picking.host import Host
from scripts.picking.reasons import Reason
from scripts.picking.table import Table, Variant


@dataclass(frozen=True)
class Speed:
    """Expected time of computation divided by the audio's length; None where nobody has measured it."""

    rtf: float | None
    basis: str


@dataclass(frozen=True)
class Instance:
    """One container to run. Memory in MiB; `vram` is what it will hold on the card, 0 on a processor."""

    name: str
    variant: Variant
    precision: str
    pack: str
    card: CardVerdict | None
    environment: Mapping[str, str]
    ram: int
    ram_limit: int
    vram: int
    speed: Speed


@dataclass(frozen=True)
class Plan:
    """The verdict: gpu, cpu or none."""

    verdict: str
    instances: tuple[Instance, ...]
    driver: Advice
    reasons: tuple[Reason, ...]
    warnings: tuple[str, ...]
    changes: tuple[Reason, ...]
    cards: tuple[CardVerdict, ...]


@dataclass
class _Draft:
    """What is gathered on the way."""

    reasons: list[Reason] = field(default_factory=list)
    changes: list[Reason] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def plan(host: Host, table: Table) -> Plan:
    """Decides for one host."""
    draft = _Draft()
    cards = tuple(judged for card in host.gpus for judged in judge(card, host, table))
    for judged in cards:
        draft.reasons += judged.reasons
        draft.changes += judged.changes
    if not host.gpus:
        draft.reasons.append(Reason("there is no NVIDIA card (PCI vendor 10de) on this host", "10de"))
    usable = sorted((one for one in cards if one.way is not None), key=lambda one: one.rank, reverse=True)
    instances = _on_cards(usable, host, table, draft)
    if not instances:
        instances = _on_the_processor(host, table, draft)
    instances = _with_extras(instances, host, table, draft)
    driver = advise(
        host,
        table,
        [
            (one.card, one.generation, one.wheels, one.obstacle)
            for one in cards
            if one.generation and one.wheels
        ],
    )
    _warn(host, table, instances, draft)
    verdict = "none" if not instances else "gpu" if instances[0].card is not None else "cpu"
    return Plan(
        verdict,
        tuple(instances),
        driver,
        tuple(dict.fromkeys(draft.reasons)),
        tuple(draft.warnings),
        tuple(dict.fromkeys(draft.changes)),
        cards,
    )


def _on_cards(usable: Sequence[CardVerdict], host: Host, table: Table, draft: _Draft) -> list[Instance]:
    """Instances for the best cards, as many as fit into the host's memory."""
    instances: list[Instance] = []
    system = table.memory["system_ram_mib"]
    taken = system
    for verdict in usable:
        way = verdict.way
        if way is None or not _disk_holds(way.variant, host, draft):
            continue
        needed = way.variant.ram_mib
        if taken + needed > host.ram:
            text = (
                f"an instance on {verdict.card.label} needs {needed} MiB of the host's memory beside {taken} MiB for "
                f"the system and other instances, and there are {host.ram} MiB"
            )
            draft.reasons.append(Reason(text, f"{needed} MiB"))
            change = f"With {taken + needed} MiB of memory in the host, {verdict.card.label} could be used."
            draft.changes.append(Reason(change, f"{taken + needed} MiB"))
            continue
        taken += needed
        instances.append(
            Instance(
                name=f"gpu{len(instances)}",
                variant=way.variant,
                precision=way.precision,
                pack=way.pack,
                card=verdict,
                environment=_environment(way.variant, way.setting),
                ram=needed,
                ram_limit=_limit(needed, host, table),
                vram=way.vram,
                speed=Speed(None, "no GPU has been measured yet"),
            )
        )
    return instances


def _on_the_processor(host: Host, table: Table, draft: _Draft) -> list[Instance]:
    """One instance, or none with the reasons."""
    variant, memory = table.cpu_variant, table.memory
    if host.platform not in variant.platforms:
        limit = " and ".join(variant.platforms)
        draft.reasons.append(
            Reason(f"images are built for {limit}, and this host is {host.architecture}", limit)
        )
        draft.changes.append(Reason(f"Only another machine would change this ({limit}).", limit))
        return []
    rules = table.cpu["x86_64" if host.platform == "linux/amd64" else "aarch64"]
    lacking = [flag for flag in rules["required_flags"] if flag not in host.flags]
    if lacking:
        text = f"the processor ({host.cpu_model}) lacks {', '.join(lacking)}: {rules['reason']}"
        draft.reasons.append(Reason(text, lacking[0]))
        draft.changes.append(Reason(f"A processor with {', '.join(lacking)} would change this.", lacking[0]))
    needed = variant.ram_mib + memory["system_ram_mib"]
    small = host.ram < needed
    if small:
        text = (
            f"the service needs {variant.ram_mib} MiB of memory beside {memory['system_ram_mib']} MiB for the system, "
            f"and the host has {host.ram} MiB"
        )
        draft.reasons.append(Reason(text, f"{variant.ram_mib} MiB"))
        draft.changes.append(
            Reason(f"With {needed} MiB of memory the service would run on the processor.", f"{needed} MiB")
        )
    if lacking or small or not _disk_holds(variant, host, draft):
        return []
    draft.reasons.append(
        Reason(
            f"the processor runs the {variant.name} image ({variant.precision}): {variant.ram_mib} MiB of memory and "
            f"{memory['system_ram_mib']} MiB for the system are needed, and there are {host.ram} MiB",
            f"{variant.ram_mib} MiB",
        )
    )
    missing = [flag for flag in rules["wanted_flags"] if flag not in host.flags]
    if missing:
        draft.warnings.append(f"The processor has no {', '.join(missing)}: {rules['reason']}.")
    elif host.platform == "linux/arm64":
        draft.warnings.append(f"On {host.architecture}: {rules['reason']}.")
    return [
        Instance(
            name="cpu",
            variant=variant,
            precision=variant.precision,
            pack=variant.pack,
            card=None,
            environment=_environment(variant, variant.precision),
            ram=variant.ram_mib,
            ram_limit=_limit(variant.ram_mib, host, table),
            vram=0,
            speed=_speed(host, table),
        )
    ]


def _environment(variant: Variant, setting: str) -> dict[str, str]:
    """Settings of the service: those of the image, with the precision for this very card."""
    return {**variant.environment, "ASR_PRECISION": setting, "ASR_VARIANT": variant.name}


def _with_extras(instances: Sequence[Instance], host: Host, table: Table, draft: _Draft) -> list[Instance]:
    """The same instances, with what one can do without where the host's memory holds it, and switched off elsewhere."""
    made = list(instances)
    system = table.memory["system_ram_mib"]
    for what, setting, size in (
        ("punctuation", "ASR_PUNCTUATION", table.memory["punctuation_ram_mib"]),
        ("the page", "ASR_PAGE", table.memory["page_ram_mib"]),
    ):
        for place, one in enumerate(made):
            needed = sum(other.ram for other in made) + system + size
            if needed <= host.ram:
                ram = one.ram + size
                made[place] = replace(one, ram=ram, ram_limit=_limit(ram, host, table))
                continue
            made[place] = replace(one, environment={**one.environment, setting: "off"})
            limit = f"{needed} MiB"
            text = (
                f"{what} of {one.name} is off: {limit} would be needed with it, and there are {host.ram} MiB"
            )
            draft.reasons.append(Reason(text, limit))
            change = f"With {limit} of memory in the host {what} of {one.name} would be on."
            draft.changes.append(Reason(change, limit))
    return made


def _disk_holds(variant: Variant, host: Host, draft: _Draft) -> bool:
    """Whether the image is here already, or there is room for it."""
    if any(name.endswith((f":{variant.name}", f"-{variant.name}")) for name in host.containers["images"]):
        return True
    if host.disk_free is None or host.disk_free >= variant.disk_mib:
        return True
    text = (
        f"the {variant.name} image and its model need {variant.disk_mib} MiB on disk, and {host.disk_free} MiB are "
        f"free at {host.disk_path}"
    )
    limit = f"{variant.disk_mib} MiB"
    draft.reasons.append(Reason(text, limit))
    draft.changes.append(
        Reason(f"With {limit} free at {host.disk_path}, {variant.name} could be used.", limit)
    )
    return False


def _limit(needed: int, host: Host, table: Table) -> int:
    """Memory limit of the container: some air above what it needs, never what the system needs."""
    wanted = math.ceil(needed * table.memory["limit_factor"])
    return int(min(wanted, host.ram - table.memory["system_ram_mib"]))


def _speed(host: Host, table: Table) -> Speed:
    for row in table.speed:
        if (
            row["device"] == "cpu"
            and set(row["flags"]) <= set(host.flags)
            and (host.cores or 0) >= row["cores"]
        ):
            return Speed(row["rtf"], f"measured on another machine of this kind ({row['origin']})")
    return Speed(None, "not measured on a processor like this one")


def _warn(host: Host, table: Table, instances: Sequence[Instance], draft: _Draft) -> None:
    """What does not change the verdict, and still should be known."""
    say, memory, have = draft.warnings.append, table.memory, host.containers
    if not instances:
        return
    needed = sum(one.ram for one in instances)
    if host.swap == 0 and host.ram < memory["swap_below_ram_mib"]:
        say(
            f"The host has {host.ram} MiB of memory and no swap; below {memory['swap_below_ram_mib']} MiB give it some."
        )
    if host.ram_available is not None and host.ram_available < needed:
        say(f"Only {host.ram_available} MiB of memory are available now, and {needed} MiB will be needed.")
    if host.cgroup is None:
        say("No control group can limit memory here: the limits of the containers will not hold.")
    if have["docker"] is None:
        say(
            "Docker is installed, but does not answer (is it started, and may this user ask it?)."
            if have["docker_installed"]
            else "Docker is not installed."
        )
    elif have["compose"] is None:
        say("Docker has no compose plugin.")
    if instances[0].card is not None:
        _warn_of_containers(host, draft)
    draft.warnings += [f"While probing: {problem}." for problem in host.problems]


def _warn_of_containers(host: Host, draft: _Draft) -> None:
    have = host.containers
    if have["cdi"]:
        return
    if have["nvidia_toolkit"] is None and not have["nvidia_runtime"]:
        draft.warnings.append("The NVIDIA container toolkit is missing; without it containers see no card.")
        return
    draft.warnings.append(
        "There is no CDI description of the cards (nvidia-ctk cdi generate); without it `systemctl daemon-reload` can "
        "take them away from running containers."
    )

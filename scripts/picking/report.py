"""A plan as JSON for programs and as text for people; the shape of the JSON is told in docs/picking.md."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from scripts.picking.cards import CardVerdict
from scripts.picking.driver import Advice
from scripts.picking.host import Host
from scripts.picking.plan import Instance, Plan
from scripts.picking.reasons import Reason

VERDICT_VERSION = 1
_WIDTH = 110
_DRIVER_WORDS = {
    "none": "no NVIDIA driver is needed",
    "keep": "keep what is loaded",
    "install": "install branch {branch}, {modules} kernel module, then reboot and pick again",
    "replace": "replace it by branch {branch}, {modules} kernel module, then reboot and pick again",
    "sign": "sign the installed kernel module for Secure Boot, then reboot and pick again",
    "reboot": "reboot and pick again",
    "windows": "update NVIDIA's driver in Windows to {minimum} or newer, restart WSL and pick again",
}


def as_json(plan: Plan, host: Host) -> dict[str, Any]:
    """The plan as an object of JSON."""
    return {
        "verdict_version": VERDICT_VERSION,
        "verdict": plan.verdict,
        "instances": [_instance(one, host) for one in plan.instances],
        "driver": _advice(plan.driver),
        "cards": [_card(one) for one in plan.cards],
        "reasons": _reasons(plan.reasons),
        "warnings": list(plan.warnings),
        "would_change": _reasons(plan.changes),
    }


def _reasons(reasons: Sequence[Reason]) -> list[dict[str, str]]:
    return [{"text": reason.text, "limit": reason.limit} for reason in reasons]


def _instance(one: Instance, host: Host) -> dict[str, Any]:
    return {
        "name": one.name,
        "variant": one.variant.name,
        "precision": one.precision,
        "pack": one.pack,
        "device": _device(one.card, host),
        "environment": dict(one.environment),
        "memory_limit_mib": one.ram_limit,
        "expected": {
            "ram_mib": one.ram,
            "vram_mib": one.vram,
            "rtf": one.speed.rtf,
            "rtf_basis": one.speed.basis,
        },
    }


def _device(verdict: CardVerdict | None, host: Host) -> dict[str, Any] | None:
    """How a container is given the card: by its CDI name, or by its unique id with the older runtime."""
    if verdict is None:
        return None
    card, part = verdict.card, verdict.part
    place = str(card.index)
    if part is not None and card.parts is not None:
        place = f"{card.index}:{list(card.parts).index(part)}"
    return {
        "index": card.index,
        "name": card.name,
        "pci_address": card.address,
        "uuid": card.uuid if part is None else part["uuid"],
        # Under WSL all cards come as one device.
        "cdi": f"nvidia.com/gpu={'all' if host.wsl else place}",
    }


def _advice(driver: Advice) -> dict[str, Any]:
    return {
        "action": driver.action,
        "branch": driver.branch,
        "modules": driver.modules,
        "minimum": driver.minimum,
        "last_branch": driver.last_branch,
        "signing": driver.signing,
        "reasons": _reasons(driver.reasons),
    }


def _card(one: CardVerdict) -> dict[str, Any]:
    return {
        "index": one.card.index,
        "name": one.card.name,
        "pci_id": None if one.card.device is None else f"10de:{one.card.device:04x}",
        "generation": None if one.generation is None else one.generation.name,
        "precision": None if one.way is None else one.way.precision,
        "free_mib": one.card.free,
        "obstacle": None if one.obstacle is None else one.obstacle.action,
        "later": None if one.later is None else one.later.name,
    }


def as_text(plan: Plan, host: Host) -> str:
    """The plan in sentences, for a terminal."""
    lines = [f"Host: {_machine(host)}", "", *_verdict_lines(plan)]
    lines += _section("Why", [reason.text for reason in plan.reasons])
    if plan.driver.action != "none":
        shown = _DRIVER_WORDS[plan.driver.action].format(
            branch=plan.driver.branch, modules=plan.driver.modules, minimum=plan.driver.minimum
        )
        said = [reason.text for reason in plan.driver.reasons]
        if plan.driver.signing:
            said.append(
                "Secure Boot is on: take modules that the distribution signed, or enrol a key of your own (MOK)"
            )
        lines += _section(f"Driver: {shown}", said)
    lines += _section("What would change this", [reason.text for reason in plan.changes])
    lines += _section("Warnings", plan.warnings)
    return "\n".join(lines) + "\n"


def _machine(host: Host) -> str:
    cards = " and ".join(_sized(card.label, card.total) for card in host.gpus) or "no NVIDIA card"
    driver = f"driver {host.driver.loaded}" if host.driver.loaded else "no NVIDIA driver"
    where = f"{host.distribution}{' under WSL' if host.wsl else ''}"
    return f"{cards}; {driver}; {host.cpu_model}, {host.cores or '?'} cores; {host.ram} MiB; {where}"


def _sized(label: str, total: int | None) -> str:
    return label if total is None else f"{label}, {total} MiB"


def _verdict_lines(plan: Plan) -> list[str]:
    if not plan.instances:
        return ["Verdict: nothing can run here."]
    lines = ["Verdict:"]
    for one in plan.instances:
        where = one.card.card.label if one.card is not None else "the processor"
        if one.card is not None and one.card.part is not None:
            where = f"MIG instance {one.card.part['profile']} of {where}"
        memory = f"{one.ram} MiB of memory (limit {one.ram_limit})"
        if one.vram:
            memory = f"{one.vram} MiB on the card, {memory}"
        speed = f"RTF {one.speed.rtf}" if one.speed.rtf is not None else "RTF unknown"
        settings = " ".join(f"{name}={value}" for name, value in sorted(one.environment.items()))
        lines += _wrapped(
            "  ", f"{one.name}: {one.variant.name} on {where}, {one.precision} with the {one.pack} pack"
        )
        lines += _wrapped("    ", f"takes {memory}; {speed}: {one.speed.basis}")
        lines += _wrapped("    ", settings)
    return lines


def _section(title: str, sentences: Sequence[str]) -> list[str]:
    lines = ["", f"{title}{':' if sentences else '.'}"]
    if not sentences and not title.startswith("Driver"):
        return []
    for sentence in sentences:
        shown = sentence[0].upper() + sentence[1:] if not sentence.startswith("nvidia-smi") else sentence
        ended = shown if shown.endswith(".") else f"{shown}."
        lines += _wrapped("  - ", ended)
    return lines


def _wrapped(indent: str, sentence: str) -> list[str]:
    return textwrap.wrap(
        sentence, _WIDTH, initial_indent=indent, subsequent_indent=" " * len(indent), break_on_hyphens=False
    )

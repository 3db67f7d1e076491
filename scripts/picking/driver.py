"""Does the NVIDIA driver of a host drive a card for our images, and which one should be installed.

Lives here: what keeps a card from being used although torch holds code for it, and one advice for the whole host
(branch, kernel module, what to do first). What the card would then run is in cards.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scripts.picking.host import Gpu, Host
from scripts.picking.reasons import Reason
from scripts.picking.table import Generation, Table, Wheels, version_of


@dataclass(frozen=True)
class Obstacle:
    """Why a card cannot be used now, and what removes that."""

    action: str
    reason: Reason
    remedy: str


@dataclass(frozen=True)
class Advice:
    """What to do about the driver.

    Attributes:
        action: none (no card needs one), keep, install, replace (by another version or module), sign (for Secure
            Boot), reboot, windows (update the driver of Windows, for WSL).
        branch: to install, or the one to stay with.
        modules: kernel module to install: open or proprietary.
        minimum: oldest version that our images run on.
        last_branch: newest branch that drives all cards in use; hold the packages there. None: no limit.
        signing: modules must be signed, since Secure Boot is on.
    """

    action: str
    branch: int | None = None
    modules: str | None = None
    minimum: str | None = None
    last_branch: int | None = None
    signing: bool = False
    reasons: tuple[Reason, ...] = ()


def obstacle(card: Gpu, one: Generation, wheels: Wheels, host: Host) -> Obstacle | None:
    """The first thing that keeps this card from being used; None when the driver shows it."""
    driver = host.driver
    minimum = wheels.minimum_driver["windows" if host.wsl else "linux"]
    if card.kernel_driver in {"nouveau", "vfio-pci"}:
        return _other_module(card, minimum)
    if driver.loaded is None:
        return _not_loaded(card, host, minimum)
    return (
        _wrong_version(card, one, wheels, host) or _wrong_module(card, one, host) or _no_readings(card, host)
    )


def _other_module(card: Gpu, minimum: str | None) -> Obstacle:
    if card.kernel_driver == "vfio-pci":
        text = (
            f"{card.label} is reserved for virtual machines (vfio-pci); the NVIDIA driver is not bound to it"
        )
        return Obstacle("none", Reason(text, "vfio-pci"), "release it from vfio-pci")
    text = f"{card.label} is driven by nouveau, which has no CUDA; the NVIDIA driver {minimum} or newer is needed"
    return Obstacle(
        "install", Reason(text, str(minimum)), "install the NVIDIA driver, block nouveau and reboot"
    )


def _not_loaded(card: Gpu, host: Host, minimum: str | None) -> Obstacle:
    driver = host.driver
    if host.wsl:
        text = f"WSL shows no NVIDIA driver; the driver of Windows must be {minimum} or newer"
        return Obstacle("windows", Reason(text, str(minimum)), "install NVIDIA's driver in Windows")
    if driver.installed is None:
        text = f"no NVIDIA driver is loaded for {card.label}; {minimum} or newer is needed"
        return Obstacle("install", Reason(text, str(minimum)), "install the NVIDIA driver")
    if host.secure_boot and not driver.signed:
        text = f"the NVIDIA driver {driver.installed} is installed, but Secure Boot is on and its module is not signed"
        remedy = "sign the kernel module (or install the distribution's signed one) and reboot"
        return Obstacle("sign", Reason(text, "Secure Boot"), remedy)
    text = f"the NVIDIA driver {driver.installed} is installed, but not loaded"
    return Obstacle("reboot", Reason(text, driver.installed), "reboot")


def _wrong_version(card: Gpu, one: Generation, wheels: Wheels, host: Host) -> Obstacle | None:
    driver = host.driver
    branch, loaded = driver.branch or 0, driver.loaded or ""
    minimum = wheels.minimum_driver["windows" if host.wsl else "linux"]
    action = "windows" if host.wsl else "replace"
    if one.last_branch is not None and branch > one.last_branch:
        text = f"the driver is {loaded}, and {one.last_branch} is the last branch that drives {one.name} ({card.label})"
        return Obstacle(action, Reason(text, str(one.last_branch)), f"go back to branch {one.last_branch}")
    if one.first_branch is not None and branch < one.first_branch:
        text = (
            f"the driver is {loaded}, and {one.name} ({card.label}) needs branch {one.first_branch} or newer"
        )
        return Obstacle(
            action, Reason(text, str(one.first_branch)), f"install branch {one.first_branch} or newer"
        )
    if minimum is not None and version_of(loaded) < version_of(minimum):
        text = f"the driver is {loaded}, and CUDA {wheels.cuda} needs {minimum} or newer"
        return Obstacle(action, Reason(text, minimum), f"install driver {minimum} or newer")
    return None


def _wrong_module(card: Gpu, one: Generation, host: Host) -> Obstacle | None:
    flavour = host.driver.flavour
    if host.wsl or flavour is None or flavour in one.modules:
        return None
    wanted = one.modules[0]
    text = f"the {flavour} kernel module is loaded, and {one.name} ({card.label}) needs the {wanted} one"
    return Obstacle("replace", Reason(text, wanted), f"install the {wanted} kernel module")


def _no_readings(card: Gpu, host: Host) -> Obstacle | None:
    smi = host.driver.smi
    if card.state == "ready":
        return None
    if smi == "absent":
        text = f"nvidia-smi is missing, so nothing is known of {card.label} beside its PCI id"
        return Obstacle("install", Reason(text, "nvidia-smi"), "install NVIDIA's utilities (nvidia-smi)")
    if smi == "hung":
        text = f"nvidia-smi gave no answer in time; the driver of {card.label} hangs"
        return Obstacle(
            "reboot", Reason(text, "nvidia-smi"), "reboot; if it hangs again, look for Xid lines in dmesg"
        )
    if smi is not None and "mismatch" in smi:
        text = f"nvidia-smi {smi}: the loaded module is not the installed one any more"
        return Obstacle("reboot", Reason(text, "mismatch"), "reboot")
    seen = f"nvidia-smi {smi}" if smi else "nvidia-smi gives no readings of it"
    text = f"{card.label} has fallen off the bus or does not answer ({seen})"
    return Obstacle(
        "reboot", Reason(text, "nvidia-smi"), "switch the machine off and on; check power and seating"
    )


def advise(
    host: Host, table: Table, cards: Sequence[tuple[Gpu, Generation, Wheels, Obstacle | None]]
) -> Advice:
    """One advice for all cards that torch holds code for."""
    actions = [found.action for _, _, _, found in cards if found is not None and found.action != "none"]
    if not cards or (not actions and host.driver.loaded is None):
        return Advice("none")
    wheels = [wheels for _, _, wheels, _ in cards]
    system = "windows" if host.wsl else "linux"
    minimum = max((one.minimum_driver[system] or "0" for one in wheels), key=version_of)
    generations = [one for _, one, _, _ in cards]
    lasts = [one.last_branch for one in generations if one.last_branch is not None]
    firsts = [one.first_branch for one in generations if one.first_branch is not None]
    last = min(lasts) if lasts else None
    if host.wsl:
        reason = Reason(
            f"under WSL the driver is that of Windows, {minimum} or newer; install none in Linux", minimum
        )
        return Advice("windows" if actions else "keep", minimum=minimum, reasons=(reason,))
    modules = _modules(host, generations)
    if not actions:
        branch, action = host.driver.branch, "keep"
    else:
        branch = max([min([table.branch, *lasts]), *firsts])
        action = next(name for name in ("replace", "install", "sign", "reboot") if name in actions)
    reasons = _reasons(table, generations, last, branch, action)
    signing = bool(host.secure_boot) and action in {"install", "replace", "sign"}
    return Advice(action, branch, modules, minimum, last, signing, tuple(reasons))


def _modules(host: Host, generations: Sequence[Generation]) -> str:
    """The module that drives most of the cards; where both do, the loaded one, else the open one."""
    counts = {name: sum(name in one.modules for one in generations) for name in ("open", "proprietary")}
    if counts["open"] == counts["proprietary"]:
        return host.driver.flavour or "open"
    return max(counts, key=lambda name: counts[name])


def _reasons(
    table: Table,
    generations: Sequence[Generation],
    last: int | None,
    branch: int | None,
    action: str,
) -> list[Reason]:
    names = sorted({one.name for one in generations if one.last_branch is not None})
    reasons = []
    if action in {"install", "replace"} and branch == table.branch:
        reasons.append(Reason(f"branch {branch} is {table.branch_reason}", str(branch)))
    if last is not None:
        reasons.append(
            Reason(f"{last} is the last branch for {' and '.join(names)}: hold the packages there", str(last))
        )
    for name, only in sorted({(one.name, one.modules[0]) for one in generations if len(one.modules) == 1}):
        reasons.append(Reason(f"{name} works with the {only} kernel module only", only))
    return reasons

"""The page about a campaign: what was done, what came of it, on which machine."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from tests.chaos.campaign import Outcome
from tests.chaos.faults import FAULTS


def write(outcome: Outcome, machine: dict[str, Any], seconds: float, folder: Path) -> str:
    """Writes chaos.md and chaos.json; gives the page."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = {"machine": machine, "seconds": round(seconds), **dataclasses.asdict(outcome)}
    (folder / "chaos.json").write_text(json.dumps(raw, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    page = "\n".join(_lines(outcome, machine, seconds)) + "\n"
    (folder / "chaos.md").write_text(page, encoding="utf-8")
    return page


def _lines(outcome: Outcome, machine: dict[str, Any], seconds: float) -> list[str]:
    counts = outcome.counts
    total = sum(outcome.faults.values())
    return [
        "# The service under random faults",
        "",
        f"Written by `make chaos` on {machine['date']}; do not edit. Seed {outcome.seed}, {outcome.seconds / 60:g} minutes of "
        f"faults, {seconds / 60:.1f} with all around them. Machine: {machine['processor']}, {machine['cores']} cores granted, "
        f"Linux {machine['kernel']}, Python {machine['python']}, load average {machine['load_average_at_start']} before the start.",
        "",
        "Two clients send jobs with idempotency keys, two send plain requests, without pause, through a proxy that can be a bad",
        "network; the service runs the demo model in a control group of 700 MiB, its data on an ext4 volume of 256 MiB.",
        "The order of faults comes from the seed; when they meet what the service is doing does not, and so the counts differ.",
        "",
        "| fault | times |",
        "|---|---:|",
        *(f"| {name} | {_times(outcome, name)} |" for name in FAULTS),
        f"| all | {total} |",
        "",
        "| what came of it | |",
        "|---|---:|",
        f"| jobs accepted, those sent again after a damaged database included | {counts['jobs accepted']} |",
        f"| jobs done, each with the undisturbed text | {counts['jobs done']} |",
        f"| jobs sent again after a damaged database | {counts['jobs sent again after a damaged database']} |",
        f"| jobs lost | {counts['jobs lost']} |",
        f"| jobs doubled | {counts['jobs doubled']} |",
        f"| plain requests | {counts['plain requests']} |",
        f"| plain answers, each with the undisturbed text | {counts['plain texts right']} |",
        f"| requests without an answer, all while a fault lasted | {counts['no answer']} |",
        f"| requests refused with a reason, all while a fault lasted | {counts['refused']} |",
        f"| connections broken on the way | {counts['connections broken on the way']} |",
        f"| **anything lost, doubled, changed or told wrongly** | **{len(outcome.violations)}** |",
        *(["", *(f"- {text}" for text in outcome.violations)] if outcome.violations else []),
        "",
        "Held as well, after each fault or at the end: restarts of the worker are counted, each with its cause; `asr_jobs` is what",
        "the list says; damaged databases are told and their uploads kept; a damaged pack is not served and named at `/readyz`;",
        "a full disk leaves `/healthz`, `/readyz` and `/metrics` as they are; the exit code after SIGTERM is 0; no upload stays.",
    ]


def _times(outcome: Outcome, name: str) -> str:
    if name in outcome.not_here:
        return f"not possible here: {outcome.not_here[name]}"
    return str(outcome.faults[name])

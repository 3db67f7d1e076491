"""The page about a campaign: what was done, what came of it, on which machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.chaos.campaign import Outcome
from tests.chaos.faults import FAULTS
from tests.chaos.world import ENDED

_HEAD = """\
# The service under random faults

Written by `make chaos` on {date}; do not edit. Seed {seed}, {minutes:g} minutes of faults, {all_minutes:.1f} with what
is around them. Machine: {processor}, {cores} cores granted, Linux {kernel}, Python {python}, load average
{load_average_at_start} before the start.

Two clients send jobs with idempotency keys and two send plain requests, without pause, through a proxy that can be a
bad network and the gateway (HAProxy, set up by the playbooks' template). The service runs the demo model in a control
group of 700 MiB, its data and its log on ext4 volumes of their own, its clock is libfaketime's; it keeps jobs for less
than what the clock is set by. The exporter and Prometheus, with our rules, watch it once a second. The order of faults
comes from the seed; what the service is doing when they come does not, so the counts differ.
"""
_FOOT = """\
An alert counts as true when its expression is; how long it must last before somebody hears of it is left out.

Held as well, after each fault or at the end: no job ends twice, as a witness in the database tells; restarts of the
worker are counted, each with its cause; `asr_jobs` is what the list says; damaged databases are told, and their uploads
kept; a damaged pack is named at `/readyz` and not served; a full disk or log leaves `/healthz`, `/readyz` and
`/metrics` as they are; the exit code after SIGTERM is 0, with a full log too; no upload stays. A reload of the gateway
costs no request. Prometheus keeps every sample through its kills, has the service's count of jobs and of lost workers,
told of every long absence of service and exporter and of none that was not, and no alert is true at the end that looks
at now.
"""
_RIGHT = {
    "jobs accepted": "jobs accepted, those sent again included",
    "jobs sent again after a damaged database": "jobs sent again after a damaged database",
    "jobs done": "jobs done, each with the undisturbed text",
    "jobs lost": "jobs lost",
    "jobs doubled": "jobs doubled",
    "plain requests": "plain requests",
    "plain texts right": "plain answers, each with the undisturbed text",
    "no answer": "requests (plain ones, jobs, questions) without an answer, each while a fault lasted",
    "refused": "requests refused with a reason, each while a fault lasted",
    "connections broken on the way": "connections that the bad network broke",
    "stalls": "times that the gateway took the host out because a busy machine left its checks unanswered",
    "scrapes kept": "scrapes that Prometheus has at the end",
}


def write(outcome: Outcome, machine: dict[str, Any], seconds: float, folder: Path) -> str:
    """Writes chaos.md and chaos.json; gives the page."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = {"machine": machine, "seconds_in_all": round(seconds), **vars(outcome)}
    text = json.dumps(raw, indent=1, ensure_ascii=False) + "\n"
    (folder / "chaos.json").write_text(text, encoding="utf-8")
    page = _page(outcome, machine, seconds)
    (folder / "chaos.md").write_text(page, encoding="utf-8")
    return page


def _page(outcome: Outcome, machine: dict[str, Any], seconds: float) -> str:
    minutes = {"minutes": outcome.seconds / 60, "all_minutes": seconds / 60}
    times = [f"| {name} | {_times(outcome, name)} |" for name in FAULTS]
    results = [f"| {meaning} | {outcome.counts[name]} |" for name, meaning in _RIGHT.items()]
    told = [f"| {alert} | {times} |" for alert, times in sorted(outcome.alerts.items())]
    kinds = {
        name.removeprefix(ENDED): times for name, times in outcome.counts.items() if name.startswith(ENDED)
    }
    listed = ", ".join(f"{kind} {times}" for kind, times in sorted(kinds.items()))
    ended = f"| processes killed or told to end, and started again ({listed}) | {sum(kinds.values())} |"
    wrong = f"| **lost, doubled, changed or told wrongly** | **{len(outcome.violations)}** |"
    lines = [
        _HEAD.format(seed=outcome.seed, **minutes, **machine),
        *("| fault | times |", "|---|---:|", *times, f"| all | {sum(outcome.faults.values())} |", ended, ""),
        *("| alert that became true for a fault | times |", "|---|---:|", *told, ""),
        *("| what came of it | |", "|---|---:|", *results, wrong, ""),
        *(f"- {text}\n" for text in outcome.violations),
        _FOOT,
    ]
    return "\n".join(lines)


def _times(outcome: Outcome, name: str) -> str:
    if name in outcome.not_here:
        return f"not possible here: {outcome.not_here[name]}"
    return str(outcome.faults[name])

"""Several runs of each setting, made into one row each: medians, worst cases, ratios, stability, changed words.

Not here: running anything (measure.py), and how rows look (report.py, chart.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Literal

from app.bench.measure import Result, Run
from app.bench.settings import Setting

Verdict = Literal["measured", "failed", "impossible"]
_REFUSED = (1, 2)  # the exit codes of `transcribe` for wrong usage and for what it cannot do


@dataclass(frozen=True)
class Row:
    """One setting. None where a figure is not known.

    Attributes:
        verdict: "measured" when at least one run ended well, "impossible" when the program refused the setting.
        stable: every run ended well, all with the same text.
        stability: the same for people.
        reason: why not measured, or why some runs failed.
        peak_bytes, device_bytes: the most of all runs.
        seconds_per_minute: recognition, the median; `fastest` and `slowest` are the ends of its range.
        whole_seconds: start to end of the process, the median.
        memory_ratio, time_ratio: against the first row.
        changed: characters of the text to change to get the first row's.
    """

    setting: Setting
    verdict: Verdict
    stable: bool
    stability: str
    reason: str = ""
    device: str | None = None
    precision: str | None = None
    hotwords: int | None = None
    characters: int | None = None
    peak_bytes: int | None = None
    device_bytes: int | None = None
    seconds_per_minute: float | None = None
    fastest: float | None = None
    slowest: float | None = None
    whole_seconds: float | None = None
    memory_ratio: float | None = None
    time_ratio: float | None = None
    changed: int | None = None


@dataclass(frozen=True)
class Matrix:
    """A finished table and what has to be said about it.

    Attributes:
        source: the recording's file name.
        audio_seconds: its length.
        model: as the results call it.
        hotwords: how many were used where they are on.
        machine: from machine.py.
        runs: by the settings' keys, each setting's in order.
    """

    source: str
    audio_seconds: float
    model: str
    note: str
    hotwords: int
    rounds: int
    machine: Mapping[str, Any]
    rows: Sequence[Row]
    runs: Mapping[str, Sequence[Run]]


def is_refusal(run: Run, source: str) -> bool:
    """Whether the program would not do this setting at all; a failure in the midst of the recording names that."""
    inside = source in run.reason or run.reason.startswith("internal error")
    return run.told and run.code in _REFUSED and not inside


def summarise(settings: Sequence[Setting], runs: Mapping[str, Sequence[Run]], source: str) -> list[Row]:
    """The rows, in the order of the settings.

    Args:
        runs: by the settings' keys; every setting has at least one.
        source: the recording, as it was given to the runs.
    """
    base: Row | None = None
    base_text: str | None = None
    rows = []
    for number, setting in enumerate(settings):
        row = _row(setting, runs[setting.key], source)
        good = _good(runs[setting.key])
        if number == 0 and good:
            base, base_text = row, good[0].text
        rows.append(_beside(row, base, good[0].text if good else None, base_text))
    return rows


def distance(left: str, right: str) -> int:
    """Fewest characters to insert, delete or replace to make one text the other.

    All of one column of the usual table is held in the bits of two integers (Myers 1999), so that an hour's text
    takes a second.
    """
    if left == right or not left or not right:
        return 0 if left == right else len(left) + len(right)
    places: dict[str, int] = {}
    for index, character in enumerate(left):
        places[character] = places.get(character, 0) | 1 << index
    full, last = (1 << len(left)) - 1, 1 << (len(left) - 1)
    rises, falls, edits = full, 0, len(left)
    for character in right:
        match = places.get(character, 0)
        across = (((match & rises) + rises) ^ rises) | match
        up = falls | (~(across | rises) & full)
        down = rises & across
        edits += bool(up & last) - bool(down & last)
        up, down = ((up << 1) | 1) & full, (down << 1) & full
        rises, falls = down | (~(match | falls | up) & full), up & (match | falls)
    return edits


def ratio(value: float | None, base: float | None) -> float | None:
    """None where there is nothing to compare."""
    return value / base if value is not None and base else None


def _good(runs: Sequence[Run]) -> list[Result]:
    return [run.result for run in runs if run.result is not None]


def _row(setting: Setting, runs: Sequence[Run], source: str) -> Row:
    good = _good(runs)
    reason = next((run.reason for run in runs if run.reason), "")
    if not good:
        if all(is_refusal(run, source) for run in runs):
            return Row(setting, "impossible", stable=False, stability="not possible here", reason=reason)
        stability = f"no: {len(runs)} of {len(runs)} runs failed"
        peak = max((run.peak_bytes for run in runs if run.peak_bytes is not None), default=None)
        return Row(setting, "failed", stable=False, stability=stability, reason=reason, peak_bytes=peak)
    stable, stability = _stability(len(runs), good)
    first = good[0]
    minutes = [result.rtf * 60 for result in good]
    return Row(
        setting,
        "measured",
        stable=stable,
        stability=stability,
        reason=reason,
        device=first.device,
        precision=first.precision,
        hotwords=first.hotwords,
        characters=len(first.text),
        peak_bytes=max((run.peak_bytes for run in runs if run.peak_bytes is not None), default=None),
        device_bytes=max(
            (result.device_peak_bytes for result in good if result.device_peak_bytes is not None),
            default=None,
        ),
        seconds_per_minute=median(minutes),
        fastest=min(minutes),
        slowest=max(minutes),
        whole_seconds=median(run.seconds for run in runs if run.result is not None),
    )


def _stability(count: int, good: Sequence[Result]) -> tuple[bool, str]:
    if len(good) < count:
        return False, f"no: {count - len(good)} of {count} runs failed"
    texts = len({result.text for result in good})
    if texts > 1:
        return False, f"no: {texts} different texts in {count} runs"
    return True, "yes" if count > 1 else "yes (one run)"


def _beside(row: Row, base: Row | None, text: str | None, base_text: str | None) -> Row:
    """The row with its ratios to the first one."""
    if base is None or text is None or base_text is None:
        return row
    return replace(
        row,
        memory_ratio=ratio(row.peak_bytes, base.peak_bytes),
        time_ratio=ratio(row.seconds_per_minute, base.seconds_per_minute),
        changed=distance(text, base_text),
    )

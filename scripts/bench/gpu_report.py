"""From the rows of the GPU benchmark to its page: tables by step, and the goals beside what was reached.

Not here: anything that runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from scripts.bench.gpu_steps import AUTOMODEL, OURS, Row

MIB = 1 << 20
TITLES = {
    "materials": "Materials",
    "ready": "From start to ready",
    "memory": "Memory foretold and taken",
    "breaker": "100 segments of 2 s and one of 58 s",
    "mixed": "One hour of mixed segments",
    "lengths": "Lengths",
    "small": "Smaller cards, emulated",
    "hotwords": "Hot words",
}
COLUMNS = (
    "recording",
    "hot words",
    "program",
    "audio s / s",
    "times AutoModel",
    "seconds",
    "ready after s",
    "peak MiB",
    "device MiB",
    "host MiB",
)
REMARKS = {
    "breaker": "AutoModel sorts by length and puts the long segment into the batch of all short ones, which it pads to"
    " 58 s (funasr issue #1641 among others).",
    "mixed": "`ours demo` is the same pipeline with a network of a few MB: about what decoding, finding speech and"
    " features take. AutoModel gets its segments for nothing.",
    "small": "torch's allocator got what such a card leaves beside CUDA's context, and the free memory that is told was"
    " that of such a card (scripts/bench/small_card.py). The context itself is this machine's.",
    "memory": "Error: what was foretold minus what was taken, as a share of all that is held with the weights"
    " (`max_memory_allocated`), and of the batch alone.",
}


def page(data: dict[str, Any], rows: Sequence[Row]) -> str:
    """The whole page."""
    lines = ["# GPU benchmark", "", *_introduction(data), ""]
    lines += ["## Goals", "", *goals(rows), ""]
    for step, title in TITLES.items():
        chosen = [row for row in rows if row.step == step]
        if chosen and (step != "materials" or chosen[0].failed):
            lines += [f"## {title}", ""]
            if step in REMARKS:
                lines += [REMARKS[step], ""]
            lines += _foretold(chosen) if step == "memory" else _table(chosen)
            lines += [""]
    return "\n".join(lines[:-1]) + "\n"


def _introduction(data: dict[str, Any]) -> list[str]:
    machine, device = data["machine"], data["machine"]["device"]
    lines = [
        f"Written by `make bench-gpu` on {machine['date']}; do not edit. The raw figures are beside this file."
    ]
    if data["rehearsal"]:
        lines += [
            "",
            "**A rehearsal: the CPU stands for the GPU, model and recordings are tiny. No figure means anything.**",
        ]
    described = ", ".join(f"{name} {value}" for name, value in device.items() if value)
    return [
        *lines,
        "",
        f"- Model: {data['model']}. What the words say means nothing.",
        f"- Device: {described or 'the CPU'}.",
        f"- Host: {machine['processor']}, {machine['cores']} cores granted, {machine['memory_gib']} GiB.",
        f"- Packages: {', '.join(f'{name} {version}' for name, version in machine['packages']['ours'].items())}.",
        "- Every run in a fresh process, the programs in turns; where there are several rounds, medians, and the",
        "  highest memory.",
        "- Ours decodes the file, finds speech and cuts it by itself, and this is in its time. AutoModel is given",
        "  samples in memory and the true spans of speech, and runs its own batching with batch_size_s=300.",
        "- `peak` is the most that torch's allocator gave out; `device` is what nvidia-smi saw, CUDA's context",
        "  included (- where it tells nothing).",
    ]


def _table(rows: Sequence[Row]) -> list[str]:
    lines = [f"| {' | '.join(COLUMNS)} |", "|---|---:|---|" + "---:|" * (len(COLUMNS) - 3)]
    merged = merge_rounds(rows)
    for row in merged:
        begin = f"| {row.case} | {row.hotwords} | {name_of(row)} |"
        if row.failed:
            lines.append(f"{begin} {row.failed} |" + " |" * 6)
            continue
        base = find(merged, AUTOMODEL, row.case, row.hotwords)
        against = ratio(speed(row), speed(base))
        lines.append(
            f"{begin} {number(speed(row), 1)} | {number(against, 2)} | {number(row.seconds, 2)}"
            f" | {number(row.load_seconds, 1)} | {mib(row.peak_bytes)} | {mib(row.device_bytes)}"
            f" | {mib(row.rss_bytes)} |"
        )
    return lines


def _foretold(rows: Sequence[Row]) -> list[str]:
    lines: list[str] = []
    for row in rows:
        if row.failed:
            lines += [f"{row.program}: {row.failed}", ""]
            continue
        facts = row.facts
        check = facts["self_check"] or {"reason": "none", "seconds": 0.0}
        told = (
            f"{mib(facts['held_bytes'])} MiB held with the weights, ready after {facts['ready_seconds']:.1f} s within"
            f" the process; self-check: {check['reason']} ({check['seconds']:.2f} s)."
        )
        lines += [
            f"### {name_of(row)}",
            "",
            told,
            "",
            "| segments | frames | hot words | foretold MiB | taken MiB | error of all | error of the batch |",
            "|---:|---:|---:|---:|---:|---:|---:|",
        ]
        for shape in facts["shapes"]:
            begin = f"| {shape['rows']} | {shape['frames']} | {shape['hotwords']} | {mib(shape['predicted_bytes'])} |"
            if "failed" in shape:
                lines.append(f"{begin} {shape['failed']} | | |")
                continue
            apart = shape["predicted_bytes"] - shape["measured_bytes"]
            of_all = apart / max(1, facts["held_bytes"] + shape["measured_bytes"])
            of_batch = apart / max(1, shape["measured_bytes"])
            lines.append(f"{begin} {mib(shape['measured_bytes'])} | {of_all:+.1%} | {of_batch:+.1%} |")
        lines += [""]
    return lines[:-1]


def goals(rows: Sequence[Row]) -> list[str]:
    """The goals that were set for a GPU, and the figures; "-" where a step has not run."""
    merged = merge_rounds(rows)
    ours = find(merged, "ours fp16", "1 h", 100, step="mixed")
    theirs = find(merged, AUTOMODEL, "1 h", 100, step="mixed")
    fewer, more = (find(merged, "ours fp16", "1 h", count, step="hotwords") for count in (0, 100))
    memory = [row for row in merged if row.step == "memory" and not row.failed]
    weights = next((row.facts["held_bytes"] for row in memory if row.program == "ours fp16"), None)
    peaks = [
        row.peak_bytes
        for row in merged
        if row.program == "ours fp16" and row.hotwords == 100 and row.peak_bytes is not None
    ]
    whole = [
        row.device_bytes for row in merged if row.program == "ours fp16" and row.device_bytes is not None
    ]
    small = [row for row in merged if row.step == "small" and "2 GB" in row.case and row.program in OURS]
    above = max(peaks) - weights if peaks and weights is not None else None
    time = ratio(more.seconds, fewer.seconds) if more and fewer else None
    space = None
    if more and fewer and more.peak_bytes is not None and fewer.peak_bytes is not None:
        space = more.peak_bytes - fewer.peak_bytes
    table = [
        (
            "1 h of mixed segments, fp16: at least 5 times AutoModel fp32",
            number(ratio(speed(ours), speed(theirs)), 2),
        ),
        ("fp16, 100 hot words, any length: at most 128 MiB above the weights", f"{mib(above)} MiB above"),
        ("the whole process on the device: at most 1024 MiB", f"{mib(max(whole, default=None))} MiB"),
        ("100 hot words: at most 1.03 of the time without", number(time, 3)),
        ("100 hot words: at most 16 MiB more", f"{mib(space)} MiB"),
        ("runs on an emulated 2 GB card", _said(small)),
        ("memory foretold within 10 % of what was taken", _worst(memory)),
    ]
    return ["| goal | reached |", "|---|---|", *(f"| {goal} | {reached} |" for goal, reached in table)]


def _said(rows: Sequence[Row]) -> str:
    if not rows:
        return "-"
    lost = [f"{row.program}, {row.case}: {row.failed}" for row in rows if row.failed]
    return "; ".join(lost) or "yes"


def _worst(rows: Iterable[Row]) -> str:
    errors = [
        abs(shape["predicted_bytes"] - shape["measured_bytes"])
        / max(1, row.facts["held_bytes"] + shape["measured_bytes"])
        for row in rows
        for shape in row.facts["shapes"]
        if "measured_bytes" in shape
    ]
    return f"worst {max(errors):.1%}" if errors else "-"


def merge_rounds(rows: Sequence[Row]) -> list[Row]:
    """One row for each program and case: median times, highest memory; a failure only when no round went well."""
    grouped: dict[tuple[str, str, int, str], list[Row]] = {}
    for row in rows:
        grouped.setdefault((row.step, row.case, row.hotwords, row.program), []).append(row)
    return [_merged(group) for group in grouped.values()]


def _merged(group: Sequence[Row]) -> Row:
    good = [row for row in group if not row.failed]
    if len(good) <= 1:
        return (good or list(group))[0]
    changes: dict[str, Any] = {}
    for name, choose in (
        ("seconds", median),
        ("load_seconds", median),
        ("peak_bytes", max),
        ("device_bytes", max),
        ("rss_bytes", max),
    ):
        values = [getattr(row, name) for row in good if getattr(row, name) is not None]
        changes[name] = choose(values) if values else None
    return Row(**(good[0].__dict__ | changes))


def find(
    rows: Iterable[Row], program: str, case: str, hotwords: int, *, step: str | None = None
) -> Row | None:
    """The row of a program and case that has figures."""
    for row in rows:
        same = (row.program, row.case, row.hotwords) == (program, case, hotwords)
        if same and not row.failed and step in {None, row.step}:
            return row
    return None


def name_of(row: Row) -> str:
    """The program, and the precision or device it took when that is not the one asked for."""
    wanted, ran = row.program.split()[-1], row.facts.get("precision", "")
    if not ran or wanted in {ran, "demo"}:
        return row.program
    return f"{row.program} (ran in {ran})"


def speed(row: Row | None) -> float | None:
    """Seconds of audio in one second."""
    if row is None or not row.audio_seconds or not row.seconds:
        return None
    return row.audio_seconds / row.seconds


def ratio(value: float | None, base: float | None) -> float | None:
    """One by the other, where both are there."""
    return value / base if value is not None and base else None


def number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def mib(size: float | None) -> str:
    return "-" if size is None else f"{size / MIB:.0f}"

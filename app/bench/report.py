"""The table as people read it (aligned text, a Markdown page) and as programs do (JSON).

Not here: where a figure comes from (summary.py), and where the files go (bench_command.py).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from app.bench.measure import Run
from app.bench.summary import Matrix, Row
from app.console import printable

MIB, GIB = 1 << 20, 1 << 30
NONE = "-"
_HEADINGS = (
    "setting",
    "device",
    "precision",
    "hot words",
    "peak MiB",
    "of first",
    "GPU MiB",
    "s per min",
    "range",
    "of first",
    "whole run s",
    "stable",
    "text",
)
_WORDS = frozenset({"setting", "device", "precision", "stable", "text"})
_MARKDOWN = str.maketrans({char: f"\\{char}" for char in "\\`*_[]<>|#"})


def cells(row: Row) -> list[str]:
    """One row of the table, as many texts as there are headings."""
    several = row.fastest is not None and row.fastest != row.slowest
    spread = f"{seconds(row.fastest)}-{seconds(row.slowest)}" if several else NONE
    return [
        row.setting.label,
        row.device or NONE,
        row.precision or NONE,
        NONE if row.hotwords is None else str(row.hotwords),
        mebibytes(row.peak_bytes),
        _ratio(row.memory_ratio),
        mebibytes(row.device_bytes),
        seconds(row.seconds_per_minute),
        spread,
        _ratio(row.time_ratio),
        seconds(row.whole_seconds),
        row.stability,
        _text(row),
    ]


def as_text(matrix: Matrix) -> str:
    """Heading, aligned table and notes, for a terminal."""
    table = [list(_HEADINGS), *([printable(cell) for cell in cells(row)] for row in matrix.rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(_HEADINGS))]
    lines = [printable(headline(matrix)), ""]
    for line in table:
        aligned = (
            text.ljust(width) if name in _WORDS else text.rjust(width)
            for name, text, width in zip(_HEADINGS, line, widths, strict=True)
        )
        lines.append("  ".join(aligned).rstrip())
    reasons = [f"{row.setting.label}: {printable(row.reason)}" for row in matrix.rows if row.reason]
    return "\n".join([*lines, *([""] if reasons else []), *reasons]) + "\n"


def as_markdown(matrix: Matrix, chart: str) -> str:
    """The page; `chart` is the file name of the picture beside it."""
    lines = ["# Settings compared on one machine", ""]
    lines += [
        f"Written by `python -m app bench --matrix` on {matrix.machine['date']}; do not edit.",
        "All runs are in the JSON file beside this page.",
        "",
    ]
    lines += [f"- {markdown(line)}." for line in facts(matrix)]
    lines += ["", f"![Peak memory and time of each setting]({chart})", ""]
    lines += [f"| {' | '.join(_HEADINGS)} |", _rule()]
    lines += [f"| {' | '.join(markdown(cell) for cell in cells(row))} |" for row in matrix.rows]
    reasons = [row for row in matrix.rows if row.reason]
    if reasons:
        lines += ["", "## What failed, and what this machine or model cannot do", ""]
        lines += [f"- {markdown(row.setting.label)}: {markdown(row.reason)}" for row in reasons]
    lines += ["", "## What the settings are", ""]
    lines += [
        f"- {markdown(row.setting.label)}: "
        + (f"`{row.setting.shown}`" if row.setting.shown else "no options beside the hot words")
        for row in matrix.rows
    ]
    lines += ["", "## How to read it", "", *_explanation(matrix)]
    return "\n".join(lines) + "\n"


def as_json(matrix: Matrix) -> str:
    """Everything that was measured; texts are given by length and SHA-256, not by their words."""
    data = {
        "format": "settings-matrix",
        "format_version": 1,
        "input": {"name": matrix.source, "seconds": matrix.audio_seconds},
        "model": matrix.model,
        "note": matrix.note,
        "hotwords_used": matrix.hotwords,
        "rounds": matrix.rounds,
        "machine": dict(matrix.machine),
        "rows": [_row_data(row) for row in matrix.rows],
        "runs": {key: [_run_data(run) for run in runs] for key, runs in matrix.runs.items()},
    }
    return json.dumps(data, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def headline(matrix: Matrix) -> str:
    """What was measured, in one line."""
    return f"{matrix.source}, {matrix.audio_seconds:.0f} s of audio, model {matrix.model}, {_rounds(matrix.rounds)}"


def facts(matrix: Matrix) -> list[str]:
    """What was measured on what, a clause each."""
    machine = matrix.machine
    sets = ", ".join(machine["instructions"]) or "none of the instruction sets we look for"
    versions = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    lines = [
        f"Recording: {matrix.source}, {matrix.audio_seconds:.0f} s",
        f"Model: {matrix.model}" + (f"; {matrix.note}" if matrix.note else ""),
        f"Hot words: {matrix.hotwords} used where they are on",
        f"Processor: {machine['processor']} ({sets})",
        f"Cores: {machine['cores']} granted ({machine['cores_reason']}), load average {machine['load_average']} before",
        f"Memory: {_memory(machine)}",
        f"GPU: {'; '.join(machine['gpus']) or 'none that an NVIDIA driver reports'}",
        f"Software: {machine['system']}, Python {machine['python']}, {versions}",
    ]
    if machine["environment"]:
        settings = ", ".join(f"{name}={value}" for name, value in machine["environment"].items())
        lines.append(f"Set in the environment: {settings}")
    return lines


def mebibytes(count: int | None) -> str:
    return NONE if count is None else f"{count / MIB:.0f}"


def seconds(value: float | None) -> str:
    """Three digits that matter, more before the point."""
    if value is None:
        return NONE
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def markdown(text: str) -> str:
    """A text that Markdown shows as it is, on one line."""
    return printable(text).translate(_MARKDOWN)


def _ratio(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}"


def _text(row: Row) -> str:
    if row.changed is None or row.characters is None:
        return NONE
    if not row.changed:
        return "as first" if row.characters else "as first (empty)"
    return f"{row.changed} characters differ"


def _rounds(count: int) -> str:
    return "one round" if count == 1 else f"{count} rounds"


def _rule() -> str:
    return "|" + "".join("---|" if name in _WORDS else "---:|" for name in _HEADINGS)


def _memory(machine: Mapping[str, Any]) -> str:
    def size(count: int | None) -> str:
        return "unknown" if count is None else f"{count / GIB:.1f} GiB"

    limit = machine["memory_limit_bytes"]
    bound = "" if limit is None else f", {size(limit)} of it granted to the container"
    return f"{size(machine['memory_bytes'])}{bound}, {size(machine['memory_available_bytes'])} free before the start"


def _explanation(matrix: Matrix) -> Sequence[str]:
    return (
        f"- Every run is a process of its own; {_rounds(matrix.rounds)}, the settings in turns. One more run of the",
        "  first setting came before and is not counted: it brings files into memory.",
        "- `peak MiB` is the most memory the process held at once in any run, `GPU MiB` the most that it took of the",
        "  GPU's memory. `s per min` is recognition for one minute of audio, the model loaded before: median and",
        "  range. `whole run s` is the process from start to end, the median. `of first` is against the first row.",
        "- `stable`: every run ended well, and all gave the same text. `text` is compared with the first row's, in",
        "  characters that would have to change.",
        "- Batch sizes are limits; fewer segments are taken at once where memory or the device say so.",
    )


def _row_data(row: Row) -> dict[str, Any]:
    data = {
        "key": row.setting.key,
        "label": row.setting.label,
        "options": list(row.setting.options),
        "hotwords_on": row.setting.hotwords,
    }
    rest = {item.name: getattr(row, item.name) for item in dataclasses.fields(row) if item.name != "setting"}
    return data | {name: round(v, 4) if isinstance(v, float) else v for name, v in rest.items()}


def _run_data(run: Run) -> dict[str, Any]:
    data: dict[str, Any] = {
        "code": run.code,
        "seconds": round(run.seconds, 3),
        "kernel_peak_bytes": run.kernel_peak_bytes,
        "reason": run.reason,
        "result": None,
    }
    if run.result is not None:
        told = dataclasses.asdict(run.result)
        text = told.pop("text")
        digest = hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()
        data["result"] = told | {"characters": len(text), "text_sha256": digest}
    return data

"""From runs to tables: medians, ratios to AutoModel, and the file that people read.

Not here: anything that runs or measures.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from scripts.bench.contestants import PIECE_SECONDS, Run, Task, attention_bytes, piece_seconds

MIB, GIB = 2**20, 2**30
BASE = "FunASR AutoModel fp32"  # what ratios refer to
COLUMNS = (
    "program",
    "load s",
    "transcription s",
    "RTF",
    "time / AutoModel",
    "first text s",
    "peak RSS MiB",
    "RSS / AutoModel",
    "cost of an hour",
)
# Of a core-hour, in any currency: about what rented cores cost. Ratios of costs do not depend on it.
PRICE = 0.03


@dataclass(frozen=True)
class Report:
    """Everything that is written down about one benchmark."""

    machine: dict[str, Any]
    tasks: Sequence[Task]
    runs: Sequence[Run]
    model: str
    hotwords: int
    failures: dict[str, str]

    def write(self, folder: Path, name: str) -> None:
        """Write `name`.md and `name`.json into the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        raw = {
            "machine": self.machine,
            "model": self.model,
            "runs": [dataclasses.asdict(run) for run in self.runs],
            "medians": [dataclasses.asdict(run) for task in self.tasks for run in self.medians(task)],
            "failures": self.failures,
        }
        (folder / f"{name}.json").write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
        (folder / f"{name}.md").write_text("\n".join(self.lines()) + "\n", encoding="utf-8")

    def medians(self, task: Task) -> list[Run]:
        """One run per contestant: the median of each figure; the worst of peak memory."""
        made = []
        names = dict.fromkeys(run.contestant for run in self.runs)
        for name in names:
            runs = [run for run in self._of(task) if run.contestant == name]
            if runs:
                made.append(
                    Run(
                        name,
                        task.seconds,
                        task.threads,
                        median(run.load_seconds for run in runs),
                        median(run.transcribe_seconds for run in runs),
                        median(run.first_seconds for run in runs),
                        max(run.peak_rss_bytes for run in runs),
                        runs[0].words,
                    )
                )
        return made

    def lines(self) -> list[str]:
        made = ["# CPU benchmark", "", *self._introduction(), ""]
        for task in self.tasks:
            made += [f"## {title(task)}", "", *self._table(task), ""]
            if piece_seconds(task):
                made += [_why_pieces(task), ""]
        if self.failures:
            made += [
                "## What did not run",
                "",
                *(f"- {name}: {why}" for name, why in self.failures.items()),
                "",
            ]
        return made[:-1]

    def _introduction(self) -> list[str]:
        machine = self.machine
        instructions = ", ".join(machine["instructions"]) or "none of those we look for"
        memory = f"{machine['memory_gib']} GiB, Linux {machine['kernel']}"
        load = f"load average {machine['load_average_at_start']} before the start"
        words = f"{self.hotwords} hot words for all that know them"
        made = [
            f"Written by `make bench` on {machine['date']}; do not edit. The raw figures are beside this file.",
            "",
            f"- Model: {self.model}.",
            f"- Same weights, same files, same {words}, times of words included. What the words say means nothing.",
            f"- Machine: {machine['processor']} ({instructions}), {machine['cores']} cores granted, {memory}, {load}.",
            "- sherpa-onnx has no hot words for this kind of model: it runs the same weights without that part.",
            "- Every run in a fresh process, the programs in turns.",
            f"- Medians of {self._rounds()} runs; memory is the highest of all runs.",
            "- `load`: from the start of the process to a ready model; the peers also recognise one second,",
            "  so that their libraries are warm. `transcription`: from there to the last word. `first text`: from the",
            "  start of the process to the first words that a reader sees.",
            "- Ours finds speech and cuts it by itself, and this is in its time; the peers get each file as one",
            "  segment unless it says otherwise.",
            f"- `cost of an hour` of audio: RTF x threads x {PRICE}, the price taken for an hour of one core.",
            "- `by torch` is the part for GPUs run on the processor, to compare networks; the product never runs so.",
        ]
        made += [f"- {name}: {_versions(found)}" for name, found in machine["packages"].items()]
        return made

    def _rounds(self) -> str:
        counts = []
        for task in self.tasks:
            per_name = [run.contestant for run in self._of(task)]
            count = max((per_name.count(name) for name in per_name), default=0)
            counts.append(f"{count} ({title(task)})")
        return ", ".join(counts)

    def _of(self, task: Task) -> list[Run]:
        return [run for run in self.runs if (run.seconds, run.threads) == (task.seconds, task.threads)]

    def _table(self, task: Task) -> list[str]:
        medians = self.medians(task)
        base = next((run for run in medians if run.contestant == BASE), None)
        made = [f"| {' | '.join(COLUMNS)} |", "|---|" + "---:|" * (len(COLUMNS) - 1)]
        for run in medians:
            time_ratio = ratio(run.transcribe_seconds, base.transcribe_seconds) if base else "-"
            memory_ratio = ratio(run.peak_rss_bytes, base.peak_rss_bytes) if base else "-"
            made.append(
                f"| {run.contestant} | {run.load_seconds:.1f} | {run.transcribe_seconds:.2f}"
                f" | {run.transcribe_seconds / run.seconds:.4f} | {time_ratio} | {run.first_seconds:.1f}"
                f" | {run.peak_rss_bytes / MIB:.0f} | {memory_ratio}"
                f" | {run.transcribe_seconds / run.seconds * run.threads * PRICE:.5f} |"
            )
        return made


def ratio(value: float, base: float) -> str:
    return f"{value / base:.2f}"


def title(task: Task) -> str:
    """What tells a table from the others."""
    threads = "one thread" if task.threads == 1 else f"{task.threads} threads"
    return f"{length_of(task.seconds)} of audio, {threads}"


def length_of(seconds: int) -> str:
    return f"{seconds // 3600} h" if seconds % 3600 == 0 else f"{seconds} s"


def _versions(found: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in found.items())


def _why_pieces(task: Task) -> str:
    return (
        f"As one segment this file would cost AutoModel {attention_bytes(task.seconds) / GIB:.0f} GiB for attention"
        f" alone (64 bytes x frames squared), so the peers were fed pieces of {PIECE_SECONDS} s by hand, cut anywhere;"
        " their text at the cuts would be wrong, and their first text is that of the first piece."
    )

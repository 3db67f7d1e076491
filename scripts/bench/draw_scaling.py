"""The pictures of scaling.md, drawn from scaling.json by matplotlib (.venv-monitoring).

python -m scripts.bench.draw_scaling scaling.json scaling.svg
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

MIB = 2**20
_COLOURS = ("#2f6f9f", "#d9822b", "#3a8a5f")


def draw(raw: dict[str, Any], target: Path) -> None:
    """Three panels: RTF against length, time and memory against hot words, speed and answers against clients."""
    mpl.rcParams["svg.hashsalt"] = "scaling"  # the same figures make the same file
    figure, (length, words, clients) = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained")
    points, crowds = raw["points"], raw["crowds"]
    lengths = [point for point in points if point["series"] == "length"]
    for colour, threads in zip(_COLOURS, sorted({point["threads"] for point in lengths}), strict=False):
        line = [point for point in lengths if point["threads"] == threads]
        ends = [point["seconds"] for point in line], [point["rtf"] for point in line]
        length.plot(*ends, "o-", color=colour, label=f"{threads} thread{'s' if threads > 1 else ''}")
        floor = raw["floors"][str(threads)]["int8"]["rtf"]
        length.axhline(floor, color=colour, linestyle=":", label=f"its matrix products alone: {floor:.4f}")
    _panel(length, "Length", "seconds of audio", "RTF", log=True)
    length.legend(fontsize=8)
    listed = [point for point in points if point["series"] == "hotwords"]
    at = [point["hotwords"] for point in listed]
    words.plot(at, [point["rtf"] for point in listed], "o-", color=_COLOURS[0])
    words.set_xscale("symlog", linthresh=1)
    _panel(words, "Hot words", "hot words", "RTF")
    _second(words, at, [point["peak_rss_bytes"] / MIB for point in listed], "peak RSS MiB")
    at = [crowd["clients"] for crowd in crowds]
    clients.plot(at, [crowd["speed"] for crowd in crowds], "o-", color=_COLOURS[0])
    _panel(clients, "Clients at once", "clients", "seconds of audio a second", log=True)
    _second(clients, at, [crowd["p95_seconds"] for crowd in crowds], "95 % of answers within, s")
    figure.savefig(target, metadata={"Date": None})


def _panel(axes: Axes, title: str, x: str, y: str, *, log: bool = False) -> None:
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(x)
    axes.set_ylabel(y, color=_COLOURS[0])
    if log:
        axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, color="#dde3e9")


def _second(axes: Axes, at: list[int], values: list[float], label: str) -> None:
    other = axes.twinx()
    other.plot(at, values, "s--", color=_COLOURS[1])
    other.set_ylim(bottom=0)
    other.set_ylabel(label, color=_COLOURS[1])


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))

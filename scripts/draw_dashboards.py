"""Draws the dashboards as pictures, from series that a real Prometheus gave: `make dashboard-images`.

    python scripts/draw_dashboards.py SERIES FOLDER

SERIES is what tests/e2e/test_monitoring.py keeps (KEEP_PANEL_SERIES=FILE), FOLDER gets dashboard-NAME.png. These are
renderings by matplotlib on the layout of the dashboards' files, not screenshots of Grafana; each picture says so.
Needs .venv-monitoring.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image

DASHBOARDS = Path(__file__).resolve().parent.parent / "monitoring" / "grafana" / "dashboards"
NAMES = ("fleet", "host", "service", "out-of-memory")
# A unit of Grafana's grid in inches; the page has 24 of them in width.
WIDTH, HEIGHT, DPI = 0.62, 0.40, 96
PAGE, PANEL, GRID, INK, FAINT = "#f4f5f5", "#ffffff", "#e4e7ea", "#24292e", "#6e7681"
COLOURS = ("#3274d9", "#e0752d", "#56a64b", "#8f3bb8", "#c4162a", "#1f9e9e", "#b877d9", "#967302")
LIMIT = "limit"  # the legend of limits, as monitoring/dashboards/panels.py gives it
STATES = {"green": "#2f8f3f", "red": "#c4162a", "text": INK}
NOTE = "Rendering by matplotlib of real series: one host with the demo model, one host made of fakes. Not a screenshot."

Series = dict[str, Any]


def scaled(value: float, step: float, units: Sequence[str]) -> str:
    """1536, 1024, (B, KiB) -> 1.5 KiB."""
    place = 0
    while abs(value) >= step and place < len(units) - 1:
        value /= step
        place += 1
    return f"{value:.3g} {units[place]}".strip()


def seconds(value: float) -> str:
    """Seconds, minutes or hours."""
    if value >= 7200:
        return f"{value / 3600:.3g} h"
    return f"{value / 60:.3g} min" if value >= 120 else f"{value:.3g} s"


_BYTES = ("B", "KiB", "MiB", "GiB", "TiB")
FORMATS: dict[str, Callable[[float], str]] = {
    "bytes": lambda value: scaled(value, 1024, _BYTES),
    "Bps": lambda value: f"{scaled(value, 1024, _BYTES)}/s",
    "s": seconds,
    "percentunit": lambda value: f"{100 * value:.3g} %",
    "celsius": lambda value: f"{value:.3g} °C",
    "watt": lambda value: f"{value:.3g} W",
    "reqps": lambda value: f"{value:.2g}/s",
}


def plain(value: float) -> str:
    """A number of no unit."""
    return f"{value:.3g}"


def formatter(unit: str) -> Callable[[float], str]:
    """How values of one of Grafana's units are written."""
    return FORMATS.get(unit, plain)


def draw_graph(axes: Axes, panel: dict[str, Any], found: Sequence[Sequence[Series]]) -> None:
    """Lines, stacked areas or bars over seconds."""
    write = formatter(panel["fieldConfig"]["defaults"]["unit"])
    lines = [series for part in found for series in part]
    own = [series for series in lines if series["legend"] != LIMIT]
    draw_lines(axes, panel, own)
    top = axes.get_ylim()[1]
    for series in lines:
        level = series["values"][-1][1]
        if series["legend"] == LIMIT:
            label = f"limit {write(level)}"
            if level > 4 * top > 0:  # drawn, it would flatten everything else
                axes.plot([], [], color="#c4162a", linestyle="--", linewidth=1.2, label=f"{label} (above)")
            else:
                axes.axhline(level, color="#c4162a", linestyle="--", linewidth=1.2, label=label)
    axes.set_ylim(bottom=0, top=panel["fieldConfig"]["defaults"].get("max"))
    if not any(value for series in lines for _, value in series["values"]):
        axes.set_ylim(0, 1)
    axes.set_xlim(0, max(when for series in lines for when, _ in series["values"]))
    dress(axes, write)
    columns = 1 if len(own) <= 2 and panel["gridPos"]["w"] < 12 else 2
    below = (-0.02, -0.1)
    axes.legend(
        fontsize=6.5, frameon=False, ncols=columns, loc="upper left", bbox_to_anchor=below, labelcolor=INK
    )


def draw_lines(axes: Axes, panel: dict[str, Any], own: Sequence[Series]) -> None:
    """The figures themselves."""
    custom = panel["fieldConfig"]["defaults"].get("custom", {})
    stacked = custom.get("stacking", {}).get("mode") == "normal"
    below: dict[float, float] = {}
    for place, series in enumerate(own):
        colour = COLOURS[place % len(COLOURS)]
        times = [when for when, _ in series["values"]]
        values = [value for _, value in series["values"]]
        if stacked:
            floor = [below.get(when, 0.0) for when in times]
            values = [value + low for value, low in zip(values, floor, strict=True)]
            below.update(zip(times, values, strict=True))
            axes.fill_between(times, floor, values, color=colour, alpha=0.25, linewidth=0)
        elif custom.get("drawStyle") == "bars":
            axes.fill_between(times, values, step="mid", color=colour, alpha=0.45, linewidth=0)
        axes.plot(
            times, values, color=colour, linewidth=1.4, label=shortened(series["legend"] or panel["title"])
        )


def dress(axes: Axes, write: Callable[[float], str]) -> None:
    """Axes without anything that is not needed."""
    axes.yaxis.set_major_locator(MaxNLocator(4))
    if write is FORMATS["bytes"]:
        axes.set_yticks(binary_ticks(axes.get_ylim()[1]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: write(value)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} s"))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=7, colors=FAINT, length=0)
    for side in axes.spines.values():
        side.set_visible(False)


def binary_ticks(top: float) -> list[float]:
    """About four round numbers of bytes from 0 to `top`."""
    step = 2.0 ** max(0, round(math.log2(max(1.0, top) / 4)))
    return [place * step for place in range(int(top // step) + 1)]


def shortened(text: str) -> str:
    """A legend that fits."""
    return text if len(text) <= 46 else text[:45] + "…"


def draw_figure(axes: Axes, panel: dict[str, Any], found: Sequence[Sequence[Series]]) -> None:
    """One number, coloured by its steps; or a name."""
    axes.axis("off")
    series = found[0][0]
    value = series["values"][-1][1]
    name = panel["options"].get("textMode") == "name"
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    colour = [step["color"] for step in steps if step["value"] is None or value >= step["value"]][-1]
    text = series["legend"] if name else formatter(panel["fieldConfig"]["defaults"]["unit"])(value)
    axes.text(0.5, 0.42, text, ha="center", va="center", fontsize=15 if name else 20, color=STATES[colour])


def rows_of(panel: dict[str, Any], found: Sequence[Sequence[Series]]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of a table, joined as the panel's transformations say."""
    options = panel["transformations"][-1]["options"]
    names = sorted(options["indexByName"], key=options["indexByName"].get)
    key = names[0]
    labels = [name for name in names[1:] if name not in options["renameByName"]]
    references = [target["refId"] for target in panel["targets"]]
    values = [f"Value #{name}" for name in references] if len(references) > 1 else ["Value"]
    headings = [options["renameByName"].get(name, "") for name in values]
    units = {
        override["matcher"]["options"]: override["properties"][0]["value"]
        for override in panel["fieldConfig"]["overrides"]
        if override["properties"][0]["id"] == "unit"
    }
    rows: dict[str, dict[str, str]] = {}
    for place, (heading, part) in enumerate(zip(headings, found, strict=True)):
        for series in part:
            told = series["labels"]
            joined = told.get(key, "") if len(headings) > 1 else str(sorted(told.items()))
            row = rows.setdefault(joined, {key: told.get(key, "")})
            if place == 0:
                row.update({name: told.get(name, "") for name in labels})
            if heading:
                row[heading] = formatter(units.get(heading, "short"))(series["values"][-1][1])
    shown = [key, *labels, *filter(None, headings)]
    shown = [name for name in shown if any(row.get(name) for row in rows.values())]
    return shown, [[shortened(row.get(name, "")) for name in shown] for row in rows.values()]


def draw_table(axes: Axes, panel: dict[str, Any], found: Sequence[Sequence[Series]]) -> None:
    """As many rows as there is room for."""
    axes.axis("off")
    headings, cells = rows_of(panel, found)
    widths = [max(len(name), *(len(row[place]) for row in cells)) + 2 for place, name in enumerate(headings)]
    line = 0.25 / (axes.get_position().height * axes.figure.get_figheight())  # a quarter of an inch
    room = int(0.96 / line) - 1
    start = 0.0
    for place, name in enumerate(headings):
        axes.text(start, 0.96, name, fontsize=7.5, color="#1f60c4", va="top", weight="bold")
        for number, row in enumerate(cells[:room], start=1):
            axes.text(start, 0.96 - line * number, row[place], fontsize=7.5, color=INK, va="top")
        start += widths[place] / sum(widths)


DRAW = {"timeseries": draw_graph, "stat": draw_figure, "table": draw_table}


def draw(made: dict[str, Any], found: dict[str, Any]) -> Figure:
    """A whole dashboard."""
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in made["panels"]) + 2
    page = plt.figure(figsize=(24 * WIDTH, rows * HEIGHT), facecolor=PAGE)

    def box(x: float, y: float, w: float, h: float) -> tuple[float, float, float, float]:
        """From the grid (y downwards, below the heading) to parts of the page."""
        return x / 24, 1 - (y + h + 2) / rows, w / 24, h / rows

    page.text(0.006, 1 - 0.75 / rows, made["title"], fontsize=15, weight="bold", color=INK, va="center")
    page.text(0.006, 1 - 1.6 / rows, NOTE, fontsize=8, color=FAINT, va="center")
    for panel in made["panels"]:
        at = panel["gridPos"]
        if panel["type"] == "row":
            left, bottom, _, height = box(at["x"], at["y"], at["w"], at["h"])
            page.text(
                left + 0.006,
                bottom + height / 2,
                panel["title"],
                fontsize=10,
                weight="bold",
                color=INK,
                va="center",
            )
            continue
        frame = page.add_axes(box(at["x"] + 0.08, at["y"] + 0.08, at["w"] - 0.16, at["h"] - 0.16))
        frame.set(facecolor=PANEL, xticks=[], yticks=[])
        for side in frame.spines.values():
            side.set_color(GRID)
        left, bottom, _, height = box(at["x"], at["y"], at["w"], at["h"])
        title, shown = panel["title"], found[str(panel["id"])]
        page.text(
            left + 0.008,
            bottom + height - 0.55 / rows,
            title,
            fontsize=8.5,
            weight="bold",
            color=INK,
            va="center",
        )
        inner = (at["x"] + 0.3, at["y"] + 1.0, at["w"] - 0.6, at["h"] - 1.2)
        if panel["type"] == "timeseries":
            lines = min(4, max(1, sum(len(part) for part in shown) // 2 + 1))
            inner = (at["x"] + 1.6, at["y"] + 1.1, at["w"] - 2.0, at["h"] - 2.2 - 0.38 * lines)
        axes = page.add_axes(box(*inner))
        axes.set_facecolor(PANEL)
        DRAW[panel["type"]](axes, panel, shown)
    return page


def from_the_beginning(found: dict[str, Any]) -> dict[str, Any]:
    """The same with times in seconds since the first value of all."""
    lines = [
        line for panels in found.values() for parts in panels.values() for part in parts for line in part
    ]
    begin = min(line["values"][0][0] for line in lines)
    for line in lines:
        line["values"] = [(when - begin, value) for when, value in line["values"]]
    return found


def save(page: Figure, path: Path) -> None:
    """As PNG of few colours: small, and the same for the eye."""
    held = io.BytesIO()
    page.savefig(held, format="png", dpi=DPI, facecolor=PAGE)
    plt.close(page)
    Image.open(held).convert("RGB").quantize(256, kmeans=1).save(path, optimize=True)


def main() -> int:
    """The command; gives its exit code."""
    about = textwrap.dedent(__doc__ or "")
    parser = argparse.ArgumentParser(description=re.split(r"\n\n", about)[0])
    parser.add_argument("series", type=Path, help="JSON that the end-to-end test kept")
    parser.add_argument("folder", type=Path, help="where the pictures go")
    told = parser.parse_args()
    found = from_the_beginning(json.loads(told.series.read_text(encoding="utf-8")))
    told.folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        made = json.loads((DASHBOARDS / f"{name}.json").read_text(encoding="utf-8"))
        save(draw(made, found[name]), told.folder / f"dashboard-{name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The table as a picture: an SVG of bars in two panels, peak memory and seconds per minute of audio.

Plain shapes and text on a light ground, readable without scripts, styles or fonts of its own. Every text from
outside is escaped, and characters that XML cannot hold are written as their codes.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.bench.report import MIB, headline, seconds
from app.bench.summary import Matrix, Row
from app.console import printable
from app.progress import fit

_WIDTH, _MARGIN = 1000.0, 20.0
_LABELS = 165.0  # room for the settings' names
_BARS = 300.0  # length of the longest bar
_VALUES = 95.0  # room for the figures behind it
_TOP, _ROW, _BAR, _FOOT = 118.0, 30.0, 16.0, 34.0
_GROUND, _INK, _GREY, _GRID = "#ffffff", "#1f2933", "#5b6773", "#dde3e9"
_HOST, _DEVICE, _TIME = "#2f6f9f", "#d9822b", "#3a8a5f"
_COLUMNS = 110  # of the lines above the panels
_TICKS = 4


@dataclass(frozen=True)
class _Panel:
    """One panel: where it begins, a row's bars (value and colour), how values are written, and what is said beside."""

    title: str
    left: float
    bars: Callable[[Row], list[tuple[float, str]]]
    write: Callable[[float], str]
    whiskers: Callable[[Row], tuple[float, float] | None]
    remark: Callable[[Row], str]


def as_svg(matrix: Matrix) -> str:
    """The whole picture, a line break after each element."""
    height = _TOP + _ROW * len(matrix.rows) + _FOOT
    size = f'width="{_WIDTH:g}" height="{height:g}" viewBox="0 0 {_WIDTH:g} {height:g}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" font-family="system-ui, sans-serif">',
        f"<title>{_safe('Settings compared: ' + headline(matrix))}</title>",
        f"<desc>{_safe(_spoken(matrix.rows))}</desc>",
        f'<rect width="{_WIDTH:g}" height="{height:g}" fill="{_GROUND}"/>',
        _heading(_MARGIN, 32, "Settings compared on one machine", size=18),
        _text(_MARGIN, 54, _short(headline(matrix)), ink=_GREY),
        _text(_MARGIN, 72, _short(_machine(matrix)), ink=_GREY),
    ]
    for number, row in enumerate(matrix.rows):
        lines.append(_text(_MARGIN + _LABELS, _middle(number) + 4.5, row.setting.label, anchor="end"))
    for panel in _panels(matrix.rows):
        lines += _draw(panel, matrix.rows)
    return "\n".join([*lines, "</svg>"]) + "\n"


def step(largest: float, ticks: int = _TICKS) -> float:
    """The distance of grid lines: 1, 2 or 5 times a power of ten, for at most about so many lines."""
    if not largest > 0 or not math.isfinite(largest):
        return 1.0
    power = 10.0 ** math.floor(math.log10(largest / ticks))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor * ticks >= largest * 0.999)


def _panels(rows: Sequence[Row]) -> tuple[_Panel, _Panel]:
    on_device = any(row.device_bytes is not None for row in rows)

    def memory(row: Row) -> list[tuple[float, str]]:
        readings = [(row.peak_bytes, _HOST), (row.device_bytes, _DEVICE)]
        return [(value / MIB, colour) for value, colour in readings if value is not None]

    def time(row: Row) -> list[tuple[float, str]]:
        return [] if row.seconds_per_minute is None else [(row.seconds_per_minute, _TIME)]

    def spread(row: Row) -> tuple[float, float] | None:
        if row.fastest is None or row.slowest is None or row.fastest == row.slowest:
            return None
        return row.fastest, row.slowest

    def remark(row: Row) -> str:
        return "" if row.stable else " unstable"

    title = "Peak memory, MiB" + (": process (blue), GPU (orange)" if on_device else " of the process")
    left = _MARGIN + _LABELS + 10
    second = left + _BARS + _VALUES
    return (
        _Panel(title, left, memory, "{:.0f}".format, lambda _: None, lambda _: ""),
        _Panel("Seconds for one minute of audio", second, time, seconds, spread, remark),
    )


def _draw(panel: _Panel, rows: Sequence[Row]) -> list[str]:
    values = [value for row in rows for value, _ in panel.bars(row)]
    values += [ends[1] for row in rows if (ends := panel.whiskers(row)) is not None]
    largest = max(values, default=0.0)
    scale = _BARS / largest if largest > 0 else 0.0
    bottom = _TOP + _ROW * len(rows)
    lines = [_heading(panel.left, _TOP - 14, panel.title)]
    distance = step(largest)
    for tick in range(int(largest / distance * 1.0001) + 1):
        x = panel.left + tick * distance * scale
        lines.append(_line(x, _TOP - 4, x, bottom + 4, _GRID))
        lines.append(_text(x, bottom + 19, f"{tick * distance:g}", ink=_GREY, anchor="middle", size=11))
    for number, row in enumerate(rows):
        lines += _draw_row(panel, row, _middle(number), scale)
    return lines


def _draw_row(panel: _Panel, row: Row, middle: float, scale: float) -> list[str]:
    bars = panel.bars(row)
    if not bars:
        told = "not possible here" if row.verdict == "impossible" else "failed"
        return [_text(panel.left + 4, middle + 4.5, told, ink=_GREY)]
    lines = []
    thickness = _BAR / len(bars)
    for place, (value, colour) in enumerate(bars):
        top, width = middle - _BAR / 2 + place * thickness, max(1.0, value * scale)
        lines.append(
            f'<rect x="{panel.left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{thickness:.1f}" fill="{colour}"/>'
        )
    end = max(value for value, _ in bars) * scale
    ends = panel.whiskers(row)
    if ends is not None:
        low, high = (panel.left + value * scale for value in ends)
        lines += [_line(low, middle, high, middle, _INK)]
        lines += [_line(x, middle - 4, x, middle + 4, _INK) for x in (low, high)]
        end = max(end, ends[1] * scale)
    figures = " / ".join(panel.write(value) for value, _ in bars)
    lines.append(_text(panel.left + end + 6, middle + 4.5, figures + panel.remark(row)))
    return lines


def _spoken(rows: Sequence[Row]) -> str:
    """The figures as sentences, for readers who do not see the picture."""
    told = []
    for row in rows:
        if row.verdict == "measured" and row.peak_bytes is not None and row.seconds_per_minute is not None:
            told.append(
                f"{row.setting.label}: {row.peak_bytes / MIB:.0f} MiB, "
                f"{seconds(row.seconds_per_minute)} s for one minute of audio, stable: {row.stability}."
            )
        else:
            told.append(f"{row.setting.label}: {row.stability}.")
    return " ".join(told)


def _machine(matrix: Matrix) -> str:
    machine = matrix.machine
    gpu = "; ".join(machine["gpus"]) or "no GPU"
    note = f"; {matrix.note}" if matrix.note else ""
    return f"{machine['processor']}, {machine['cores']} cores, {gpu}, {machine['date']}{note}"


def _middle(number: int) -> float:
    return _TOP + _ROW * (number + 0.5)


def _text(x: float, y: float, text: str, *, ink: str = _INK, anchor: str = "start", size: int = 13) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}"'
    return f'<text {place} fill="{ink}">{_safe(text)}</text>'


def _heading(x: float, y: float, text: str, size: int = 13) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="600" fill="{_INK}">{_safe(text)}</text>'


def _line(left: float, top: float, right: float, bottom: float, colour: str) -> str:
    return f'<line x1="{left:.1f}" y1="{top:.1f}" x2="{right:.1f}" y2="{bottom:.1f}" stroke="{colour}"/>'


def _safe(text: str) -> str:
    return html.escape(printable(text))


def _short(text: str) -> str:
    clean = printable(text)
    return clean if fit(clean, _COLUMNS) == clean else fit(clean, _COLUMNS - 1) + "…"

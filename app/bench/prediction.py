"""What the memory model foretells beside what batches then take, on this device, for one model.

Here: opening the model as `transcribe` does, a grid of batch shapes, and the figures as data. The model of costs is
app/asr/memory.py's; how it is used app/asr/batching.py's. Nothing is written here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from app.asr.backend import Backend
from app.asr.catalogue import model_packs
from app.asr.engine import EngineOptions
from app.asr.errors import DeviceMemoryError, ResourceError
from app.asr.memory import BatchShape, CostModel, probe_with
from app.asr.opening import Opened, open_model
from app.asr.pack import Pack
from app.asr.selfcheck import golden_samples

ROWS, FRAMES, HOTWORDS = (1, 4, 16, 64), (100, 500, 1000, 2000), (0, 100, 1000)
# A batch of one hour of padded audio; larger ones are no use, and a CPU would take minutes for one.
MOST_PADDED_FRAMES = 64_000


def grid(*, most_frames: int = MOST_PADDED_FRAMES, hotwords: bool = True, rows: int = 64) -> list[BatchShape]:
    """Batch shapes from one short segment to many long ones.

    Args:
        most_frames: of rows times frames.
        hotwords: whether the model has them.
        rows: the most that the backend takes at once.
    """
    return [
        BatchShape(count, frames, words)
        for count in ROWS
        for frames in FRAMES
        for words in (HOTWORDS if hotwords else (0,))
        if count * frames <= most_frames and count <= rows
    ]


def foretold(options: EngineOptions, *, most_frames: int = MOST_PADDED_FRAMES) -> dict[str, Any]:
    """Opens a model and runs the grid on it.

    Raises:
        AsrError: it cannot be opened.
        ResourceError: it was opened without a model of costs.
    """
    started = time.perf_counter()
    opened = open_model(options)
    ready = time.perf_counter() - started
    backend, cost = opened.station.backend, opened.station.cost
    if cost is None:
        raise ResourceError("This model's backend plans no memory", fix="Choose another model or device.")
    shapes = grid(
        most_frames=most_frames, hotwords=opened.has_hotwords and options.hotwords, rows=backend.most_rows
    )
    held = backend.memory.held()
    return {
        "model": opened.name,
        "device": backend.device,
        "precision": backend.precision,
        "reasons": list(opened.reasons),
        "ready_seconds": ready,
        "self_check": _verdict(opened),
        "held_bytes": held,
        "shapes": compared(backend, cost, shapes, golden_pack(options.model, backend.precision)),
        "peak_bytes": backend.memory.peak(),
    }


def compared(
    backend: Backend, cost: CostModel, shapes: Sequence[BatchShape], pack: Pack
) -> list[dict[str, int | str]]:
    """For each shape the bytes foretold and measured beside the weights; one that does not fit says so."""
    measure = probe_with(backend, backend.memory, backend.prepare(golden_samples(pack)))
    rows: list[dict[str, int | str]] = []
    for shape in shapes:
        row: dict[str, int | str] = {
            "rows": shape.rows,
            "frames": shape.frames,
            "hotwords": shape.hotwords,
            "predicted_bytes": cost.bytes(shape),
        }
        try:
            row["measured_bytes"] = measure(shape)
        except DeviceMemoryError as error:
            row["failed"] = error.problem
        backend.release()
        rows.append(row)
    return rows


def golden_pack(model: str, precision: str) -> Pack:
    """A pack of the model, for its golden clip: all of them have the same."""
    packs = model_packs(model)
    return Pack.open(packs.get(precision) or next(iter(packs.values())))


def as_json(figures: dict[str, Any]) -> str:
    """The figures, for a program to read."""
    return json.dumps(figures, ensure_ascii=False, indent=1) + "\n"


def as_text(figures: dict[str, Any]) -> str:
    """The figures, for people: MiB, and the error in percent of all that is held."""
    check = figures["self_check"]
    begin = (
        f"{figures['model']} on {figures['device']}, {figures['precision']}:"
        f" {_mib(figures['held_bytes'])} MiB held, ready after {figures['ready_seconds']:.1f} s"
    )
    lines = [
        begin,
        f"self-check: {check['reason']} ({check['seconds']:.2f} s)" if check else "self-check: none",
        "",
        f"{'segments':>8} {'frames':>7} {'hot words':>9} {'foretold':>9} {'measured':>9} {'error':>7}",
    ]
    for row in figures["shapes"]:
        shape = f"{row['rows']:>8} {row['frames']:>7} {row['hotwords']:>9} {_mib(row['predicted_bytes']):>9}"
        if "failed" in row:
            lines.append(f"{shape}  {row['failed']}")
            continue
        held, found = figures["held_bytes"], row["measured_bytes"]
        error = 100 * (row["predicted_bytes"] - found) / max(1, held + found)
        lines.append(f"{shape} {_mib(found):>9} {error:>6.1f}%")
    return "\n".join(lines) + "\n"


def _verdict(opened: Opened) -> dict[str, Any] | None:
    verdict = opened.verdict
    if verdict is None:
        return None
    return {"passed": verdict.passed, "reason": verdict.reason, "seconds": verdict.seconds}


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f}"

"""Runs and tables of settings, made up: the tests of app/bench say only what matters to them."""

from __future__ import annotations

from typing import Any

from app.bench.measure import Result, Run
from app.bench.settings import SETTINGS, Setting
from app.bench.summary import Matrix, summarise

MIB = 1 << 20
SOURCE = "talk.wav"
MACHINE: dict[str, Any] = {
    "date": "2026-01-02 03:04 UTC",
    "processor": "A processor",
    "instructions": ["AVX2"],
    "cores": 2,
    "cores_reason": "all processors of the machine",
    "memory_bytes": 8 << 30,
    "memory_limit_bytes": None,
    "memory_available_bytes": 6 << 30,
    "gpus": [],
    "system": "Linux 6.1",
    "python": "3.11.7",
    "packages": {"numpy": "2.0"},
    "environment": {},
    "load_average": 0.1,
}


def good(text: str = "今天开会", rtf: float = 0.1, peak: int = 100, gpu: int | None = None) -> Run:
    """A run that ended well; memory in MiB."""
    device = None if gpu is None else gpu * MIB
    result = Result(text, 60.0, rtf, peak * MIB, device, "cpu", "int8", "demo", 6)
    return Run(0, 10 * rtf, None, result)


def bad(code: int = 2, reason: str = "The model demo has no fp32 pack", told: bool = True) -> Run:
    """A run that failed, and said so itself unless `told` is false or a signal ended it."""
    return Run(code, 0.5, None, None, reason, told and code > 0)


def matrix(*runs: list[Run], settings: tuple[Setting, ...] = SETTINGS, **changes: Any) -> Matrix:
    """A table of the first settings, one for each list of runs."""
    taken = settings[: len(runs)]
    by_key = {setting.key: made for setting, made in zip(taken, runs, strict=True)}
    given: dict[str, Any] = {
        "source": SOURCE,
        "audio_seconds": 60.0,
        "model": "demo",
        "note": "",
        "hotwords": 6,
        "rounds": len(runs[0]),
        "machine": MACHINE,
        "rows": summarise(taken, by_key, SOURCE),
        "runs": by_key,
    }
    return Matrix(**(given | changes))

"""The settings that are compared, and the command line that each one stands for.

Not here: running them (measure.py), and what came out (summary.py).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app.asr.engine import DEFAULT_MODEL
from app.asr.hotwords import OFF

# Names that the shipped recordings hold; Chinese models know their characters too.
DEFAULT_HOTWORDS = ("姜嘉琳", "王钧", "陈嘉鸣", "俞雪琳", "赵炜", "成霖")


@dataclass(frozen=True)
class Setting:
    """One row of the table.

    Attributes:
        label: what the table calls it.
        options: of `transcribe`, beside the hot words and those that all settings share.
        hotwords: whether the hot words are given; without, they are switched off.
    """

    label: str
    options: tuple[str, ...] = ()
    hotwords: bool = True

    @property
    def key(self) -> str:
        """The label as one word, for the command line and for programs."""
        return "-".join(self.label.lower().replace(",", " ").split())

    @property
    def shown(self) -> str:
        """The options as they would be typed."""
        return " ".join([*self.options, *([] if self.hotwords else ["--hotwords", OFF])])


SETTINGS = (
    Setting("default"),
    Setting("hot words off", hotwords=False),
    Setting("CPU", ("--device", "cpu")),
    Setting("CPU, hot words off", ("--device", "cpu"), hotwords=False),
    Setting("batch 1", ("--batch-size", "1")),
    Setting("batch 4", ("--batch-size", "4")),
    Setting("FP16", ("--precision", "fp16")),
    Setting("FP32", ("--precision", "fp32")),
    Setting("int8", ("--precision", "int8")),
    Setting("segments of 60 s", ("--segment-seconds", "60")),
)
KEYS = tuple(setting.key for setting in SETTINGS)


@dataclass(frozen=True)
class Request:
    """What all settings share: the recording, the model, the hot words as typed, threads (None: as granted)."""

    source: Path
    model: str = DEFAULT_MODEL
    hotwords: tuple[str, ...] = DEFAULT_HOTWORDS
    threads: int | None = None


def choose(only: str) -> tuple[Setting, ...]:
    """The settings whose keys are named, in the table's order.

    Raises:
        ValueError: an unknown key, or none at all; the message names those there are.
    """
    wanted = {key.strip().lower() for key in only.split(",") if key.strip()}
    unknown = sorted(wanted.difference(KEYS))
    if unknown or not wanted:
        raise ValueError(f"no such setting: {', '.join(unknown) or repr(only)}; there are {', '.join(KEYS)}")
    return tuple(setting for setting in SETTINGS if setting.key in wanted)


def command(setting: Setting, request: Request) -> Sequence[str]:
    """The process that measures this setting: `transcribe`, with its result as JSON."""
    words = request.hotwords if setting.hotwords else (OFF,)
    threads = () if request.threads is None else (f"--threads={request.threads}",)
    # Joined by "=", so that no value is taken for an option; a path that begins with a dash needs its directory.
    source = str(request.source)
    return (
        sys.executable,
        *("-m", "app", "transcribe", "--format=json"),
        f"--model={request.model}",
        *threads,
        *(f"--hotwords={word}" for word in words),
        *setting.options,
        f"./{source}" if source.startswith("-") else source,
    )

"""Where a model's packs lie: names to directories, and which precision a CPU host should take.

A model is a directory that is a pack, or that holds packs named by precision (`int8/`, `fp32/`, `fp16/`), or a name
for such a directory: `demo` ships with the program, all others lie in the models directory.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from app.asr.errors import PackError
from app.asr.pack import MANIFEST, PRECISIONS

DEMO = "demo"
DEMO_PACKS = Path(__file__).resolve().parent.parent / "demo" / "packs"
MODELS_VARIABLE = "ASR_MODELS_DIR"
DEFAULT_MODELS_DIRECTORY = Path("models")
# On a CPU int8 is the fastest by far and the smallest; float16 is stored in half and computed in float32.
CPU_PREFERENCE = ("int8", "fp32", "fp16")


def models_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Where named packs lie: the environment's choice, or `models/` below the working directory."""
    return Path(environment.get(MODELS_VARIABLE) or DEFAULT_MODELS_DIRECTORY)


def model_directory(model: str) -> Path:
    """The directory a name or path stands for; it need not exist."""
    if model == DEMO:
        return DEMO_PACKS
    named = models_directory() / model
    return named if "/" not in model and named.is_dir() else Path(model)


def find_pack(model: str, precision: str) -> Path:
    """The pack directory to open for a model on a CPU.

    Args:
        precision: "auto" takes the first of int8, fp32, fp16 that is there.

    Raises:
        PackError: nothing of that name, or no pack of that precision; what there is is named.
    """
    directory = model_directory(model)
    if (directory / MANIFEST).exists() or not directory.is_dir():
        return directory
    there = [name for name in PRECISIONS if (directory / name / MANIFEST).exists()]
    if not there:
        return directory  # Pack.open says what is wrong with it.
    wanted = (
        next((name for name in CPU_PREFERENCE if name in there), "") if precision == "auto" else precision
    )
    if wanted not in there:
        raise PackError(
            f"The model {model} has no {precision} pack, only {', '.join(there)}",
            fix=f"Choose one of these, or make one: python -m app pack SOURCE --output DIR --precision {precision}",
        )
    return directory / wanted

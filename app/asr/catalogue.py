"""The models by name: what is known about each, and where its pack or model directory lies on this machine.

A model is a directory that is a pack, or that holds packs named by precision (`int8/`, `fp32/`, `fp16/`), or a name
for such a directory: `demo` ships with the program, all others lie in the models directory. Models of other families
than ours are FunASR model directories there. Here is data and paths; which of a model's packs is taken is decided
in devices.py, and loading is done by the backends.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from app.asr.architecture import KINDS, PUNCTUATION_KIND
from app.asr.errors import InputError, PackError
from app.asr.pack import MANIFEST, PRECISIONS, precision_of

DEMO = "demo"
PUNCTUATION = "ct-punc-c"  # the punctuation model that is used where its pack is there
DEMO_PACKS = Path(__file__).resolve().parent.parent / "demo" / "packs"
AUTO, OFF = "auto", "off"
MODELS_VARIABLE = "ASR_MODELS_DIR"
DEFAULT_MODELS_DIRECTORY = Path("models")

_MODEL_LINE = re.compile(r"^model:\s*['\"]?(\w+)", re.MULTILINE)

Family = Literal["paraformer", "funasr", "punctuation"]
_OURS = ("onnx", "torch")
_ZOO_LICENCE = "FunASR Model License"
_ZOO = "sizes as FunASR's model list gives them"


@dataclass(frozen=True)
class MemoryFigures:
    """Bytes of host memory (CPU) or device memory (GPU) to plan with; None where nobody has measured it."""

    cpu_int8: int | None = None
    cpu_fp32: int | None = None
    gpu_fp16: int | None = None


@dataclass(frozen=True)
class CatalogueEntry:
    """One model.

    Attributes:
        source: its id on ModelScope; for Whisper the name of OpenAI's checkpoint; for demo, where it ships.
        family: "paraformer" runs on this program's own network, from a pack; "funasr" through FunASR's AutoModel;
            "punctuation" puts marks behind the words of the others, from a pack.
        kind: FunASR's model class.
        parameters: in millions.
        download_bytes: what the source weighs; None where it is not known.
        memory: planning figures; `origin` says where these and the sizes come from.
        languages: codes; `more_languages` counts those beyond.
        timestamps: whether times of words are computed; else they are spread over the speech.
        longest_seconds: what it can take at once, where it has a limit.
        extra: Python package that this model alone needs.
    """

    name: str
    source: str
    family: Family
    kind: str
    origin: str
    aliases: tuple[str, ...] = ()
    parameters: float | None = None
    download_bytes: int | None = None
    memory: MemoryFigures = field(default_factory=MemoryFigures)
    languages: tuple[str, ...] = ("zh", "en")
    more_languages: int = 0
    hotwords: bool = False
    timestamps: bool = True
    backends: tuple[str, ...] = _OURS
    longest_seconds: float | None = None
    extra: str | None = None
    licence: str | None = _ZOO_LICENCE


# The first is the one to take when nothing speaks for another.
ENTRIES = (
    CatalogueEntry(
        name="seaco-paraformer-large",
        aliases=("seaco", "seaco-paraformer", "paraformer-zh"),
        source="iic/speech_seaco_paraformer_large_asr_nat-zh-cn-16k-common-vocab8404-pytorch",
        family="paraformer",
        kind="SeacoParaformer",
        parameters=247.3,
        memory=MemoryFigures(cpu_int8=545 << 20, cpu_fp32=1147 << 20),
        hotwords=True,
        origin="parameters counted from the architecture; memory is the peak of a whole process in "
        "docs/benchmarks/peers.md (one hour, hot words, two threads), with random weights of that shape",
    ),
    CatalogueEntry(
        name="paraformer-large",
        aliases=("paraformer",),
        source="iic/speech_paraformer-large_asr_nat-zh-cn-16k-common-vocab8404-pytorch",
        family="paraformer",
        kind="Paraformer",
        parameters=220.1,
        download_bytes=889_000_000,
        origin="parameters counted from the architecture; the download is that of the same model on Hugging Face, "
        "rounded",
    ),
    CatalogueEntry(
        name="paraformer-small",
        source="iic/speech_paraformer_asr_nat-zh-cn-16k-common-vocab8358-tensorflow1",
        family="paraformer",
        kind="Paraformer",
        parameters=68,
        origin=_ZOO,
    ),
    CatalogueEntry(
        name="sensevoice-small",
        aliases=("sensevoice", "SenseVoiceSmall"),
        source="iic/SenseVoiceSmall",
        family="funasr",
        kind="SenseVoiceSmall",
        parameters=234.0,
        download_bytes=936_682_164,
        memory=MemoryFigures(cpu_fp32=2313 << 20),
        languages=("zh", "yue", "en", "ja", "ko"),
        backends=("funasr",),
        extra="sentencepiece",
        origin="parameters counted from the architecture; the download is that of the same model on Hugging Face; "
        "memory is the peak of a whole process with random weights of that shape (docs/models.md)",
    ),
    CatalogueEntry(
        name="uniasr",
        aliases=("uniasr-large",),
        source="iic/speech_UniASR-large_asr_2pass-zh-cn-16k-common-vocab8358-tensorflow1-offline",
        family="funasr",
        kind="UniASR",
        parameters=220,
        timestamps=False,
        backends=("funasr",),
        origin=_ZOO,
    ),
    CatalogueEntry(
        name="whisper-tiny",
        aliases=("whisper", "tiny"),
        source="tiny",
        family="funasr",
        kind="WhisperWarp",
        parameters=37.2,
        download_bytes=75_600_000,
        memory=MemoryFigures(cpu_fp32=745 << 20),
        languages=("zh", "en", "ja", "ko"),
        more_languages=95,
        timestamps=False,
        backends=("funasr",),
        longest_seconds=30.0,
        extra="openai-whisper",
        licence="MIT",
        origin="parameters counted from the architecture, the download from these at two bytes each, rounded; "
        "memory is the peak of a whole process with random weights of that shape (docs/models.md)",
    ),
    CatalogueEntry(
        name=PUNCTUATION,
        source="iic/punc_ct-transformer_zh-cn-common-vocab272727-pytorch",
        family="punctuation",
        kind=PUNCTUATION_KIND,
        parameters=73.0,
        timestamps=False,
        backends=("onnx",),
        origin="parameters counted from the architecture; docs/benchmarks/punctuation.md has what it adds to a process",
    ),
    CatalogueEntry(
        name=DEMO,
        source="ships with the program",
        family="paraformer",
        kind="SeacoParaformer",
        parameters=3.5,
        download_bytes=0,
        languages=("zh",),
        hotwords=True,
        licence=None,
        origin="counted from the shipped weights; knows a small closed vocabulary of synthetic speech only",
    ),
)


def listing() -> tuple[CatalogueEntry, ...]:
    """All models; the one to take first comes first."""
    return ENTRIES


def entry(name: str) -> CatalogueEntry | None:
    """The model of this name, alias or ModelScope id, in any case; None when there is none."""
    wanted = name.casefold()
    for candidate in ENTRIES:
        if wanted in (spelling.casefold() for spelling in _spellings(candidate)):
            return candidate
    return None


def known_entry(name: str) -> CatalogueEntry:
    """The same, for a name that must be one of the catalogue.

    Raises:
        InputError: it is not; names that look like it and all names are given.
    """
    found = entry(name)
    if found is not None:
        return found
    raise unknown_model(name)


def unknown_model(name: str) -> InputError:
    """The error for a model that is neither in the catalogue nor a directory."""
    spellings = {
        spelling.casefold(): candidate.name for candidate in ENTRIES for spelling in _spellings(candidate)
    }
    near = difflib.get_close_matches(name.casefold(), spellings, n=3, cutoff=0.6)
    guesses = list(dict.fromkeys(spellings[spelling] for spelling in near))
    meant = f"Did you mean {' or '.join(guesses)}? " if guesses else ""
    names = ", ".join(candidate.name for candidate in ENTRIES)
    return InputError(
        f"There is no model named {name}, and no directory of that name",
        fix=f"{meant}The models are {names} (`python -m app models` tells more); a directory works too.",
    )


def _spellings(candidate: CatalogueEntry) -> tuple[str, ...]:
    source = (candidate.source,) if "/" in candidate.source else ()
    return (candidate.name, *candidate.aliases, *source)


def models_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Where named packs lie: the environment's choice, or `models/` below the working directory."""
    return Path(environment.get(MODELS_VARIABLE) or DEFAULT_MODELS_DIRECTORY)


def model_directory(model: str) -> Path:
    """The directory a name or path stands for; it need not exist."""
    if model == DEMO:
        return DEMO_PACKS
    known = entry(model)
    names = (model, *((known.name, *known.aliases) if known is not None else ()))
    for name in names:
        named = models_directory() / name
        if "/" not in name and named.is_dir():
            return named
    return Path(model)


def source_directory(wanted: CatalogueEntry) -> Path:
    """Where the files of a model that FunASR runs lie, or would: below its name, or where the hub's client puts them.

    A directory by the entry's name counts first, so that one can be put or linked there by hand.
    """
    named = models_directory() / wanted.name
    fetched = models_directory() / wanted.source
    return fetched if "/" in wanted.source and fetched.is_dir() and not named.is_dir() else named


def on_this_machine(wanted: CatalogueEntry) -> tuple[str, ...]:
    """What is here of a model: the precisions of its packs, or "files" for a FunASR model directory."""
    if wanted.family == "funasr":
        directory = source_directory(wanted)
        return ("files",) if directory.is_dir() and any(directory.iterdir()) else ()
    if wanted.name == DEMO:
        return _packs(DEMO_PACKS)
    there = [_packs(models_directory() / name) for name in (wanted.name, *wanted.aliases)]
    return tuple(name for name in PRECISIONS if any(name in packs for packs in there))


def _packs(directory: Path) -> tuple[str, ...]:
    """The precisions of the packs in a directory, or of the pack that it is."""
    try:
        stated = json.loads((directory / MANIFEST).read_text(encoding="utf-8")).get("precision")
        return tuple(name for name in PRECISIONS if name == stated)
    except (OSError, ValueError, AttributeError):
        return tuple(name for name in PRECISIONS if (directory / name / MANIFEST).exists())


def pack_plan(source: str, precision: str, output: Path | None) -> tuple[str, Path]:
    """What to pack, and where the pack goes: names become their source, and their place in the models directory.

    Raises:
        InputError: the model needs no pack, or it is not clear where the pack should go.
    """
    known = entry(source) if not Path(source).is_dir() else None
    if known is not None and (known.family == "funasr" or known.name == DEMO):
        fix = (
            "It ships with the program."
            if known.name == DEMO
            else f"python -m app models --fetch {known.name}"
        )
        raise InputError(f"{known.name} needs no pack", fix=fix)
    if output is None and known is None:
        raise InputError(f"Where the pack of {source} goes is not said", fix="Add --output DIR.")
    if known is None:
        return source, output or Path()
    return known.source, output or models_directory() / known.name / precision


def served_by_funasr(model: str) -> bool:
    """Whether a name or path stands for a model of another family, which FunASR runs."""
    known = entry(model)
    if known is not None:
        return known.family == "funasr"
    directory = model_directory(model)
    if directory.is_file():
        return directory.suffix == ".pt"  # a Whisper checkpoint
    try:
        config = (directory / "config.yaml").read_text(encoding="utf-8")
    except OSError:
        return False
    kind = _MODEL_LINE.search(config)
    return kind is not None and kind[1] not in KINDS


def model_packs(model: str) -> dict[str, Path]:
    """Precision -> directory of a model's packs.

    Raises:
        PackError: there is none; what there is instead is named.
        InputError: nothing is known by that name.
    """
    directory = model_directory(model)
    known = entry(model)
    if known is not None and known.family == "punctuation":
        raise InputError(
            f"{known.name} recognises no speech, it puts punctuation into the text of other models",
            fix=f"Name a model for speech, and this one with --punctuation {known.name}.",
        )
    if not directory.exists() and known is not None:
        raise _not_packed(known)
    if not directory.exists() and "/" not in model:
        raise unknown_model(model)
    found = {name: directory / name for name in PRECISIONS if (directory / name / MANIFEST).exists()}
    if found and not (directory / MANIFEST).exists():
        return found
    return {precision_of(directory): directory}


def punctuation_directory(wish: str) -> Path | None:
    """The punctuation pack for "auto" (the catalogue's, if it is here), "off", a name or a directory; None for none.

    Raises:
        PackError: what was asked for by name or directory is not there.
    """
    if wish == OFF:
        return None
    directory = model_directory(PUNCTUATION if wish == AUTO else wish)
    known = entry(PUNCTUATION if wish == AUTO else wish)
    for found in (directory, *(directory / precision for precision in PRECISIONS[::-1])):
        if (found / MANIFEST).exists():
            return found
    if wish == AUTO:
        return None
    if known is not None and not directory.exists():
        raise _not_packed(known)
    raise PackError(
        f"There is no punctuation pack at {directory}",
        fix=f"Give its directory or {PUNCTUATION}, or `auto` or `off`.",
    )


def _not_packed(known: CatalogueEntry) -> PackError:
    return PackError(
        f"There is no pack of {known.name} on this machine",
        fix=f"Make one: python -m app pack {known.name} --precision int8",
    )

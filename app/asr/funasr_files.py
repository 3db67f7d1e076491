"""What FunASR needs before it can open a model: its files on the disk, and Python packages.

Nothing is loaded here: funasr_backend.py does that. A directory that is to be packed is read by funasr_source.py.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from app.asr.catalogue import CatalogueEntry, listing, source_directory
from app.asr.errors import ResourceError, SourceError

WHISPER = "WhisperWarp"

_TOOLBOX = "the toolbox image has it, and so has the environment that scripts/make_venv.sh dev makes"
_PACKAGES = {"openai-whisper": "whisper"}  # where the name to import is another


@dataclass(frozen=True)
class ModelFiles:
    """Files of a model: for Whisper one checkpoint, for all others a FunASR directory.

    Attributes:
        kind: FunASR's model class.
        frontend: what makes its features, as config.yaml names it.
        weights: the checkpoint in a FunASR directory.
    """

    name: str
    kind: str
    path: Path
    frontend: str = ""
    weights: Path | None = None


def find_files(wanted: Path | str | CatalogueEntry) -> ModelFiles:
    """Names, paths and entries to files that are there.

    Raises:
        SourceError: they are not, or do not say which model they are.
    """
    if isinstance(wanted, CatalogueEntry):
        directory, name = source_directory(wanted), wanted.name
        fix = f"Fetch it: python -m app models --fetch {wanted.name} (or copy its files into {directory})."
    else:
        directory, name = Path(wanted), Path(wanted).name
        fix = "Give a FunASR model directory, or a name that `python -m app models` lists."
    if directory.is_file() and directory.suffix == ".pt":
        return ModelFiles(name, WHISPER, directory.absolute())
    if not directory.is_dir():
        raise SourceError(f"The files of the model {name} are not in {directory}", fix=fix)
    config = directory / "config.yaml"
    checkpoints = sorted(directory.glob("*.pt"))
    if not config.exists() and len(checkpoints) == 1:
        return ModelFiles(name, WHISPER, checkpoints[0].absolute())
    settings = _settings(config, fix)
    weights = directory / _weights_name(directory, fix)
    return ModelFiles(
        name, str(settings["model"]), directory.absolute(), str(settings.get("frontend")), weights
    )


def _settings(config: Path, fix: str) -> Mapping[str, Any]:
    try:
        settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise SourceError(f"{config} cannot be read ({error})", fix=fix) from error
    if not isinstance(settings, dict) or not isinstance(settings.get("model"), str):
        raise SourceError(f"{config} does not say which model this is", fix=fix)
    return settings


def _weights_name(directory: Path, fix: str) -> str:
    """The checkpoint that configuration.json names, after a look at all files it names: FunASR goes on without."""
    file = directory / "configuration.json"
    try:
        metas = json.loads(file.read_text(encoding="utf-8"))["file_path_metas"]
        weights = metas["init_param"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{file} does not name the files of a model ({error!r})", fix=fix) from error
    names = list(_strings(metas))
    outside = [name for name in names if Path(name).is_absolute() or ".." in Path(name).parts]
    if outside or not isinstance(weights, str):
        raise SourceError(
            f"{file} names {', '.join(outside) or weights!r}, which is not a file beside it", fix=fix
        )
    missing = [name for name in names if not (directory / name).is_file()]
    if missing:
        raise SourceError(f"{directory} lacks {', '.join(missing)}", fix=fix)
    return weights


def _strings(data: object) -> Iterator[str]:
    if isinstance(data, str):
        yield data
    elif isinstance(data, (dict, list)):
        for item in data.values() if isinstance(data, dict) else data:
            yield from _strings(item)


def check_packages(kind: str) -> None:
    """Raises ResourceError for what FunASR needs to run this kind, when it is not installed."""
    extra = next((entry.extra for entry in listing() if entry.kind == kind), None)
    for package in ("funasr", "torch", *([extra] if extra else [])):
        if importlib.util.find_spec(_PACKAGES.get(package, package)) is None:
            raise missing_package(package)


def missing_package(package: str) -> ResourceError:
    """The error for a package that is not installed."""
    return ResourceError(
        f"This model needs the Python package {package}, which is not installed here",
        fix=f"Run it where that is: {_TOOLBOX}.",
    )

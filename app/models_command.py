"""`python -m app models`: the catalogue as a table or as JSON, and fetching the files of a model that FunASR runs.

What is known of each model is in app.asr.catalogue; nothing is loaded for the table.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from app.asr.errors import InputError, PackError
from app.console import emit, printable, say

if TYPE_CHECKING:
    from app.asr.catalogue import CatalogueEntry

FetchFunction = Callable[["CatalogueEntry", Callable[[str], None]], Path]

_COLUMNS = ("name", "languages", "parameters", "download", "memory", "hot words", "backends", "here")


def declare(verb: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    verb.add_argument("--json", action="store_true", help="print a JSON object")
    verb.add_argument("--check", metavar="NAME|DIR", help="is it on this machine? if not: how to get it")
    verb.add_argument("--fetch", metavar="NAME", help="fetch the files of a model that FunASR runs")


def models(arguments: argparse.Namespace, fetch: FetchFunction | None = None) -> int:
    """Print all models, or fetch one; returns 0. `fetch` stands in for the network in tests.

    Raises:
        InputError: an unknown name, or a model that needs a pack instead of files.
        SourceError, ResourceError: it could not be fetched.
    """
    if arguments.check is not None:
        return _check(arguments.check)
    if arguments.fetch is not None:
        return _fetch(arguments.fetch, fetch or _fetch_files)
    return _list(as_json=arguments.json)


def _list(*, as_json: bool) -> int:
    # Here, not above: other verbs need not wait for the numerical libraries.
    from app.asr.catalogue import listing, models_directory, on_this_machine

    entries = listing()
    if as_json:
        data = [asdict(entry) | {"here": on_this_machine(entry)} for entry in entries]
        emit(json.dumps({"models": data}, ensure_ascii=False, indent=2) + "\n")
        return 0
    rows = [_COLUMNS, *(_row(entry, on_this_machine(entry)) for entry in entries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    for row in rows:
        emit("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n")
    emit(
        "\nmemory: of the whole process, where it was measured.\n"
        f"here: packs (`python -m app pack` makes them) or files (--fetch NAME) in {printable(models_directory())}\n"
    )
    return 0


def _check(model: str) -> int:
    # Here, not above: as in _list.
    from app.asr.catalogue import entry, model_packs, on_this_machine, served_by_funasr

    known = entry(model)
    if not served_by_funasr(model):
        there = tuple(model_packs(model))
    elif known is None or on_this_machine(known):
        there = ("files",)
    else:
        raise PackError(
            f"The files of {known.name} are not on this machine",
            fix=f"python -m app models --fetch {known.name}",
        )
    say(f"{printable(model)} is here: {', '.join(there)}")
    return 0


def _fetch_files(wanted: CatalogueEntry, progress: Callable[[str], None]) -> Path:
    # Here, not above: the table need not wait for anything heavy.
    from app.asr.funasr_backend import fetch_model

    return fetch_model(wanted, progress)


def _fetch(name: str, fetch: FetchFunction) -> int:
    from app.asr.catalogue import known_entry

    wanted = known_entry(name)
    if wanted.family != "funasr":
        pack = f"python -m app pack {wanted.name} --precision int8"
        raise InputError(
            f"{wanted.name} runs from a pack, not from the files of its source",
            fix="It ships with the program." if wanted.name == "demo" else f"Fetch and pack it: {pack}",
        )
    say(f"fetched: {printable(fetch(wanted, say))}")
    return 0


def _row(entry: CatalogueEntry, here: tuple[str, ...]) -> tuple[str, ...]:
    languages = " ".join(entry.languages) + (f" +{entry.more_languages}" if entry.more_languages else "")
    return (
        entry.name,
        languages,
        "?" if entry.parameters is None else f"{entry.parameters:g} M",
        _download(entry.download_bytes),
        _memory(entry),
        "yes" if entry.hotwords else "no",
        ", ".join(entry.backends),
        ", ".join(here) or "-",
    )


def _download(size: int | None) -> str:
    if size is None:
        return "?"
    return f"{size / 1e6:.0f} MB" if size else "none"


def _memory(entry: CatalogueEntry) -> str:
    figures = (
        ("int8", entry.memory.cpu_int8),
        ("fp32", entry.memory.cpu_fp32),
        ("GPU fp16", entry.memory.gpu_fp16),
    )
    return ", ".join(f"{size >> 20} MiB {name}" for name, size in figures if size is not None) or "?"

"""The transcripts of several jobs in one ZIP archive, made on the disk while it is fetched from the API."""

from __future__ import annotations

import asyncio
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import IO

from app.asr.subtitles import SUFFIXES
from app.service.page.api import ApiClient, Caller

FORMATS = ("text", "srt", "vtt", "json")
_IN_MEMORY = 4 << 20
_CHUNK = 64 << 10
_MAX_STEM = 80  # characters; file systems allow 255 bytes, and a Chinese character may take four


async def zip_results(api: ApiClient, caller: Caller, jobs: Sequence[str]) -> IO[bytes] | None:
    """An archive at its beginning, to be closed by the caller; None when no job has a transcript."""
    held = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - the caller closes it
    taken: set[str] = set()
    try:
        with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
            for job in dict.fromkeys(jobs):
                name = await api.name(caller, job)
                stem = unique_stem(name or "", taken)
                for form in FORMATS:
                    content = await api.result(caller, job, form) if name is not None else None
                    if content is None:
                        break
                    taken.add(stem.casefold())
                    await asyncio.to_thread(archive.writestr, stem + SUFFIXES[form], content)
        if taken:
            held.seek(0)
            return held
    except BaseException:
        held.close()
        raise
    held.close()
    return None


def unique_stem(name: str, taken: set[str]) -> str:
    """A file's name without its suffix, safe in any archive and not used before."""
    plain = PurePath(name.replace("\\", "/")).name
    stem = PurePath(plain).stem[:_MAX_STEM]
    stem = "".join("_" if char in '<>:"|?*' or not char.isprintable() else char for char in stem).strip(" .")
    stem = stem or "transcript"
    found, number = stem, 2
    while found.casefold() in taken:
        found, number = f"{stem} ({number})", number + 1
    return found


def chunks(file: IO[bytes]) -> Iterator[bytes]:
    """The archive in pieces; closes it."""
    with file:
        while piece := file.read(_CHUNK):
            yield piece

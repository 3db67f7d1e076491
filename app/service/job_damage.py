"""A job database that cannot be trusted: how it is known, and setting it aside so that the service can start.

What is set aside lies in `damaged-DATE/` beside its old place: the database with its log, as they were found, and the
uploads of the jobs it knew. Nothing here mends it; docs/jobs.md says what a person can do.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path

from app.service.job_database import SCHEMA_VERSION, TABLES, is_damage, sync

LOG = logging.getLogger(__name__)
DATABASE, UPLOADS = "jobs.sqlite3", "uploads"
_LOGS = (f"{DATABASE}-wal", f"{DATABASE}-shm")
_ASIDE = "damaged-"
# A database up to this size is read whole at a start; of a larger one all but the transcripts, which are most of it.
_CHECKED_BYTES = 256 << 20


def damage_in(directory: Path) -> str | None:
    """Why the database of this directory cannot be used, in a few words; None when it can, or was never begun.

    Nothing is written, not even what its log holds.

    Raises:
        sqlite3.Error: it cannot be read for another reason than damage.
        OSError: the directory cannot be read.
    """
    path = directory / DATABASE
    if not path.exists():
        left = [name for name in _LOGS if _size(directory / name)] + list(_uploads(directory))
        return "it is missing, and there are uploads or a log of it" if left else None
    if not _size(path):
        return "it is empty"
    try:
        # Read-only: closing it otherwise would write its log into it, and what is damaged stays as it is.
        with closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10.0)
        ) as database:
            return _fault_in(database, whole=_size(path) <= _CHECKED_BYTES)
    except sqlite3.DatabaseError as error:
        if is_damage(error):
            return str(error)
        raise


def see_to_damage(directory: Path) -> None:
    """Sets a damaged database aside, so that the service can start and what a person may still have of it is kept.

    Raises:
        sqlite3.Error, OSError: see `damage_in` and `set_aside`.
    """
    damage = damage_in(directory)
    if damage is not None:
        folder, uploads = set_aside(directory)
        LOG.error(
            "the job database was damaged (%s); it is set aside in %s, with %d uploads of jobs that had not ended. "
            "Its jobs are not known any more, a new database is begun. What to do: docs/jobs.md",
            *(damage, folder, uploads),
        )


def _fault_in(database: sqlite3.Connection, *, whole: bool) -> str | None:
    there = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    newer = database.execute("PRAGMA user_version").fetchone()[0] > SCHEMA_VERSION
    missing = [table for table in TABLES if table not in there and not newer]
    if missing:
        return f"it has no table {missing[0]}"
    parts = [""] if whole else [f"('{table}')" for table in TABLES if table in there and table != "results"]
    for part in parts or [""]:
        told = str(database.execute(f"PRAGMA quick_check{part or '(1)'}").fetchone()[0])
        if told != "ok":
            return told.splitlines()[-1]
    return None


def set_aside(directory: Path) -> tuple[Path, int]:
    """Moves the database, its log and the uploads away; a new one can be begun.

    Returns:
        Where they are, and how many uploads.

    Raises:
        OSError: they cannot be moved.
    """
    uploads = sum(1 for _ in _uploads(directory))
    folder = _free_name(directory)
    folder.mkdir(mode=0o700)
    # The database first: should this be cut off, the next start finds it missing and moves the rest.
    for name in (DATABASE, *_LOGS, UPLOADS):
        if (directory / name).exists():
            (directory / name).rename(folder / name)
    sync(folder)
    sync(directory)
    return folder, uploads


def count_set_aside(directory: Path) -> int:
    """How many databases lie aside."""
    return sum(1 for _ in directory.glob(f"{_ASIDE}*"))


def _uploads(directory: Path) -> Iterator[Path]:
    folder = directory / UPLOADS
    return folder.iterdir() if folder.exists() else iter(())


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _free_name(directory: Path) -> Path:
    name = f"{_ASIDE}{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}"
    number, path = 1, directory / name
    while path.exists():
        number += 1
        path = directory / f"{name}-{number}"
    return path

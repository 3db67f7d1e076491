"""The database file of jobs: its tables, how it is opened, and making sure that something is on the disk.

What is written into the tables, and when, is job_store.py's part.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path
from typing import BinaryIO

from app.asr.errors import InputError

_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE jobs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    batch TEXT NOT NULL,
    owner TEXT NOT NULL,
    client TEXT NOT NULL,
    name TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    hotwords TEXT,
    formats TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'queued',
    cancel INTEGER NOT NULL DEFAULT 0,
    suspicion INTEGER NOT NULL DEFAULT 0,
    stake INTEGER NOT NULL DEFAULT 0,
    alone INTEGER NOT NULL DEFAULT 0,
    created REAL NOT NULL,
    started REAL,
    ended REAL,
    done_seconds REAL NOT NULL DEFAULT 0,
    total_seconds REAL,
    worked_seconds REAL NOT NULL DEFAULT 0,
    code TEXT,
    problem TEXT,
    fix TEXT,
    result_bytes INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX jobs_by_state ON jobs (state, client);
CREATE INDEX jobs_by_client ON jobs (client, started);
CREATE INDEX jobs_by_batch ON jobs (batch);
CREATE TABLE segments (
    seq INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
    place INTEGER NOT NULL,
    start REAL NOT NULL,
    overlap REAL NOT NULL,
    duration REAL NOT NULL,
    tokens BLOB NOT NULL,
    words TEXT,
    PRIMARY KEY (seq, place)
) WITHOUT ROWID;
CREATE TABLE results (
    seq INTEGER PRIMARY KEY REFERENCES jobs (seq) ON DELETE CASCADE,
    details TEXT NOT NULL,
    transcript BLOB NOT NULL
);
CREATE TABLE keys (
    owner TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    batch TEXT NOT NULL,
    created REAL NOT NULL,
    PRIMARY KEY (owner, key)
) WITHOUT ROWID;
"""

# How much a death of the process weighs against a job that was running: without a sign of life, and after one. It is
# the job's stake while it runs, and its suspicion after such a death.
DEATH, DEATH_AT_WORK = 4, 1
# The next job: one that may have brought the process down goes first (it runs alone, see claim), then the client
# that has the fewest running, then the one that was served longest ago, then the oldest.
NEXT_JOB = """
SELECT * FROM jobs AS j WHERE state = 'queued' ORDER BY
    suspicion > 0 DESC,
    (SELECT count(*) FROM jobs AS r WHERE r.client = j.client AND r.state = 'running'),
    (SELECT coalesce(max(s.started), 0) FROM jobs AS s WHERE s.client = j.client),
    seq
LIMIT 1
"""


def open_database(path: Path) -> sqlite3.Connection:
    """Opens the database, with its tables; usable from any thread, one at a time.

    Raises:
        InputError: a newer program wrote it.
        sqlite3.Error: it is damaged or cannot be written.
    """
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10.0)
    try:
        _prepare(database, path)
    except BaseException:
        database.close()
        raise
    return database


def _prepare(database: sqlite3.Connection, path: Path) -> None:
    database.row_factory = sqlite3.Row
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")  # a commit is on the disk when it returns
    database.execute("PRAGMA foreign_keys = ON")
    database.execute("PRAGMA secure_delete = ON")  # a deleted transcript is gone from the file
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if version > _SCHEMA_VERSION:
        raise InputError(
            f"The jobs in {path} were written by a newer version of this program",
            fix="Start that version, or give another data directory.",
        )
    if version == 0:
        database.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version = {_SCHEMA_VERSION};COMMIT;")


def lock_file(path: Path) -> BinaryIO:
    """Holds a lock until the file is closed or the process is gone.

    Raises:
        InputError: another process holds it.
    """
    file = path.open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise InputError(
            f"The data directory {path.parent} is used by another process",
            fix="Stop the other service, or give this one a data directory of its own.",
        ) from error
    return file


def sync(path: Path) -> None:
    """Returns when a file, or the names in a directory, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""The database file of jobs: its tables, how it is opened and used, what its refusals mean, and making sure that
something is on the disk.

What is written into the tables, and when, is job_store.py's part; a damaged file is job_damage.py's.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from app.asr.errors import InputError
from app.service.errors import JobsUnavailable

SCHEMA_VERSION = 1
TABLES = ("jobs", "segments", "results", "keys")
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


class Database:
    """The open database, made when it is missing; usable from any thread, one at a time.

    Args:
        on_error: told whenever it refuses to read or to change something.

    Raises:
        InputError: a newer program wrote it.
        OSError, sqlite3.Error: it cannot be read or written.
    """

    def __init__(self, path: Path, on_error: Callable[[], None] = lambda: None) -> None:
        self._mutex, self._on_error = threading.RLock(), on_error
        if not path.exists():
            _begin(path)
        self.connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10.0)
        try:
            _prepare(self.connection, path)
        except BaseException:
            self.connection.close()
            raise

    def close(self) -> None:
        """Lets go of the file."""
        with self._mutex:
            self.connection.close()

    @contextmanager
    def using(self) -> Iterator[sqlite3.Connection]:
        """The connection, for one thread."""
        with self._mutex:
            try:
                yield self.connection
            except sqlite3.IntegrityError:  # an answer: this row is there already
                raise
            except sqlite3.Error:
                self._on_error()
                raise

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """The connection, for changes that are made together or not at all."""
        with self.using() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def change(self, statement: str, *values: Any) -> None:
        """One change."""
        with self.transaction() as connection:
            connection.execute(statement, values)


def _begin(path: Path) -> None:
    """A new database appears whole, so that an empty file is always one that has lost what it held."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    with closing(sqlite3.connect(draft, isolation_level=None)) as database:
        database.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version = {SCHEMA_VERSION};COMMIT;")
    sync(draft)
    draft.rename(path)
    sync(path.parent)


def _prepare(database: sqlite3.Connection, path: Path) -> None:
    database.row_factory = sqlite3.Row
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")  # a commit is on the disk when it returns
    database.execute("PRAGMA foreign_keys = ON")
    database.execute("PRAGMA secure_delete = ON")  # a deleted transcript is gone from the file
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise InputError(
            f"The jobs in {path} were written by a newer version of this program",
            fix="Start that version, or give another data directory.",
        )


def is_damage(error: BaseException) -> bool:
    """Whether SQLite says that the file itself is wrong: malformed, or no database at all."""
    # Its other errors are subclasses; the codes are not there before Python 3.11.
    return type(error) is sqlite3.DatabaseError


def is_refusal(error: BaseException) -> bool:
    """Whether the disk, the file or another program is the cause, and not how we asked."""
    return isinstance(error, sqlite3.OperationalError) or is_damage(error)


def unavailable(error: sqlite3.Error) -> JobsUnavailable:
    """What a client is told when the database refused to read or to change something."""
    if is_damage(error):
        return JobsUnavailable(
            f"The jobs of this service cannot be read, their database is damaged ({error})",
            fix="Its operator must start it again: it then sets the damaged database aside and begins a new one.",
            may_pass=False,
        )
    if "readonly" in str(error):
        return JobsUnavailable(
            f"The jobs of this service cannot be changed, their disk is read-only ({error})",
            fix="Its operator must make the data directory writable.",
            may_pass=False,
        )
    return JobsUnavailable(
        f"The jobs of this service cannot be read or written now ({error})",
        fix=f"Send the request again in {JobsUnavailable.RETRY} seconds; its operator sees to room on its disk.",
        may_pass=True,
    )


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

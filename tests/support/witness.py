"""A witness inside the job database: triggers that note every end of a job, so that a second one is seen."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

# Counts on the database's side how often a job came to an end.
WITNESS = """
CREATE TABLE witness (id TEXT, state TEXT);
CREATE TRIGGER see_endings AFTER UPDATE OF state ON jobs
WHEN new.state IN ('done', 'failed', 'cancelled') AND old.state <> new.state
BEGIN INSERT INTO witness VALUES (new.id, new.state); END;
CREATE TRIGGER see_again AFTER UPDATE OF state ON jobs
WHEN old.state IN ('done', 'failed', 'cancelled') BEGIN INSERT INTO witness VALUES (new.id, 'again'); END;
"""


def watch(path: Path) -> None:
    """Puts the witness into a database that a service may be using."""
    with closing(sqlite3.connect(path, timeout=30)) as database:
        database.executescript(f"BEGIN IMMEDIATE; {WITNESS} COMMIT;")


def endings(path: Path) -> Counter[str]:
    """How often each job ended since the witness came."""
    with closing(sqlite3.connect(path, timeout=30)) as database:
        return Counter(row[0] for row in database.execute("SELECT id FROM witness"))

"""Questions to the database of jobs; nothing here changes it. What does is job_store.py.

All methods block, may be called from any thread, and raise JobsUnavailable when the database does not answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.service.job_database import Database
from app.service.job_records import ENDED, Job, KeyReusedError, Result, Totals, job_of, segment_of
from app.service.recognising import StoredSegment


class JobQueries:
    """What is known of the jobs in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, job_id: str) -> Job | None:
        """One job."""
        found = self._jobs("WHERE id = ?", job_id)
        return found[0] if found else None

    def batch(self, batch: str) -> list[Job]:
        """The jobs of one request, in its order; those that were deleted are missing."""
        return self._jobs("WHERE batch = ? ORDER BY seq", batch)

    def newest(self, owner: str, limit: int, after: str | None = None, state: str | None = None) -> list[Job]:
        """The newest jobs of an owner, those older than `after` when that is given."""
        return self._jobs(
            "WHERE owner = ?1 AND (?2 IS NULL OR state = ?2) "
            "AND (?3 IS NULL OR seq < (SELECT seq FROM jobs WHERE id = ?3)) ORDER BY seq DESC LIMIT ?4",
            *(owner, state, after, limit),
        )

    def ahead(self, job: Job) -> tuple[int, float]:
        """Waiting jobs that are older, and their seconds of audio still to do, as far as those are known."""
        with self._database.using() as database:
            row = database.execute(
                "SELECT count(*), coalesce(sum(total_seconds - done_seconds), 0.0) FROM jobs "
                "WHERE state = 'queued' AND seq < (SELECT seq FROM jobs WHERE id = ?)",
                (job.id,),
            ).fetchone()
        return int(row[0]), float(row[1])

    def result(self, job_id: str) -> Result | None:
        """What came of a job that is done."""
        with self._database.using() as database:
            row = database.execute(
                "SELECT details, transcript FROM results WHERE seq = (SELECT seq FROM jobs WHERE id = ?)",
                (job_id,),
            ).fetchone()
        return Result(row["details"], row["transcript"]) if row is not None else None

    def totals(self) -> Totals:
        """How much there is now."""
        with self._database.using() as database:
            rows = database.execute(
                "SELECT state, count(*), sum(bytes), sum(result_bytes) FROM jobs GROUP BY 1"
            )
            found = rows.fetchall()
        held = sum(row[3] + (0 if row[0] in ENDED else row[2]) for row in found)
        return Totals({row[0]: row[1] for row in found}, held)

    def segments(self, job_id: str) -> list[StoredSegment]:
        """What was recognised of a job that has not ended, in order."""
        with self._database.using() as database:
            rows = database.execute(
                "SELECT place, start, overlap, duration, tokens, words FROM segments "
                "WHERE seq = (SELECT seq FROM jobs WHERE id = ?) ORDER BY place",
                (job_id,),
            ).fetchall()
        return [segment_of(row) for row in rows]

    def known(self, owner: str, key: str, fingerprint: str) -> Sequence[Job] | None:
        """The jobs an idempotency key stands for; None when it is new.

        Raises:
            KeyReusedError: it was used with another fingerprint.
        """
        with self._database.using() as database:
            row = database.execute(
                "SELECT fingerprint, batch FROM keys WHERE owner = ? AND key = ?", (owner, key)
            ).fetchone()
        if row is None:
            return None
        if row["fingerprint"] != fingerprint:
            raise KeyReusedError("This Idempotency-Key was used before with other files or other settings")
        jobs = self.batch(row["batch"])
        if not jobs:
            raise KeyReusedError("The jobs of this Idempotency-Key have been deleted")
        return jobs

    def _jobs(self, where: str, *values: Any) -> list[Job]:
        with self._database.using() as database:
            return [job_of(row) for row in database.execute(f"SELECT * FROM jobs {where}", values)]  # noqa: S608 - our own text

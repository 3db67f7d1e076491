"""Accepted jobs on disk: what was asked, how far it is, what came of it. Survives kill -9 and loss of power.

Lives here: the SQLite database and the uploads beside it, and the rule that a job is ended once. An upload is on the
disk before its row is, a row is on the disk before anybody is told of it, and a result and the end of its job are one
transaction. What only reads is job_queries.py, who runs jobs job_runner.py; HTTP is jobs.py. All methods block, and
may be called from any thread.

    jobs.sqlite3    jobs, finished segments, results
    incoming/       uploads on their way; emptied at start
    uploads/        one file for each job that has not ended, named by the job's id
    lock            held while a process uses the directory
    damaged-DATE/   a database that could not be used any more, see job_damage.py
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

from app.asr.errors import ResourceError
from app.service.clock import SETTLE_SECONDS, Clock
from app.service.errors import JobsUnavailable
from app.service.job_damage import DATABASE, UPLOADS, count_set_aside, see_to_damage
from app.service.job_database import DEATH, DEATH_AT_WORK, NEXT_JOB, Database, lock_file, sync
from app.service.job_queries import JobQueries
from app.service.job_records import SERVICE_DIED, Ending, Job, NewJob, job_of, segment_row
from app.service.recognising import StoredSegment

LOG = logging.getLogger(__name__)


class JobStore(JobQueries):
    """The jobs of one service, to read and to change. A damaged database is set aside when opened, see job_damage.py.

    Args:
        directory: made when it is missing; one process at a time may use it.
        on_error: told whenever the database refuses to read or to change something; from any thread.

    Raises:
        InputError: another process uses the directory, or a newer program wrote it.
        ResourceError: it cannot be written.
    """

    def __init__(
        self, directory: Path, *, on_error: Callable[[], None] = lambda: None, clock: Clock | None = None
    ) -> None:
        self._directory, self._clock = directory, clock or Clock()
        self._incoming, self._uploads = directory / "incoming", directory / UPLOADS
        self._since, self._step = self._clock.now(), 0.0
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = lock_file(directory / "lock")
            try:
                see_to_damage(directory)
                for folder in (self._incoming, self._uploads):
                    folder.mkdir(mode=0o700, exist_ok=True)
                super().__init__(Database(directory / DATABASE, on_error))
                self._remove_strays()
            except BaseException:
                self._lock.close()
                raise
        except (OSError, sqlite3.Error) as error:
            raise ResourceError(
                f"The jobs in {directory} cannot be opened ({error})",
                fix="Give a data directory on a local disk that this user may write to and that has room.",
            ) from error

    def close(self) -> None:
        """Lets go of the database and the directory; nothing is lost without it."""
        self._database.close()
        self._lock.close()

    @property
    def set_aside(self) -> int:
        """How many damaged databases lie aside. Raises OSError when that cannot be seen."""
        return count_set_aside(self._directory)

    # Taking jobs in.

    @property
    def incoming(self) -> Path:
        """Where uploads are written; what is not accepted from there is removed by who wrote it, or at start."""
        return self._incoming

    def accept(
        self, jobs: Sequence[NewJob], *, key: str | None = None, fingerprint: str = ""
    ) -> tuple[Sequence[Job], bool]:
        """Takes in the jobs of one request, all or none; when this returns they are safe.

        Args:
            jobs: all of one owner; their uploads are moved, or removed when nothing is accepted.
            key: idempotency key; the same key and fingerprint give the jobs of the first time.

        Returns:
            The jobs, and whether they are new.

        Raises:
            KeyReusedError: the key was used with another fingerprint.
            JobsUnavailable, sqlite3.Error: the disk does not take them.
        """
        owner = jobs[0].owner
        known = self.known(owner, key, fingerprint) if key is not None else None
        if known is not None:
            for job in jobs:
                job.upload.unlink(missing_ok=True)
            return known, False
        try:
            return self.batch(self._take_in(jobs, key, fingerprint)), True
        except sqlite3.IntegrityError:  # the same request came in at the same time
            known = self.known(owner, key, fingerprint) if key is not None else None
            if known is None:
                raise
            return known, False
        except OSError as error:
            raise JobsUnavailable(
                f"The job could not be written to disk ({error.strerror or error})",
                fix="Send it again when its operator has made room in the data directory.",
                may_pass=True,
            ) from error

    def _take_in(self, jobs: Sequence[NewJob], key: str | None, fingerprint: str) -> str:
        """Uploads to their place, then rows; what was moved is removed when that fails. Returns the batch."""
        batch = "batch_" + secrets.token_hex(12)
        ids = ["job_" + secrets.token_hex(16) for _ in jobs]
        try:
            for job, name in zip(jobs, ids, strict=True):
                sync(job.upload)
                job.upload.rename(self._uploads / name)
            sync(self._uploads)
            with self._database.transaction() as database:
                if key is not None:
                    values = (jobs[0].owner, key, fingerprint, batch, self._clock.now())
                    database.execute("INSERT INTO keys VALUES (?, ?, ?, ?, ?)", values)
                for job, name in zip(jobs, ids, strict=True):
                    self._insert(database, job, name, batch)
        except BaseException:
            for job, name in zip(jobs, ids, strict=True):
                job.upload.unlink(missing_ok=True)
                (self._uploads / name).unlink(missing_ok=True)
            raise
        return batch

    def upload(self, job_id: str) -> Path:
        """Where the upload of a job lies until the job ends."""
        return self._uploads / job_id

    # Running.

    def recover(self, most_deaths: int) -> list[Job]:
        """After a start: jobs that were running go back into the queue; returns those that end here instead,
        because they were to be cancelled, or were there whenever the process died, too often."""
        ended: list[Job] = []
        for job in self._jobs("WHERE state = 'running'"):
            if job.cancel:
                self.end(job.id, Ending("cancelled"))
            elif job.suspicion + job.stake >= most_deaths * DEATH:
                self.end(job.id, SERVICE_DIED)
            else:
                self._back(job.id, job.stake)
                continue
            ended.append(job)
        return [job for job in map(self.get, (job.id for job in ended)) if job is not None]

    def claim(self) -> Job | None:
        """Takes the next job to run, or None. One that is under suspicion, see `begin`, runs alone: should the process
        die again, no other job is blamed for it."""
        with self._database.transaction() as database:
            row = database.execute(NEXT_JOB).fetchone()
            if row is None:
                return None
            running = database.execute(
                "SELECT count(*), max(alone) FROM jobs WHERE state = 'running'"
            ).fetchone()
            if running[0] and (row["suspicion"] or running[1]):
                return None
            database.execute(
                "UPDATE jobs SET state = 'running', alone = suspicion > 0, started = ? WHERE seq = ?",
                (self._clock.now(), row["seq"]),
            )
            return job_of(database.execute("SELECT * FROM jobs WHERE seq = ?", (row["seq"],)).fetchone())

    def begin(self, job_id: str) -> None:
        """From here on, a running job may be what brings the process down. It is at stake until it has a new segment;
        less so once it has passed those that were kept, see `lives`: then it was just as likely killed."""
        self._database.change("UPDATE jobs SET stake = ? WHERE id = ? AND state = 'running'", DEATH, job_id)

    def lives(self, job_id: str) -> None:
        """A running job has got as far as its kept segments reach."""
        self._database.change("UPDATE jobs SET stake = min(stake, ?) WHERE id = ?", DEATH_AT_WORK, job_id)

    def release(self, job_id: str) -> None:
        """Puts a running job back into the queue in good order: nothing is held against it for this run."""
        self._back(job_id, 0)

    def _back(self, job_id: str, more: int) -> None:
        self._database.change(
            "UPDATE jobs SET state = 'queued', alone = 0, stake = 0, suspicion = suspicion + ? "
            "WHERE id = ? AND state = 'running'",
            *(more, job_id),
        )

    def add_segments(
        self, job_id: str, segments: Sequence[StoredSegment], total_seconds: float | None
    ) -> None:
        """Keeps finished segments of a running job; it has shown that it can be worked on."""
        with self._database.transaction() as database:
            row = database.execute(
                "SELECT seq FROM jobs WHERE id = ? AND state = 'running'", (job_id,)
            ).fetchone()
            if row is None:
                return
            database.executemany(
                "INSERT OR REPLACE INTO segments VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(row["seq"], *segment_row(segment)) for segment in segments],
            )
            done = max(
                (segment.start_seconds + segment.duration_seconds for segment in segments), default=0.0
            )
            database.execute(
                "UPDATE jobs SET suspicion = 0, stake = 0, alone = 0, done_seconds = max(done_seconds, ?), "
                "total_seconds = coalesce(?, total_seconds) WHERE seq = ?",
                (done, total_seconds, row["seq"]),
            )

    def ask_to_cancel(self, job_id: str) -> bool:
        """Cancels a waiting job and returns True; marks a running one, so that it is cancelled even after kill -9."""
        with self._database.transaction() as database:
            database.execute("UPDATE jobs SET cancel = 1 WHERE id = ? AND state = 'running'", (job_id,))
        return self.end(job_id, Ending("cancelled"), of="queued")

    def end(self, job_id: str, ending: Ending, of: str = "running") -> bool:
        """Ends a job with all that belongs to it, once; False when it was not in the state `of`."""
        self._see_to_clock()
        with self._database.transaction() as database:
            row = database.execute("SELECT seq FROM jobs WHERE id = ? AND state = ?", (job_id, of)).fetchone()
            if row is None:
                return False
            seq, result = row["seq"], ending.result
            if result is not None:
                database.execute(
                    "INSERT INTO results VALUES (?, ?, ?)", (seq, result.details, result.transcript)
                )
            database.execute("DELETE FROM segments WHERE seq = ?", (seq,))
            database.execute(
                "UPDATE jobs SET state = ?, ended = ?, code = ?, problem = ?, fix = ?, result_bytes = ?, "
                "worked_seconds = ?, done_seconds = coalesce(?, done_seconds), "
                "total_seconds = coalesce(?, total_seconds) WHERE seq = ?",
                (
                    *(ending.state, self._clock.now(), ending.code, ending.problem, ending.fix),
                    len(result.transcript) + len(result.details) if result else 0,
                    *(ending.worked_seconds, ending.audio_seconds, ending.audio_seconds, seq),
                ),
            )
        self._remove_upload(job_id)
        return True

    # Forgetting.

    def delete(self, job_id: str) -> bool:
        """Removes a job that is not running, with all that belongs to it; False when it runs or is not there."""
        with self._database.transaction() as database:
            done = database.execute("DELETE FROM jobs WHERE id = ? AND state <> 'running'", (job_id,))
        if done.rowcount:
            self._remove_upload(job_id)
        return done.rowcount > 0

    def _remove_upload(self, job_id: str) -> None:
        with contextlib.suppress(OSError):  # its job has ended all the same; the next start removes it
            self.upload(job_id).unlink(missing_ok=True)

    def sweep(self, keep_seconds: float, keep_bytes: int) -> int:
        """Forgets ended jobs that are too old, then the oldest until what is held fits; returns how many.

        Nothing is too old until the clock has gone on for an hour without being set: it may be set right yet.
        """
        self._see_to_clock()
        forgotten = 0
        if self._clock.settled(min(SETTLE_SECONDS, keep_seconds)):
            oldest = self._clock.now() - keep_seconds
            forgotten = sum(self.delete(job.id) for job in self._jobs("WHERE ended < ?", oldest))
            unused = "DELETE FROM keys WHERE created < ? AND batch NOT IN (SELECT batch FROM jobs)"
            self._database.change(unused, oldest)
        held = self.totals().bytes
        for job in self._jobs("WHERE ended IS NOT NULL ORDER BY ended") if held > keep_bytes else []:
            if held <= keep_bytes:
                break
            forgotten += self.delete(job.id)
            held -= job.result_bytes
        return forgotten

    def _see_to_clock(self) -> None:
        """When the clock was set, jobs that were seen to end before that get their end in the new time."""
        with self._database.using():
            self._step += self._clock.look()
            if self._step:
                LOG.warning(
                    "the clock was set by %+.0f s; no job is forgotten for its age for now", self._step
                )
                self._database.change(
                    "UPDATE jobs SET ended = ended + ? WHERE ended >= ?", self._step, self._since
                )
                self._since, self._step = self._since + self._step, 0.0

    # The database and the uploads.

    def _insert(self, database: sqlite3.Connection, job: NewJob, name: str, batch: str) -> None:
        database.execute(
            "INSERT INTO jobs (id, batch, owner, client, name, bytes, hotwords, formats, created, total_seconds) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(name, batch, job.owner, job.client, job.name, (self._uploads / name).stat().st_size),
                *(job.hotwords, ",".join(job.formats), self._clock.now(), job.total_seconds),
            ),
        )

    def _remove_strays(self) -> None:
        """Files that no job stands for: uploads that were cut off, and what a killed process was about to remove."""
        with self._database.using() as database:
            rows = database.execute("SELECT id FROM jobs WHERE state IN ('queued', 'running')")
            wanted = {row["id"] for row in rows}
        for folder in (self._incoming, self._uploads):
            for path in folder.iterdir():
                if path.name not in wanted:
                    path.unlink(missing_ok=True)

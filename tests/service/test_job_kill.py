"""kill -9 at any moment: every accepted job ends exactly once, with the result of an undisturbed run."""

from __future__ import annotations

import random
import secrets
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from app.service.job_records import NewJob, transcript_of
from app.service.job_store import JobStore
from tests.support.witness import WITNESS

ROOT = Path(__file__).resolve().parents[2]
KILLS = 20
TEXTS = ["".join(chr(0x4E00 + 97 * job + place) for place in range(60)) for job in range(6)]


def accept(directory: Path, texts: list[str]) -> list[str]:
    store = JobStore(directory)
    ids = []
    for number, text in enumerate(texts):
        upload = store.incoming / secrets.token_hex(8)
        upload.write_text(text, encoding="utf-8")
        jobs, _ = store.accept([NewJob(upload, f"{number}.wav", owner="", client=f"client {number % 2}")])
        ids.append(jobs[0].id)
    store._database.connection.executescript(WITNESS)
    store.close()
    return ids


def begin(directory: Path, log: Path, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.service.job_process", str(directory), str(log), str(seconds)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def stored(directory: Path) -> set[tuple[str, int]]:
    """What the database of a dead process holds: segments, and all segments of jobs that have ended."""
    with sqlite3.connect(directory / "jobs.sqlite3") as database:
        found = database.execute("SELECT id, place FROM segments JOIN jobs USING (seq)").fetchall()
        ended = database.execute("SELECT id FROM jobs WHERE ended IS NOT NULL").fetchall()
    database.close()
    return {(job, place) for job, place in found} | {
        (job, place) for (job,) in ended for place in range(1000)
    }


def lines(log: Path) -> list[tuple[str, int]]:
    text = log.read_text() if log.exists() else ""
    return [(line.split()[0], int(line.split()[1])) for line in text.splitlines()]


def endings(directory: Path) -> Counter[tuple[str, str]]:
    with sqlite3.connect(directory / "jobs.sqlite3") as database:
        found = Counter(database.execute("SELECT id, state FROM witness").fetchall())
    database.close()
    return found


def test_kill_at_random_moments_loses_and_doubles_nothing(tmp_path: Path) -> None:
    directory, log = tmp_path / "jobs", tmp_path / "log"
    ids = accept(directory, TEXTS)
    moments = random.Random(4)
    kills, twice = 0, set()
    while True:
        before, kept = len(lines(log)), stored(directory)
        process = begin(directory, log, seconds=0.01)
        # So many segments on, and then at any moment; the first kills fall into the start itself.
        wanted = moments.randrange(0, 5)
        if kills >= 3:
            while len(lines(log)) < before + wanted and process.poll() is None:
                time.sleep(0.002)
        time.sleep(moments.random() * (0.3 if kills < 3 else 0.012))
        if kills < KILLS:
            process.kill()
        process.communicate()
        twice |= kept & set(lines(log)[before:])
        if process.returncode == 0:
            break
        assert process.returncode == -9
        kills += 1
    assert kills >= KILLS
    assert not twice, "recognised again although the store had it"
    assert endings(directory) == Counter({(job, "done"): 1 for job in ids})
    store = JobStore(directory)
    for job, text in zip(ids, TEXTS, strict=True):
        result = store.result(job)
        assert result is not None
        words = list(transcript_of(result)[0].words())
        assert "".join(word.text for word in words) == text
        assert [word.start for word in words] == [place // 2 * 2.0 + place % 2 * 0.125 for place in range(60)]
    assert not list(store._uploads.iterdir())
    store.close()


def test_a_file_that_kills_the_process_fails_alone(tmp_path: Path) -> None:
    directory, log = tmp_path / "jobs", tmp_path / "log"
    poison, *others = accept(directory, ["poisoned", "今天开会", "阿里巴巴"])
    codes: list[int] = []
    while not codes or codes[-1] != 0:
        process = begin(directory, log, seconds=0)
        process.communicate(timeout=30)
        codes.append(process.returncode)
        assert len(codes) < 10
    # Its first segment is kept and clears it; from then on it dies where it died before.
    assert codes == [-9] * (len(codes) - 1) + [0]
    assert endings(directory) == Counter({(poison, "failed"): 1, **{(job, "done"): 1 for job in others}})

"""A damaged job database does not keep the service from starting, and nothing that is left of it is thrown away."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from app.asr.errors import InputError
from app.service import job_damage
from app.service.job_store import JobStore
from tests.service.test_job_store import accepted, done

JOBS = 40


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Of a service that was killed: most ended jobs in the database, the last changes in its log, an upload."""
    store = JobStore(tmp_path / "live")
    for number in range(JOBS):
        job = accepted(store, owner=f"owner {number} " + "x" * 400)
        store.claim()
        store.end(job.id, done("今天" * 200))
    store._database.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    accepted(store, data=b"waiting")
    directory = tmp_path / "jobs"
    shutil.copytree(tmp_path / "live", directory)
    store.close()
    assert (directory / "jobs.sqlite3-wal").stat().st_size
    return directory


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _rubbish(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


def _rubbish_inside(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(os.urandom(path.stat().st_size - 8192))


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _gone(path: Path) -> None:
    path.unlink()


def _another_program(path: Path) -> None:
    path.unlink()
    path.with_name(path.name + "-wal").unlink()
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE notes (text)")


DAMAGES = [_cut, _rubbish, _rubbish_inside, _empty, _gone, _another_program]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_database_is_set_aside_as_it_is_with_its_uploads(
    directory: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    damage(directory / "jobs.sqlite3")
    found = {path.name: path.read_bytes() for path in directory.glob("jobs.sqlite3*")}
    with caplog.at_level(logging.ERROR):
        store = JobStore(directory)
    [folder] = directory.glob("damaged-*")
    assert store.set_aside == 1
    kept = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    for name in found.keys() - {"jobs.sqlite3-shm"}:  # an index of the log, made anew by who reads it
        assert kept[name] == found[name], name
    [upload] = (folder / "uploads").iterdir()
    assert upload.read_bytes() == b"waiting"
    [line] = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert str(folder) in line
    assert "1 uploads" in line
    # And the service works.
    assert store.newest("", 9) == []
    job = accepted(store)
    assert store.upload(job.id).exists()
    store.close()
    again = JobStore(directory)
    assert again.get(job.id) == job
    assert again.set_aside == 1
    again.close()


def test_a_database_of_a_killed_service_is_no_damage(directory: Path) -> None:
    store = JobStore(directory)
    assert store.set_aside == 0
    assert store.totals().jobs == {"done": JOBS, "queued": 1}
    store.close()


def test_a_move_that_was_cut_off_is_ended_by_the_next_start(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _rubbish(directory / "jobs.sqlite3")
    rename = Path.rename

    def once(path: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "rename", dies)
        return rename(path, target)

    def dies(path: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", once)
    with pytest.raises(KeyboardInterrupt):
        JobStore(directory)
    monkeypatch.undo()
    store = JobStore(directory)
    names = {path.name for folder in directory.glob("damaged-*") for path in folder.iterdir()}
    assert {"jobs.sqlite3", "jobs.sqlite3-wal", "uploads"} <= names
    assert store.set_aside == 2
    store.close()


def test_a_large_database_is_read_in_part(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_damage, "_CHECKED_BYTES", 1)
    assert job_damage.damage_in(directory) is None
    _cut(directory / "jobs.sqlite3")
    assert job_damage.damage_in(directory)


def test_nothing_is_set_aside_at_a_first_start(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "jobs")
    assert store.set_aside == 0
    store.close()
    assert not list((tmp_path / "jobs").glob("*.new*"))


def test_a_first_start_that_was_cut_off_is_no_damage(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "jobs.sqlite3.new").write_bytes(b"half")
    store = JobStore(tmp_path / "jobs")
    assert store.set_aside == 0
    store.close()


def test_a_newer_database_is_not_damage(directory: Path) -> None:
    with closing(sqlite3.connect(directory / "jobs.sqlite3")) as database:
        database.execute("DROP TABLE keys")
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(InputError, match="newer"):
        JobStore(directory)
    assert not list(directory.glob("damaged-*"))


def test_two_in_a_second_do_not_meet(directory: Path) -> None:
    for count in (1, 2, 3):
        (directory / "jobs.sqlite3").write_bytes(b"rubbish" * 1000)
        store = JobStore(directory)
        assert store.set_aside == count
        store.close()

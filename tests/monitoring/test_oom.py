"""Watching for kills on fake hosts: cgroup v1 and v2, kernel log, Docker's events, restarts. Real ones: tests/e2e."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from monitoring.exporter.docker import DockerEvent
from monitoring.exporter.errors import ReadingError
from monitoring.exporter.notices import Notice, Notices
from monitoring.exporter.oom import OomWatch
from monitoring.exporter.state import StateFile
from tests.fakes.kernel import RUNTIMES, FakeKernel, Runtime, container_id
from tests.support.waiting import wait_for

NAMES = {container_id(name): name for name in ("asr", "other")}


class Watches:
    """Exporters that come and go on one fake host."""

    def __init__(self, folder: Path) -> None:
        self.root, self.state = folder / "root", folder / "state.json"
        self.running: list[OomWatch] = []

    def start(self, kernel_log: str = "auto") -> OomWatch:
        watch = OomWatch(self.root, name_of=NAMES.get, kernel_log=kernel_log, state=StateFile(self.state))
        watch.start()
        self.running.append(watch)
        return watch

    def stop(self) -> None:
        while self.running:
            self.running.pop().close()

    def again(self, kernel_log: str = "auto") -> OomWatch:
        self.stop()
        return self.start(kernel_log)


@pytest.fixture
def watches(tmp_path: Path) -> Iterator[Watches]:
    made = Watches(tmp_path)
    yield made
    made.stop()


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("version", [1, 2])
def test_kills_of_a_container_that_was_there_before(
    watches: Watches, version: Literal[1, 2], runtime: Runtime
) -> None:
    kernel = FakeKernel(watches.root, version, runtime)
    kernel.kills("asr", 2)
    kernel.vmstat(oom_kill=3)
    read = watches.start().read()
    assert dict(read.containers) == {"asr": 2}
    assert (read.host, read.unattributed) == (3, 1)


@pytest.mark.parametrize("version", [1, 2])
def test_kills_between_two_scrapes_of_a_container_that_is_gone(
    watches: Watches, version: Literal[1, 2]
) -> None:
    """No scrape falls into the container's life: the watching thread saw it."""
    kernel = FakeKernel(watches.root, version)
    kernel.path_of("other").mkdir(parents=True)  # the folder above is watched
    watch = watches.start()
    kernel.kills("asr", 0)
    kernel.kills("asr", 1)
    wait_for(lambda: "asr" in watch._ledger.totals(), "the kill")
    kernel.remove("asr")
    assert dict(watch.read().containers) == {"asr": 1}
    again = watches.again()
    assert dict(again.read().containers) == {"asr": 1}


def test_a_container_made_in_a_new_slice(watches: Watches) -> None:
    kernel = FakeKernel(watches.root, 2, "kubernetes")
    watch = watches.start()
    kernel.kills("asr", 1)
    wait_for(lambda: "asr" in watch.read().containers, "the kill")


def test_no_inotify_means_looking_by_the_clock(watches: Watches, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object) -> None:
        raise ReadingError("The kernel gives no inotify", fix="Raise the limit")

    monkeypatch.setattr("monitoring.exporter.notices.Notices.__init__", refuse)
    kernel = FakeKernel(watches.root)
    watch = watches.start()
    kernel.kills("asr", 1)
    assert dict(watch.read().containers) == {"asr": 1}


def test_the_kernel_log_tells_of_containers_that_never_were_seen(watches: Watches) -> None:
    kernel = FakeKernel(watches.root)
    kernel.log("6,1,100,-;Linux version 6.1\n")
    kernel.log_kill(2, "asr")
    kernel.log_kill(3, "nobody knows it")
    kernel.log_kill(4, None)
    kernel.vmstat(oom_kill=3)
    read = watches.start().read()
    assert dict(read.containers) == {"asr": 1, container_id("nobody knows it")[:12]: 1}
    assert read.unattributed == 1


def test_records_are_not_counted_again_after_a_restart(watches: Watches) -> None:
    kernel = FakeKernel(watches.root)
    kernel.log_kill(2, "asr")
    assert dict(watches.start().read().containers) == {"asr": 1}
    kernel.log_kill(3, "asr")  # before the next start, or under way
    assert dict(watches.again().read().containers) == {"asr": 2}
    assert dict(watches.again().read().containers) == {"asr": 2}


def test_a_reboot_begins_the_log_anew_and_keeps_the_counts(watches: Watches) -> None:
    kernel = FakeKernel(watches.root)
    kernel.log_kill(700, "asr")
    kernel.vmstat(oom_kill=1)
    watches.start().read()
    watches.stop()
    kernel.boot("second-boot")
    (watches.root / "dev/kmsg").unlink()
    kernel.log_kill(2, "asr")
    kernel.vmstat(oom_kill=2)
    read = watches.start().read()
    assert dict(read.containers) == {"asr": 2}
    assert (read.host, read.unattributed) == (2, 1)


def test_garbage_and_half_lines_in_the_log(watches: Watches) -> None:
    kernel = FakeKernel(watches.root)
    kernel.log(
        "\x00\xff;;;\n6,x,1,-;oom-kill:task_memcg=/docker/1,task=a\noom-kill: nothing\n6,1,1,-;oom-kill:\n"
    )
    kernel.log_kill(5, "asr")
    kernel.log("6,6,600,-;oom-kill:constraint=CONSTRAINT_MEMCG,task_memcg=/docker/" + container_id("asr"))
    watch = watches.start()
    assert dict(watch.read().containers) == {"asr": 1}
    kernel.log(",task=python3,pid=8,uid=0\n")
    assert dict(watch.read().containers) == {"asr": 2}


def test_words_of_old_kernels(watches: Watches) -> None:
    kernel = FakeKernel(watches.root)
    group = f"/docker/{container_id('asr')}"
    kernel.log(f"6,9,900,-;Task in {group} killed as a result of limit of {group}\n")
    assert dict(watches.start().read().containers) == {"asr": 1}


def event(action: str, name: str, nanoseconds: int) -> DockerEvent:
    return DockerEvent(action, container_id(name), name, nanoseconds)


def test_docker_tells(watches: Watches) -> None:
    FakeKernel(watches.root)
    watch = watches.start()
    assert watch.docker_since() == 1_700_000_000 * 10**9  # since boot
    watch.docker_event(event("start", "asr", 10))
    watch.docker_event(event("oom", "asr", 20))
    assert watch.docker_since() == 20
    again = watches.again()
    again.docker_event(event("oom", "asr", 20))  # told again by a Docker that was asked for what came since
    assert dict(again.read().containers) == {"asr": 1}
    again.docker_event(event("oom", "asr", 21))
    assert dict(again.read().containers) == {"asr": 2}


def test_a_renamed_container_takes_its_count_along(watches: Watches) -> None:
    FakeKernel(watches.root)
    watch = watches.start()
    unknown = container_id("made later")
    watch.docker_event(DockerEvent("oom", unknown, "first", 5))
    watch.docker_event(DockerEvent("rename", unknown, "second", 6))
    assert dict(watch.read().containers) == {"second": 1}


def test_without_a_count_of_the_host_there_is_no_reading(watches: Watches) -> None:
    kernel = FakeKernel(watches.root)
    kernel.vmstat(pswpin=4)
    with pytest.raises(ReadingError, match=r"Linux 4\.13"):
        watches.start().read()


def test_more_attributed_than_the_host_counts_is_no_negative_number(watches: Watches) -> None:
    kernel = FakeKernel(watches.root)
    kernel.kills("asr", 4)
    kernel.vmstat(oom_kill=1)
    assert watches.start().read().unattributed == 0


def test_the_kernel_log_where_it_may_not_be_read(watches: Watches) -> None:
    FakeKernel(watches.root)
    assert not watches.start("auto").has_kernel_log
    wanted = watches.again("on")
    assert wanted.has_kernel_log
    with pytest.raises(ReadingError, match="CAP_SYSLOG"):
        wanted.check_kernel_log()
    assert not wanted.read().containers


def test_when_notices_were_lost_all_containers_are_looked_at(
    watches: Watches, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = FakeKernel(watches.root)
    watch = watches.start()
    monkeypatch.setattr(Notices, "read", lambda self: iter([Notice(None)]))
    kernel.kills("asr", 1)
    assert dict(watch.read().containers) == {"asr": 1}


def test_records_that_were_overwritten_do_not_end_the_reading(
    watches: Watches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EPIPE from /dev/kmsg means that the ring went on without us; the next read gives the oldest that is left."""
    kernel = FakeKernel(watches.root)
    kernel.log_kill(2, "asr")
    watch = watches.start()
    assert watch._log is not None
    descriptor, read, failing = watch._log.fileno(), os.read, [True]

    def fail_once(file: int, length: int) -> bytes:
        if file == descriptor and failing:
            failing.pop()
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")
        return read(file, length)

    monkeypatch.setattr(os, "read", fail_once)
    kernel.log_kill(9, "other")
    assert dict(watch.read().containers) == {"asr": 1, "other": 1}
    assert not failing and watch.check_kernel_log() == 9


def test_what_nobody_foresaw_does_not_end_the_watching(
    watches: Watches, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kernel = FakeKernel(watches.root)
    monkeypatch.setattr("monitoring.exporter.oom._LOOK_SECONDS", 0.01)
    watch = watches.start()
    failures = [ZeroDivisionError("by zero")]
    walk = watch._walk

    def broken() -> None:
        if failures:
            raise failures.pop()
        walk()

    monkeypatch.setattr(watch, "_walk", broken)
    monkeypatch.setattr("monitoring.exporter.oom._WALK_SECONDS", 0.0)
    wait_for(lambda: "was not foreseen" in caplog.text, "the failure in the log")
    kernel.kills("asr", 1)
    wait_for(lambda: "asr" in watch._ledger.totals(), "the kill after it")


def test_a_log_that_fails_under_way_costs_only_itself(
    watches: Watches, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = FakeKernel(watches.root)
    kernel.log_kill(2, "asr")
    watch = watches.start()
    assert watch.check_kernel_log() == 2
    assert watch._log is not None
    descriptor, read = watch._log.fileno(), os.read

    def fail(file: int, length: int) -> bytes:
        if file == descriptor:
            raise OSError(5, "Input/output error")
        return read(file, length)

    monkeypatch.setattr(os, "read", fail)
    kernel.kills("other", 1)
    assert dict(watch.read().containers) == {"asr": 1, "other": 1}
    with pytest.raises(ReadingError, match="Input/output error"):
        watch.check_kernel_log()
    assert watch.has_kernel_log


def test_the_state_file_is_written_when_something_is_counted(watches: Watches) -> None:
    kernel = FakeKernel(watches.root)
    kernel.kills("asr", 1)
    watches.start().read()
    assert json.loads(watches.state.read_text())["containers"][container_id("asr")]["files"] == 1
    before = watches.state.stat().st_mtime_ns
    watches.running[0].read()
    assert watches.state.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "garbage", ["", "{", "[]", '{"boot": 1}', "\x00" * 100, "[" * 100_000, "x" * (5 << 20)]
)
def test_a_state_file_of_garbage_is_seen_and_kept(watches: Watches, garbage: str) -> None:
    kernel = FakeKernel(watches.root)
    kernel.kills("asr", 1)
    watches.state.write_text(garbage)
    watch = watches.start()
    assert watch._state is not None
    assert dict(watch.read().containers) == {"asr": 1}
    with pytest.raises(ReadingError, match="move it away"):
        watch._state.check()
    assert watches.state.read_text() == garbage
    watches.state.unlink()
    kernel.kills("asr", 2)
    watch.read()
    assert watch._state.check() == watches.state
    assert json.loads(watches.state.read_text())["containers"][container_id("asr")]["files"] == 2


def test_a_state_file_that_cannot_be_written_is_tried_again(watches: Watches) -> None:
    kernel = FakeKernel(watches.root)
    watches.state = watches.root / "not there" / "state.json"
    watch = watches.start()
    assert watch._state is not None
    kernel.kills("asr", 1)
    watch.read()
    with pytest.raises(ReadingError, match="cannot be written"):
        watch._state.check()
    watches.state.parent.mkdir()
    watch.read()
    watch._state.check()
    assert watches.state.exists()

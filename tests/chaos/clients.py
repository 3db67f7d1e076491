"""Clients of the service under faults: they do what the documents tell clients to do, and note what comes back."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import httpx

from tests.chaos.ledger import REFUSED, TRANSPORT, Ledger, SentJob

_COME_AGAIN = {408, 429, 503}
_FROM_GATEWAY = {502, 503, 504}  # with a page of HTML and not our shape of errors
_PAUSE = 0.3  # seconds between two tries
_LONG = 0.1  # of the jobs
_AT_ONCE = 3  # jobs that one client has in work


class Client(threading.Thread):
    """Asks through `address` until `stopped`; `expected` is the undisturbed text of each file."""

    def __init__(
        self, number: int, address: str, expected: Mapping[Path, str], ledger: Ledger, seed: int
    ) -> None:
        super().__init__(daemon=True)
        self._number, self._address, self._expected, self._ledger = number, address, expected, ledger
        self._random = random.Random(seed * 100 + number)
        self.stopped = threading.Event()
        self.fault: BaseException | None = None

    def run(self) -> None:
        try:
            self.work()
        except BaseException as error:  # noqa: BLE001 - told by the campaign
            self.fault = error

    def work(self) -> None:
        raise NotImplementedError

    def pick(self, *, long: bool) -> Path:
        """One of the recordings; the longest, of minutes, rarely and only if `long` ones may be."""
        *short, longest = sorted(self._expected, key=lambda file: file.stat().st_size)
        return longest if long and self._random.random() < _LONG else self._random.choice(short)

    def ask(
        self, method: str, path: str, file: Path | None = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response | None:
        """An answer that is no refusal; None when there was none, which is noted."""
        began = time.monotonic()
        form = (
            {"files": {"file": (file.name, file.read_bytes())}, "data": {"model": "whisper-1"}}
            if file
            else {}
        )
        try:
            answer = httpx.request(method, self._address + path, headers=headers, timeout=60, **form)  # type: ignore[arg-type]
        except httpx.HTTPError as error:
            self._ledger.missed(f"{TRANSPORT}: {type(error).__name__}", began)
            return None
        if answer.status_code in _FROM_GATEWAY and "json" not in answer.headers.get("content-type", ""):
            self._ledger.missed(f"{REFUSED}: {answer.status_code} by the gateway", began)
            return None
        if answer.status_code in _COME_AGAIN:
            code = answer.json()["error"]["code"]
            self._ledger.missed(f"{REFUSED}: {answer.status_code} {code}", began)
            return None
        return answer


class PlainClient(Client):
    """Sends a recording and waits for its text, again and again."""

    def work(self) -> None:
        while not self.stopped.is_set():
            file = self.pick(long=False)  # a service that is told to end waits for these
            self._ledger.count("plain requests")
            answer = self.ask("POST", "/v1/audio/transcriptions", file)
            if answer is None:
                time.sleep(_PAUSE)
            elif answer.status_code != 200:
                self._ledger.wrong(f"{file.name}: answer {answer.status_code} {answer.text[:300]}")
            elif answer.json()["text"] != self._expected[file]:
                self._ledger.wrong(f"{file.name}: another text, {answer.json()['text'][:60]!r}")
            else:
                self._ledger.count("plain texts right")


class JobClient(Client):
    """Sends jobs with a key, the same again while no answer comes, and looks after each until it has ended."""

    def __init__(
        self, number: int, address: str, expected: Mapping[Path, str], ledger: Ledger, seed: int
    ) -> None:
        super().__init__(number, address, expected, ledger, seed)
        self._files = {file.name: file for file in expected}

    def work(self) -> None:
        waiting: list[SentJob] = []
        number = 0
        while waiting or not self.stopped.is_set():
            if len(waiting) < _AT_ONCE and not self.stopped.is_set():
                number += 1
                job = SentJob(f"{self._number}-{number}", self.pick(long=True).name)
                self.send(job)
                self._ledger.add(job)
                waiting.append(job)
            waiting = [job for job in waiting if not self.has_ended(job)]
            time.sleep(_PAUSE)

    def send(self, job: SentJob) -> None:
        while True:
            job.epoch = self._ledger.epoch
            answer = self.ask("POST", "/v1/jobs", self._files[job.file], {"Idempotency-Key": job.key})
            if answer is None:
                time.sleep(_PAUSE)
                continue
            if answer.status_code not in {200, 202}:
                self._ledger.wrong(f"job {job.key}: answer {answer.status_code} {answer.text[:300]}")
                raise AssertionError("a job was not accepted")
            job.ids.append(answer.json()["id"])
            self._ledger.count("jobs accepted")
            return

    def has_ended(self, job: SentJob) -> bool:
        answer = self.ask("GET", f"/v1/jobs/{job.id}")
        if answer is None:
            return False
        if answer.status_code == 404:
            if not self._ledger.is_forgotten(job):
                self._ledger.wrong(f"job {job.id} was lost")
            else:
                self._ledger.count("jobs sent again after a damaged database")
            self.send(job)
            return False
        told = answer.json()
        if told["ended_at"] is None:
            return False
        if told["state"] != "done":
            self._ledger.wrong(f"job {job.id} {told['state']}: {told['error']}")
        elif not self.has_right_text(job):
            return False  # no answer; it is asked again
        job.state = told["state"]
        self._ledger.count(f"jobs {job.state}")
        return True

    def has_right_text(self, job: SentJob) -> bool:
        answer = self.ask("GET", f"/v1/jobs/{job.id}/result?format=json")
        if answer is None or (answer.status_code == 404 and self._ledger.is_forgotten(job)):
            return False
        if answer.status_code != 200 or answer.json()["text"] != self._expected[self._files[job.file]]:
            self._ledger.wrong(f"job {job.id} of {job.file}: another result, {answer.text[:100]!r}")
        return True

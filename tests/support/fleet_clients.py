"""Clients of a test fleet (fleet.py): the golden clip through the gateway, once or without a pause."""

from __future__ import annotations

import json
import re
import threading

import openai

from tests.support.fleet import KEY, ROOT, Fleet

PACK = ROOT / "app" / "demo" / "packs" / "int8"
GOLDEN = json.loads((PACK / "manifest.json").read_text(encoding="utf-8"))["golden"]["text"]


def url(hosts: Fleet) -> str:
    return f"http://{hosts.addresses['front']}:8080"


def client(hosts: Fleet) -> openai.OpenAI:
    return openai.OpenAI(api_key=KEY, base_url=f"{url(hosts)}/v1", max_retries=0, timeout=60)


def transcribe(hosts: Fleet) -> str:
    with (PACK / "golden.wav").open("rb") as file, client(hosts) as asked:
        text = asked.audio.transcriptions.create(model="whisper-1", file=file).text
    return re.sub(r"\W", "", text)


class Load:
    """Clients that transcribe through the gateway without a pause, until told to stop; what went wrong is kept."""

    def __init__(self, hosts: Fleet, clients: int = 2, *, tries: int = 1) -> None:
        self.hosts, self.tries = hosts, tries
        self.done, self.failures = 0, list[str]()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            for attempt in range(self.tries):
                try:
                    text = transcribe(self.hosts)
                except openai.APIError as error:
                    if attempt + 1 == self.tries:
                        self.failures.append(repr(error))
                    continue
                if text != GOLDEN:
                    self.failures.append(text)
                break
            self.done += 1

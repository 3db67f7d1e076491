"""The Docker or Podman socket: names of containers and their out-of-memory events. Only two things are ever asked, both
GET: /containers/json and /events; a proxy that allows nothing else is enough.

One thread follows the events and begins again with growing pauses when the socket fails; nobody waits for it.
"""

from __future__ import annotations

import http.client
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from monitoring.exporter.errors import ReadingError

LOG = logging.getLogger(__name__)
_ANSWER_SECONDS = 2.0
_QUIET_SECONDS = 300.0  # without an event for so long, the connection is made anew
_PAUSES = (1.0, 2.0, 5.0, 15.0, 30.0)
_LARGEST_LIST = 8 << 20
_LONGEST_EVENT = 64 << 10
_MOST_NAMES = 2000
_EVENTS = json.dumps(
    {"type": ["container"], "event": ["oom", "start", "create", "rename"]}, separators=(",", ":")
)


@dataclass(frozen=True)
class DockerEvent:
    """Something happened to a container; `nanoseconds` is Docker's Unix time."""

    action: str
    container: str
    name: str
    nanoseconds: int


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class DockerWatch:
    """Follows one socket.

    Args:
        socket_path: of Docker or Podman.
        on_event: called from the watching thread.
        since: gives the Unix time in nanoseconds after which events have not been seen yet.
    """

    def __init__(
        self, socket_path: Path, on_event: Callable[[DockerEvent], None], since: Callable[[], int]
    ) -> None:
        self._path, self._on_event, self._since = socket_path, on_event, since
        self._names: dict[str, str] = {}
        self._failure: str | None = "no answer yet"
        self._closing = threading.Event()
        self._connection: _UnixConnection | None = None
        self._thread = threading.Thread(target=self._follow, name="docker", daemon=True)

    def start(self) -> None:
        """Asks for names and for events until now, so that the first reading has them, and begins to follow."""
        try:
            self._list()
            self._read_events(until=time.time_ns())
            self._failure = None
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._failure = _words(error)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        connection = self._connection
        if connection is not None and connection.sock is not None:
            connection.sock.close()

    def name_of(self, container: str) -> str | None:
        """The name that a person gave it."""
        return self._names.get(container)

    def names(self) -> Mapping[str, str]:
        """Id -> name of all that are known, also of those gone lately."""
        return dict(self._names)

    def check(self) -> int:
        """How many names are known.

        Raises:
            ReadingError: the socket does not answer, or not in Docker's language.
        """
        if self._failure is not None:
            raise ReadingError(
                f"{self._path} does not tell about containers ({self._failure})",
                fix="Check that Docker runs and that the exporter's user may use its socket, or say --docker off",
            )
        return len(self._names)

    def _follow(self) -> None:
        failures = 0
        while not self._closing.is_set():
            try:
                self._list()
                self._failure = None
                failures = 0
                self._read_events()
            except TimeoutError:
                continue  # quiet, not broken; the list tells what was missed
            except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
                self._failure = _words(error)
            self._closing.wait(_PAUSES[min(failures, len(_PAUSES) - 1)])
            failures += 1

    def _list(self) -> None:
        connection = _UnixConnection(self._path, _ANSWER_SECONDS)
        try:
            connection.request("GET", "/containers/json?all=1")
            with connection.getresponse() as answer:
                body = answer.read(_LARGEST_LIST)
            if answer.status != http.client.OK:
                raise ValueError(f"it answered {answer.status} to /containers/json")
            listed = json.loads(body)
            if not isinstance(listed, list):
                raise TypeError
            for told in listed:
                self._learn(str(told["Id"]), str(told["Names"][0]))
        except (LookupError, TypeError):
            raise ValueError("it answered in a language that is not Docker's") from None
        finally:
            connection.close()

    def _learn(self, container: str, name: str) -> None:
        self._names.pop(container, None)
        self._names[container] = name.lstrip("/")
        while len(self._names) > _MOST_NAMES:
            del self._names[next(iter(self._names))]

    def _read_events(self, until: int | None = None) -> None:
        """Takes events as they come; with `until` (Unix nanoseconds), only those that came before."""
        connection = self._connection = _UnixConnection(self._path, _ANSWER_SECONDS)
        limits = f"since={_seconds(self._since())}" + (f"&until={_seconds(until)}" if until else "")
        try:
            connection.request("GET", f"/events?{limits}&filters={quote(_EVENTS)}")
            channel = connection.sock  # http.client lets go of it when the answer ends with the connection
            with connection.getresponse() as answer:
                if answer.status != http.client.OK:
                    raise ValueError(f"it answered {answer.status} to /events")
                if until is None:
                    channel.settimeout(_QUIET_SECONDS)
                while line := answer.readline(_LONGEST_EVENT):
                    if line.strip():
                        self._take(json.loads(line))
            if until is None and not self._closing.is_set():
                raise ValueError("it ended the stream of events")
        finally:
            connection.close()

    def _take(self, told: Any) -> None:
        try:
            actor = told["Actor"]
            event = DockerEvent(
                action=str(told["Action"]),
                container=str(actor["ID"]),
                name=str(actor["Attributes"]["name"]),
                nanoseconds=int(told.get("timeNano") or int(told["time"]) * 10**9),
            )
        except (LookupError, TypeError):
            raise ValueError("it told of an event in a language that is not Docker's") from None
        if event.nanoseconds > time.time_ns() + 10**9 * 86400:
            raise ValueError("it told of an event from the future")
        self._learn(event.container, event.name)
        self._on_event(event)


def _seconds(nanoseconds: int) -> str:
    """As Docker wants times: seconds, a dot, nine digits."""
    return f"{nanoseconds // 10**9}.{nanoseconds % 10**9:09d}"


def _words(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error) or type(error).__name__

"""A Docker that only knows its containers' names and tells events, on a Unix socket. It can speak nonsense or hang."""

from __future__ import annotations

import json
import socketserver
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.fakes.kernel import container_id

END = object()


class FakeDocker(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Serves until `close`. `broken`: bytes that are answered in place of anything sensible."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), _Handler)
        self.containers: dict[str, str] = {}
        self.events: list[Any] = []
        self.news = threading.Condition()
        self.asked: list[str] = []
        self.broken: bytes | None = None
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def knows(self, *names: str) -> None:
        """These containers are there."""
        self.containers.update({container_id(name): name for name in names})

    def tell(self, action: str, name: str, nanoseconds: int, container: str | None = None) -> None:
        """An event for whoever follows, or asks later for what came since."""
        actor = {"ID": container or container_id(name), "Attributes": {"name": name, "image": "asr"}}
        self.put({"Type": "container", "Action": action, "Actor": actor, "timeNano": nanoseconds})

    def put(self, event: Any) -> None:
        """An event, or bytes in place of one, or END, which ends one follower's stream."""
        with self.news:
            self.events.append(event)
            self.news.notify_all()

    def next_event(self, place: int) -> Any:
        """The event at this place of history, waited for; bytes and END are for one follower only."""
        with self.news:
            while len(self.events) <= place:
                self.news.wait()
            event = self.events[place]
            if not isinstance(event, dict):
                self.events[place] = {"timeNano": 0}
            return event

    def close(self) -> None:
        self.put(END)
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeDocker

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.server.broken is not None:
            self.wfile.write(self.server.broken)
            self.close_connection = True
        elif urlsplit(self.path).path == "/containers/json":
            listed = [{"Id": each, "Names": [f"/{name}"]} for each, name in self.server.containers.items()]
            self._send(json.dumps(listed).encode())
        else:
            self._follow()

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _follow(self) -> None:
        asked = parse_qs(urlsplit(self.path).query)
        since = float(asked["since"][0])
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if "until" in asked:
            told = [
                event for event in self.server.events if isinstance(event, dict) and event["timeNano"] > 0
            ]
            lines = [json.dumps(event) for event in told if event["timeNano"] >= since * 1e9 - 1e6]
            whole = "".join(f"{line}\n" for line in lines).encode()
            self.wfile.write(
                (f"{len(whole):x}\r\n".encode() + whole + b"\r\n" if whole else b"") + b"0\r\n\r\n"
            )
            self.close_connection = True
            return
        place = -1
        while (event := self.server.next_event(place := place + 1)) is not END:
            if isinstance(event, dict) and event["timeNano"] < since * 1e9 - 1e6:
                continue
            line = event if isinstance(event, bytes) else json.dumps(event).encode() + b"\n"
            self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Silent."""

    def address_string(self) -> str:
        return "unix"

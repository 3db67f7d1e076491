"""A host that takes jobs, for tests of the gateway: it knows its own jobs and no other's."""

from __future__ import annotations

import contextlib
import http.server
import json
import secrets
import threading


class FakeJobHost:
    """Listens on an address of this machine until `close`; `jobs` are the ids it took."""

    def __init__(self, address: str, port: int) -> None:
        self.jobs: list[str] = []
        self._gone = threading.Event()
        jobs, gone = self.jobs, self._gone

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def parse_request(self) -> bool:
                """A host that is gone answers on no connection that was kept open either."""
                self.close_connection = gone.is_set()
                return not gone.is_set() and super().parse_request()

            def handle(self) -> None:
                with contextlib.suppress(ConnectionError):
                    super().handle()

            def do_GET(self) -> None:
                name = self.path.split("/")[3] if self.path.startswith("/v1/jobs/") else ""
                self._answer(404 if name and name not in jobs else 200, name)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", "0")))
                name = self.path.split("/")[3] if self.path.startswith("/v1/jobs/") else ""
                if name:  # cancel
                    self._answer(200 if name in jobs else 404, name)
                    return
                jobs.append(f"job_{secrets.token_hex(8)}")
                self._answer(202, jobs[-1])

            def _answer(self, status: int, name: str) -> None:
                body = json.dumps({"id": name}).encode()
                self.send_response(status)
                if status == 202:
                    self.send_header("Location", f"/v1/jobs/{name}")
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
                """Nobody reads it."""

        self._server = http.server.ThreadingHTTPServer((address, port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Nobody listens any more."""
        if self._gone.is_set():
            return
        self._gone.set()
        self._server.shutdown()
        self._server.server_close()

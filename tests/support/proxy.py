"""A small reverse proxy, as nginx with a trailing slash would be: it serves the service below a path of its own."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_HOP = {"connection", "keep-alive", "transfer-encoding", "host"}


@contextlib.contextmanager
def proxy(target: str, path: str) -> Iterator[str]:
    """Gives the address at which `target` can be reached below `path`; everything else is 404."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(urlsplit(target).netloc, path))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}{path}"
    finally:
        server.shutdown()
        server.server_close()


def _handler(target: str, path: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            if not self.path.startswith(path + "/"):
                self.send_error(404)
                return
            size = int(self.headers.get("content-length") or 0)
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
            headers["Host"] = self.headers["Host"]
            headers["X-Forwarded-Proto"] = "http"
            connection = http.client.HTTPConnection(target)
            with contextlib.closing(connection):
                connection.request(
                    self.command, self.path[len(path) :], self.rfile.read(size) or None, headers
                )
                self.answer(connection.getresponse())

        def answer(self, response: http.client.HTTPResponse) -> None:
            self.send_response(response.status)
            for name, value in response.getheaders():
                if name.lower() not in _HOP:
                    self.send_header(name, value)
            self.send_header("Connection", "close")
            self.end_headers()
            while piece := response.read1(1 << 16):
                self.wfile.write(piece)
                self.wfile.flush()
            self.close_connection = True

        do_GET = do_POST = do_DELETE = do_HEAD = forward  # noqa: N815 - the base class wants these names

        def handle(self) -> None:
            with contextlib.suppress(OSError):  # the browser has gone
                super().handle()

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            """Says nothing."""

    return Handler

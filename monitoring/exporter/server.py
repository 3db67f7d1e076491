"""The HTTP side: /metrics and /healthz, a token if one is wanted, few connections, none of them for long.

It knows nothing of what is measured: a function gives it the page.
"""

from __future__ import annotations

import hmac
import http.server
import logging
import socket
import sys
import threading
from collections.abc import Callable
from http import HTTPStatus

from monitoring.exporter.errors import ConfigurationError
from monitoring.exporter.render import CONTENT_TYPE

LOG = logging.getLogger(__name__)
_MOST_CONNECTIONS = 16
_SECONDS = 15.0
_ABOUT = b"Metrics of this host are at /metrics.\n"


class MetricsServer(http.server.ThreadingHTTPServer):
    """Answers scrapes.

    Args:
        address: host and port; port 0 takes a free one.
        page: gives the metrics; called in the request's thread.
        token: what scrapers must send as a bearer token; None: nothing.

    Raises:
        ConfigurationError: the address cannot be listened on.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 32

    def __init__(self, address: tuple[str, int], page: Callable[[], bytes], token: str | None = None) -> None:
        self.page, self.token = page, token
        self._free = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        try:
            super().__init__(address, _Handler)
        except (OSError, OverflowError) as error:
            raise ConfigurationError(
                f"It is not possible to listen on {address[0]}:{address[1]} ({error})",
                fix="Give a free port and an address of this host with --listen",
            ) from None

    def server_bind(self) -> None:
        """Binds, without the look-up of the host's name that the library would do."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: object
    ) -> None:
        """Starts a thread for a connection; beyond the limit it is closed at once."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: object
    ) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 - the library's name
        """A client that went away is not worth a traceback; a fault of ours is."""
        error = sys.exc_info()[1]
        level = logging.DEBUG if isinstance(error, OSError) else logging.ERROR
        LOG.log(level, "A request from %s failed", client_address, exc_info=error)


class _Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""

    server: MetricsServer
    timeout = _SECONDS
    server_version, sys_version = "asr-exporter", ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/healthz":
            self._answer(HTTPStatus.OK, b"ok\n")
        elif path == "/metrics":
            if self._allowed():
                self._answer(HTTPStatus.OK, self.server.page(), CONTENT_TYPE)
            else:
                self._answer(HTTPStatus.UNAUTHORIZED, b"A bearer token is needed.\n")
        elif path == "/":
            self._answer(HTTPStatus.OK, _ABOUT)
        else:
            self._answer(HTTPStatus.NOT_FOUND, _ABOUT)

    def _allowed(self) -> bool:
        if self.server.token is None:
            return True
        scheme, _, given = self.headers.get("Authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(
            given.strip().encode(), self.server.token.encode()
        )

    def _answer(self, status: HTTPStatus, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if status is HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", "Bearer")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        LOG.debug("%s: %s", self.client_address[0], format % args)

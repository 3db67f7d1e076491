"""How long a connection may take to say what it wants: the server's protocol, with a bound for the heads of requests.

uvicorn bounds only the silence between requests: the first byte ends that bound. Pauses within a body are the business
of uploads.py; once a request is there, nothing here ends it.
"""

from __future__ import annotations

import asyncio
import json

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from app.service.errors import TimedOut, failure_of


class BoundedHeads(H11Protocol):
    """A connection on which no request is at work is closed when it brings no whole head within `seconds`, from its
    beginning, or from the first byte after an answer.

    What still comes of a body after its answer counts like a head: nobody wants it.
    """

    seconds: float
    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Of asyncio.Protocol."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Of asyncio.Protocol."""
        super().data_received(data)
        if self._is_idle and self.transport.get_protocol() is self:  # not when a websocket has taken over
            self._wait()
        else:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """Of asyncio.Protocol."""
        self._stop_waiting()
        super().connection_lost(exc)

    @property
    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _wait(self) -> None:
        if self._waiting is None:
            self._waiting = self.loop.call_later(self.seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _give_up(self) -> None:
        self._waiting = None
        if not self._is_idle or self.transport.is_closing():
            return
        begun, _ = self.conn.trailing_data
        if begun and self.conn.our_state is h11.IDLE:
            self.transport.write(_too_slow(self.seconds))
        self.transport.close()


def bounded_protocol(seconds: float) -> type[BoundedHeads]:
    """The class for uvicorn's setting `http`, with its bound."""
    return type("BoundedHeads", (BoundedHeads,), {"seconds": seconds})


def _too_slow(seconds: float) -> bytes:
    """The answer to a head that was begun; whoever has sent nothing waits for none."""
    failure = failure_of(
        TimedOut(
            f"The head of the request did not end within {seconds:g} seconds",
            fix="Send the request again, all of its headers at once.",
            client=True,
        )
    )
    body = json.dumps(failure.body).encode()
    lines = (
        f"HTTP/1.1 {failure.status} Request Timeout",
        "Connection: close",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "",
        "",
    )
    return "\r\n".join(lines).encode() + body

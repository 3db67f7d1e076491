"""A TCP proxy that stands for a bad network: it passes bytes slowly, or breaks connections in the middle."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from dataclasses import dataclass


@dataclass
class Line:
    """How the line is at the moment.

    Attributes:
        bytes_per_second: of each direction of a connection; 0 for as fast as it goes.
        delay_seconds: before each piece.
        break_chance: that a connection is broken at a piece, 0 to 1.
    """

    bytes_per_second: float = 0.0
    delay_seconds: float = 0.0
    break_chance: float = 0.0


GOOD = Line()


class BadNetwork:
    """Listens on a port of its own on 127.0.0.1 and passes everything to `target` over `line`, which may be changed."""

    def __init__(self, target: int, seed: int) -> None:
        self._target, self._random = target, random.Random(seed)
        self.line = GOOD
        self.broken = 0  # connections
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Takes no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._join, args=(client,), daemon=True).start()

    def _join(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        ends = [(client, server), (server, client)]
        pumps = [threading.Thread(target=self._pump, args=end, daemon=True) for end in ends]
        for pump in pumps:
            pump.start()
        for pump in pumps:
            pump.join()
        client.close()
        server.close()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(16 << 10):
                line = self.line
                if line.break_chance and self._random.random() < line.break_chance:
                    self.broken += 1
                    sink.sendall(data[: len(data) // 2])
                    break
                if line.delay_seconds or line.bytes_per_second:
                    slow = len(data) / line.bytes_per_second if line.bytes_per_second else 0.0
                    time.sleep(line.delay_seconds + slow)
                sink.sendall(data)
            else:
                sink.shutdown(socket.SHUT_WR)
                return
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

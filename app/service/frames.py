"""Messages between the web process and its worker: a JSON header and raw bytes, length-prefixed.

No pickle: what a worker sends is data, whatever state it is in. Both ends run the same version of this program.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.asr.joining import Recognition

# Exit codes by which the worker tells why it ended.
STOPPED, CANNOT_START, DEVICE_LOST = 0, 3, 4
_LENGTHS = struct.Struct("<II")
# A batch of 64 segments of 120 s is 470 MB; anything larger is damage.
_MAX_BYTES = (32 << 20, 1 << 30)


@dataclass(frozen=True)
class Frame:
    """One message: `header["kind"]` says what it is, `payload` is bytes whose meaning the kind gives."""

    header: Mapping[str, Any]
    payload: bytes = b""

    @property
    def kind(self) -> str:
        """What the message is."""
        return str(self.header.get("kind"))

    def encode(self) -> bytes:
        """The message as it travels."""
        header = json.dumps(self.header, ensure_ascii=False).encode()
        return _LENGTHS.pack(len(header), len(self.payload)) + header + self.payload


class ChannelClosed(Exception):  # noqa: N818 - the other end going away is no error of ours
    """The other end is gone."""


class Channel:
    """The worker's end: blocking, used from one reading and one writing thread."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def send(self, frame: Frame) -> None:
        """Raises ChannelClosed."""
        try:
            self._connection.sendall(frame.encode())
        except OSError as error:
            raise ChannelClosed from error

    def receive(self) -> Frame:
        """The next message. Raises ChannelClosed."""
        lengths = _checked(_LENGTHS.unpack(self._exactly(_LENGTHS.size)))
        header = json.loads(self._exactly(lengths[0]))
        return Frame(header, bytes(self._exactly(lengths[1])))

    def _exactly(self, count: int) -> bytearray:
        data = bytearray(count)
        view, got = memoryview(data), 0
        while got < count:
            try:
                more = self._connection.recv_into(view[got:])
            except OSError as error:
                raise ChannelClosed from error
            if not more:
                raise ChannelClosed
            got += more
        return data


async def read_frame(reader: asyncio.StreamReader) -> Frame:
    """The next message of the other end. Raises ChannelClosed."""
    try:
        lengths = _checked(_LENGTHS.unpack(await reader.readexactly(_LENGTHS.size)))
        header = json.loads(await reader.readexactly(lengths[0]))
        return Frame(header, await reader.readexactly(lengths[1]))
    except (asyncio.IncompleteReadError, OSError) as error:
        raise ChannelClosed from error


def _checked(lengths: tuple[int, int]) -> tuple[int, int]:
    if lengths[0] > _MAX_BYTES[0] or lengths[1] > _MAX_BYTES[1]:
        raise ChannelClosed(f"a message of {lengths} bytes is damage")
    return lengths


def batch_frame(
    number: int, segments: Sequence[NDArray[np.float32]], hotwords: Sequence[Sequence[int]]
) -> Frame:
    """Work for the worker: 16 kHz mono samples of each segment, and token ids of each hot word."""
    header = {
        "kind": "batch",
        "id": number,
        "lengths": [len(segment) for segment in segments],
        "hotwords": [list(word) for word in hotwords],
    }
    return Frame(
        header, b"".join(np.ascontiguousarray(segment, np.float32).tobytes() for segment in segments)
    )


def segments_of(frame: Frame) -> list[NDArray[np.float32]]:
    """The samples in a batch frame."""
    samples = np.frombuffer(frame.payload, np.float32)
    ends = np.cumsum(frame.header["lengths"])
    return np.split(samples, ends[:-1]) if len(ends) else []


def results_frame(number: int, results: Sequence[Recognition], more: Mapping[str, Any]) -> Frame:
    """The worker's answer to a batch, in its order; `more` is added to the header."""
    header = {"kind": "done", "id": number, "counts": [len(result.ids) for result in results], **more}
    parts = [
        part
        for result in results
        for part in (
            result.ids.astype(np.int32).tobytes(),
            result.starts.astype(np.float32).tobytes(),
            result.ends.astype(np.float32).tobytes(),
        )
    ]
    return Frame(header, b"".join(parts))


def results_of(frame: Frame) -> list[Recognition]:
    """The recognitions in a results frame."""
    found, offset = [], 0
    for count in frame.header["counts"]:
        ids = np.frombuffer(frame.payload, np.int32, count, offset)
        starts, ends = np.frombuffer(frame.payload, np.float32, 2 * count, offset + 4 * count).reshape(
            2, count
        )
        found.append(Recognition(ids, starts, ends))
        offset += 12 * count
    return found

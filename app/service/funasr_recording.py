"""A recording that arrives in pieces of any size, on its way to disk; bare PCM becomes a WAV file there.

What the pieces mean is funasr_socket.py's part.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from app.asr.errors import ResourceError
from app.service.errors import TooLarge
from app.service.uploads import SUFFIX

_HEADER_BYTES = 44
_SAMPLE_BYTES = 2
_WRITE_BYTES = 256 << 10
_LARGEST_CHUNK = 0xFFFFFFFF


class Recording:
    """One recording. `add` its bytes, `finish` it, and always `remove` it at the end.

    Args:
        pcm: the bytes are samples, 16 bits each, not a file. Those of a WAV file are recognised nevertheless:
            many clients call it pcm.
    """

    def __init__(self, directory: Path, max_bytes: int, *, pcm: bool) -> None:
        self.path = directory / f"{secrets.token_hex(16)}{SUFFIX}"
        self.size = 0
        self.is_pcm = pcm
        self._max_bytes = max_bytes
        self._unwritten = bytearray()
        self._file: BinaryIO | None = None

    async def add(self, data: bytes) -> None:
        """The next bytes.

        Raises:
            TooLarge: there are too many.
            ResourceError: the disk does not take them.
        """
        self.size += len(data)
        if self.size > self._max_bytes:
            raise TooLarge(self._max_bytes)
        self._unwritten += data
        if len(self._unwritten) >= _WRITE_BYTES:
            await _in_thread(self._write)

    async def finish(self, rate: int) -> None:
        """All bytes have come; PCM has `rate` samples a second. Raises ResourceError."""
        await _in_thread(lambda: self._finish(rate))

    def seconds(self, rate: int) -> float | None:
        """How long it is, as far as its size tells."""
        return self.size / _SAMPLE_BYTES / rate if self.is_pcm else None

    async def remove(self) -> None:
        """Removes what was written."""
        await _in_thread(self._remove)

    def _write(self) -> None:
        data, self._unwritten = self._unwritten, bytearray()
        if self._file is None:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            self._file = os.fdopen(descriptor, "wb")
            self.is_pcm = self.is_pcm and not _is_wav(data)
            if self.is_pcm:
                self._file.write(bytes(_HEADER_BYTES))
        self._file.write(data)

    def _finish(self, rate: int) -> None:
        self._write()
        if self._file is not None:
            if self.is_pcm:
                whole = self.size - self.size % _SAMPLE_BYTES
                self._file.truncate(_HEADER_BYTES + whole)
                self._file.seek(0)
                self._file.write(_wav_header(whole, rate))
            self._file.close()

    def _remove(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # what could not be written is not wanted any more
                self._file.close()
        self.path.unlink(missing_ok=True)


def _is_wav(head: bytes | bytearray) -> bool:
    return head[:4] == b"RIFF" and head[8:12] == b"WAVE"


def _wav_header(size: int, rate: int) -> bytes:
    """RIFF, WAVE: one channel of 16-bit samples. A size beyond 32 bits means: up to the end of the file."""
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF",
        min(size + _HEADER_BYTES - 8, _LARGEST_CHUNK),
        b"WAVE",
        b"fmt ",
        16,
        1,
        1,
        rate,
        rate * _SAMPLE_BYTES,
        _SAMPLE_BYTES,
        8 * _SAMPLE_BYTES,
        b"data",
        min(size, _LARGEST_CHUNK),
    )


async def _in_thread(work: Callable[[], None]) -> None:
    """Runs `work` in a thread, to its end even when the caller is cancelled: nobody closes a file below it."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        raise
    except OSError as error:
        raise ResourceError(
            f"The recording could not be stored ({error.strerror or error})",
            fix="Try again later, or tell the operator of this service to look at its data directory.",
        ) from error

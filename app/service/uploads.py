"""Multipart uploads: fields into memory, files to disk under random names, counted while they arrive.

A body that announces too much is refused before it is read, one that turns out too large as soon as it does. What a
client calls its file is never a path here. Leaving `received_form` removes every file that was not taken out of it.
What the fields mean is for the handlers.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from app.asr.errors import ResourceError
from app.service.errors import RequestError, TimedOut, TooLarge
from app.service.settings import Settings

SUFFIX = ".upload"
# Beside its files, a form is boundaries, headers and short fields.
_MAX_PARTS, _MAX_NAME_BYTES, _MAX_FIELD_BYTES = 200, 256, 64 << 10
_WRITE_BYTES = 1 << 20
_KEEP_FREE_BYTES = 64 << 20
_MAX_SHOWN_NAME = 255


@dataclass(frozen=True)
class FormLimits:
    """What a form may hold.

    Attributes:
        max_bytes: of the whole body.
        max_field_bytes: of each field that is not a file.
        max_files: files in one form.
        idle_seconds: longest pause between two pieces.
    """

    max_bytes: int
    max_field_bytes: int = _MAX_FIELD_BYTES
    max_files: int = 1
    idle_seconds: float = 30.0


@dataclass(frozen=True)
class StoredFile:
    """A file of a form. `name` is what the client calls it: to be shown, never to be opened."""

    field: str
    name: str
    path: Path
    size: int


@dataclass
class Form:
    """A form that has arrived: its fields in order, several by one name, and its files."""

    fields: dict[str, list[str]] = field(default_factory=dict)
    files: list[StoredFile] = field(default_factory=list)

    def last(self, name: str) -> str | None:
        """The last value of a field; None when it is not there."""
        values = self.fields.get(name)
        return values[-1] if values else None

    def all(self, *names: str) -> list[str]:
        """All values of a field that has several spellings."""
        return [value for name in names for value in self.fields.get(name, ())]


def limits_of(settings: Settings, *, max_files: int = 1) -> FormLimits:
    """The limits that the operator set."""
    return FormLimits(
        max_bytes=settings.max_upload_bytes,
        max_field_bytes=max(_MAX_FIELD_BYTES, settings.max_hotword_bytes),
        max_files=max_files,
        idle_seconds=settings.upload_idle_seconds,
    )


def remove_leftovers(directory: Path) -> None:
    """Uploads of a process that was killed."""
    for path in directory.glob(f"*{SUFFIX}"):
        with contextlib.suppress(OSError):
            path.unlink()


@contextlib.asynccontextmanager
async def received_form(request: Request, directory: Path, limits: FormLimits) -> AsyncIterator[Form]:
    """The form in a request's body, its files in `directory`; they are gone when the context is left, unless somebody
    moved them away.

    Raises:
        RequestError: the body is no form, or a malformed one.
        TooLarge, TimedOut, ResourceError: it has too many bytes, too long a pause, or the disk is full.
        ClientDisconnect: the client has gone.
    """
    boundary = _boundary_of(request)
    _check_announced(request, directory, limits)
    collector = _Collector(boundary, directory, limits)
    try:
        try:
            await _receive(request, collector, limits)
        finally:
            collector.close()
        yield collector.form
    finally:
        for path in collector.paths:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _boundary_of(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data":
        shown = kind.decode("latin-1")[:80] or "no content type"
        raise RequestError(
            f"The body is {shown}, not multipart/form-data",
            fix="Send the audio as the file field of a form, for example: curl -F file=@talk.mp3 -F model=whisper-1.",
            status=415,
            code="unsupported_content_type",
        )
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 70:  # RFC 2046
        raise _malformed("its boundary is missing or too long")
    return boundary


def _check_announced(request: Request, directory: Path, limits: FormLimits) -> None:
    announced = request.headers.get("content-length", "")
    size = int(announced) if announced.isascii() and announced.isdigit() else 0
    if size > limits.max_bytes:
        raise TooLarge(limits.max_bytes)
    try:
        free = shutil.disk_usage(directory).free
    except OSError:
        return  # writing will tell
    if free - size < _KEEP_FREE_BYTES:
        raise _disk_full()


async def _receive(request: Request, collector: _Collector, limits: FormLimits) -> None:
    size = 0
    stream = request.stream().__aiter__()
    while True:
        try:
            piece = await asyncio.wait_for(stream.__anext__(), limits.idle_seconds)
        except StopAsyncIteration:
            break
        except (asyncio.TimeoutError, TimeoutError):
            raise TimedOut(
                f"Nothing of the upload arrived for {limits.idle_seconds:g} seconds",
                fix="Send it again over a better connection.",
                client=True,
            ) from None
        size += len(piece)
        if size > limits.max_bytes:
            raise TooLarge(limits.max_bytes)
        await collector.take(piece)
    await collector.finish()


class _Collector:
    """Callbacks of the parser. They only note what came; bytes are written in a thread by `take`."""

    def __init__(self, boundary: bytes, directory: Path, limits: FormLimits) -> None:
        self.form = Form()
        self.paths: list[Path] = []
        self._directory, self._limits = directory, limits
        self._parts, self._complete = 0, False
        self._header, self._value = bytearray(), bytearray()
        self._disposition = b""
        self._name = ""
        self._text: bytearray | None = None
        self._file: _OpenFile | None = None
        self._begun: list[_OpenFile] = []
        self._unwritten: list[tuple[_OpenFile, bytes]] = []
        self._unwritten_bytes = 0
        self._parser = _parser(boundary, self)

    async def take(self, piece: bytes) -> None:
        """A piece of the body."""
        with _as_malformed():
            self._parser.write(piece)
        if self._unwritten_bytes >= _WRITE_BYTES:
            await self._write()

    async def finish(self) -> None:
        """The body has ended."""
        with _as_malformed():
            self._parser.finalize()
        if not self._complete:
            raise _malformed("it ends before its last boundary")
        await self._write()

    def close(self) -> None:
        """Closes what is still open."""
        self._unwritten.clear()
        for file in self._begun:
            file.close()

    async def _write(self) -> None:
        held, self._unwritten, self._unwritten_bytes = self._unwritten, [], 0
        writing = asyncio.ensure_future(asyncio.to_thread(_write_all, held))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait({writing})  # a thread cannot be stopped; its file must not be closed below it
            raise

    def begin_part(self) -> None:
        self._parts += 1
        if self._parts > _MAX_PARTS:
            raise _malformed(f"it has more than {_MAX_PARTS} parts")
        self._disposition, self._name, self._text, self._file = b"", "", None, None

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        if bytes(self._header).lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header, self._value = bytearray(), bytearray()

    def headers_finished(self) -> None:
        kind, options = parse_options_header(self._disposition)
        if kind != b"form-data" or not 1 <= len(options.get(b"name", b"")) <= _MAX_NAME_BYTES:
            raise _malformed("one of its parts has no name")
        self._name = options[b"name"].decode("utf-8", "replace")
        if b"filename" not in options:
            self._text = bytearray()
            return
        if len(self.paths) >= self._limits.max_files:
            raise RequestError(
                f"The form holds more than {self._limits.max_files} file(s)",
                fix="Send the others in requests of their own.",
                param=self._name,
            )
        path = self._directory / f"{secrets.token_hex(16)}{SUFFIX}"
        self.paths.append(path)
        self._file = _OpenFile(options[b"filename"].decode("utf-8", "replace")[:_MAX_SHOWN_NAME], path)
        self._begun.append(self._file)

    def part_data(self, data: bytes, start: int, end: int) -> None:
        if start == end:
            return  # no bytes mean the end of a file in the list below
        if self._file is not None:
            self._file.size += end - start
            self._unwritten.append((self._file, data[start:end]))
            self._unwritten_bytes += end - start
        elif self._text is not None:
            self._text += data[start:end]
            if len(self._text) > self._limits.max_field_bytes:
                raise RequestError(
                    f"The field {self._name[:40]} is longer than {self._limits.max_field_bytes} bytes",
                    fix="Shorten it.",
                    param=self._name[:40],
                    code="string_above_max_length",
                )

    def part_end(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            self._unwritten.append((file, b""))  # closes it, in its turn
            self.form.files.append(StoredFile(self._name, file.name, file.path, file.size))
        elif self._text is not None:
            try:
                text = self._text.decode("utf-8")
            except UnicodeDecodeError:
                raise RequestError(
                    f"The field {self._name[:40]} is not UTF-8",
                    fix="Send text as UTF-8.",
                    param=self._name[:40],
                ) from None
            self.form.fields.setdefault(self._name, []).append(text)

    def end(self) -> None:
        self._complete = True


class _OpenFile:
    """A file that is being written; opened with the first byte, in the thread that writes."""

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.path, self.size = name, path, 0
        self._stream: BinaryIO | None = None

    def write(self, data: bytes) -> None:
        if self._stream is None:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            self._stream = os.fdopen(descriptor, "wb")
        self._stream.write(data)

    def close(self) -> None:
        if self._stream is not None:
            with contextlib.suppress(OSError):
                self._stream.close()


def _parser(boundary: bytes, collector: _Collector) -> MultipartParser:
    return MultipartParser(
        boundary,
        {
            "on_part_begin": collector.begin_part,
            "on_header_field": collector.header_field,
            "on_header_value": collector.header_value,
            "on_header_end": collector.header_end,
            "on_headers_finished": collector.headers_finished,
            "on_part_data": collector.part_data,
            "on_part_end": collector.part_end,
            "on_end": collector.end,
        },
    )


def _write_all(pieces: list[tuple[_OpenFile, bytes]]) -> None:
    try:
        for file, data in pieces:
            file.write(data)
            if not data:
                file.close()
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise _disk_full() from error
        raise ResourceError(
            f"The upload could not be stored ({error.strerror})",
            fix="The operator of this service has to look at its data directory.",
        ) from error


@contextlib.contextmanager
def _as_malformed() -> Iterator[None]:
    try:
        yield
    except FormParserError as error:
        raise _malformed("it does not follow RFC 7578") from error


def _malformed(reason: str) -> RequestError:
    return RequestError(
        f"The multipart form cannot be read: {reason}",
        fix="Let an HTTP library or curl -F build the form.",
        code="malformed_form",
    )


def _disk_full() -> ResourceError:
    return ResourceError(
        "There is no disk space left for this upload",
        fix="Try again later, or ask the operator of this service for more space.",
    )


__all__ = [
    "ClientDisconnect",
    "Form",
    "FormLimits",
    "StoredFile",
    "limits_of",
    "received_form",
    "remove_leftovers",
]

"""Forms as they arrive, piece by piece: what is kept, what is refused and when, what is left on disk."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request

from app.asr.errors import AsrError, ResourceError
from app.service import uploads
from app.service.errors import RequestError, TimedOut, TooLarge
from app.service.settings import load_settings
from app.service.uploads import Form, FormLimits, received_form, remove_leftovers

TYPE = "multipart/form-data; boundary=xyz"
LIMITS = FormLimits(max_bytes=100_000, max_field_bytes=1000, max_files=2, idle_seconds=5.0)
FORM = (
    b'--xyz\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
    b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="C:\\\\a/../b.wav"\r\n'
    b"Content-Type: audio/wav\r\n\r\n\x00\x01\r\n--xy not yet\r\n\xff\r\n"
    b'--xyz\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n\xe4\xbb\x8a\r\n--xyz--\r\n'
)
CONTENT = b"\x00\x01\r\n--xy not yet\r\n\xff"


class Wire:
    """What a client sends; counts what was taken. After the pieces it stays silent, or it is gone."""

    def __init__(self, pieces: Iterable[bytes], *, ends: bool = True, gone: bool = False) -> None:
        self.pieces, self.ends, self.gone, self.taken = list(pieces), ends, gone, 0

    async def receive(self) -> dict[str, Any]:
        if self.taken < len(self.pieces):
            self.taken += 1
            more = self.taken < len(self.pieces) or not self.ends
            return {"type": "http.request", "body": self.pieces[self.taken - 1], "more_body": more}
        if self.gone:
            return {"type": "http.disconnect"}
        await asyncio.sleep(60)
        raise AssertionError("nobody waits that long")

    def request(self, **headers: str) -> Request:
        named = {"content-type": TYPE, **{name.replace("_", "-"): value for name, value in headers.items()}}
        raw = [(name.encode(), value.encode()) for name, value in named.items()]
        return Request({"type": "http", "method": "POST", "path": "/", "headers": raw}, self.receive)


def receive(
    wire: Wire, folder: Path, limits: FormLimits = LIMITS, **headers: str
) -> tuple[Form, list[bytes]]:
    """The form, and what its files held."""

    async def scene() -> tuple[Form, list[bytes]]:
        async with received_form(wire.request(**headers), folder, limits) as form:
            return form, [file.path.read_bytes() for file in form.files]

    return asyncio.run(scene())


@pytest.mark.parametrize("size", [1, 2, 7, 64, 10_000])
def test_a_form_is_the_same_however_it_is_cut(tmp_path: Path, size: int) -> None:
    pieces = [FORM[start : start + size] for start in range(0, len(FORM), size)]
    form, contents = receive(Wire(pieces), tmp_path)
    assert form.fields == {"model": ["whisper-1"], "prompt": ["今"]}
    assert contents == [CONTENT]
    assert form.files[0].size == len(CONTENT)
    assert list(tmp_path.iterdir()) == []


def test_large_files_are_written_while_they_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "_WRITE_BYTES", 1000)
    body = bytes(range(256)) * 200
    whole = FORM.replace(CONTENT, body)
    form, contents = receive(Wire([whole[at : at + 999] for at in range(0, len(whole), 999)]), tmp_path)
    assert contents == [body]
    assert form.files[0].path.parent == tmp_path


def test_a_file_that_was_taken_away_is_left_alone(tmp_path: Path) -> None:
    async def scene() -> None:
        async with received_form(Wire([FORM]).request(), tmp_path, LIMITS) as form:
            form.files[0].path.rename(tmp_path / "kept")

    asyncio.run(scene())
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_what_is_written_is_for_this_user_only(tmp_path: Path) -> None:
    async def scene() -> int:
        async with received_form(Wire([FORM]).request(), tmp_path, LIMITS) as form:
            return form.files[0].path.stat().st_mode & 0o777

    assert asyncio.run(scene()) == 0o600
    data = load_settings({"data_dir": tmp_path / "data"}).uploads
    assert data.stat().st_mode & 0o777 == 0o700


def test_an_announced_size_is_refused_before_a_byte_is_read(tmp_path: Path) -> None:
    wire = Wire([FORM])
    with pytest.raises(TooLarge):
        receive(wire, tmp_path, content_length="100001")
    assert wire.taken == 0


def test_the_last_of_the_disk_is_not_for_uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: types.SimpleNamespace(free=(64 << 20) + 1000))
    receive(Wire([FORM]), tmp_path, content_length="1000")
    wire = Wire([FORM])
    with pytest.raises(ResourceError, match="no disk space"):
        receive(wire, tmp_path, content_length="1001")
    assert wire.taken == 0


def test_a_body_that_grows_too_large_is_not_read_on(tmp_path: Path) -> None:
    start = FORM.split(CONTENT, maxsplit=1)[0]
    wire = Wire([start, *[bytes(10_000)] * 1000])
    with pytest.raises(TooLarge):
        receive(wire, tmp_path)
    assert wire.taken <= 12
    assert list(tmp_path.iterdir()) == []


def test_a_pause_that_is_too_long_ends_the_upload(tmp_path: Path) -> None:
    quick = FormLimits(max_bytes=1000, idle_seconds=0.05)
    with pytest.raises(TimedOut):
        receive(Wire([FORM[:200]], ends=False), tmp_path, quick)
    assert list(tmp_path.iterdir()) == []


def test_a_client_that_goes_away_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "_WRITE_BYTES", 1)
    with pytest.raises(ClientDisconnect):
        receive(Wire([FORM[:-100]], ends=False, gone=True), tmp_path)
    assert list(tmp_path.iterdir()) == []


PART = b'--xyz\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
FILE = b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n1\r\n'


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"no form at all", 400),
        (FORM[:-8], 400),
        (b"--xyz\r\nno header\r\n\r\n1\r\n--xyz--\r\n", 400),
        (b'--xyz\r\nContent-Disposition: attachment; name="a"\r\n\r\n1\r\n--xyz--\r\n', 400),
        (b"--xyz\r\nContent-Disposition: form-data\r\n\r\n1\r\n--xyz--\r\n", 400),
        (b"--xyz\r\nX: " + b"y" * 50_000 + b"\r\n\r\n1\r\n--xyz--\r\n", 400),
        (PART.replace(b"\r\n1\r\n", b"\r\n\xff\r\n") + b"--xyz--\r\n", 400),
        (PART.replace(b"\r\n1\r\n", b"\r\n" + b"1" * 1001 + b"\r\n") + b"--xyz--\r\n", 400),
        (PART * 201 + b"--xyz--\r\n", 400),
        (FILE * 3 + b"--xyz--\r\n", 400),
    ],
)
def test_what_is_no_form_is_refused(tmp_path: Path, body: bytes, status: int) -> None:
    with pytest.raises(RequestError) as caught:
        receive(Wire([body]), tmp_path)
    assert caught.value.status == status
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", 415),
        ("", 415),
        ("multipart/mixed; boundary=xyz", 415),
        ("multipart/form-data", 400),
        ("multipart/form-data; boundary=", 400),
        ("multipart/form-data; boundary=" + "x" * 200, 400),
    ],
)
def test_a_wrong_content_type_is_refused(tmp_path: Path, kind: str, status: int) -> None:
    wire = Wire([FORM])
    with pytest.raises(RequestError) as caught:
        receive(wire, tmp_path, content_type=kind)
    assert (caught.value.status, wire.taken) == (status, 0)


def test_a_disk_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(AsrError, match="data directory"):
        receive(Wire([FORM]), tmp_path / "gone")


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    (tmp_path / "ab12.upload").write_bytes(b"1")
    (tmp_path / "other").write_bytes(b"1")
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]

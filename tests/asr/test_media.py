"""Opening files: nothing but the given bytes is ever touched."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path

import pytest

from app.asr.audio import AudioReader
from app.asr.errors import AudioError, InputError
from app.asr.media import GuardedFile, wav_length_is_wrong


def wav(data: bytes, length: int | None = None) -> bytes:
    form = struct.pack("<HHIIHH", 1, 1, 16_000, 32_000, 2, 16)
    declared = struct.pack("<I", len(data) if length is None else length)
    return b"RIFF\x00\x00\x00\x00WAVEfmt " + struct.pack("<I", 16) + form + b"data" + declared + data


@pytest.mark.parametrize(
    "name", ["http://localhost/a.wav", "concat:a.wav|a.wav", "file:a.wav", "pipe:0", "data:x"]
)
def test_a_name_is_never_taken_for_a_protocol(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.wav").write_bytes(wav(b"\x01\x02" * 800))
    with pytest.raises(InputError, match="does not exist"):
        AudioReader(Path(name))
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(wav(b"\x01\x02" * 500))
    with AudioReader(Path(name)) as reader:
        assert sum(len(block) for block in reader.blocks()) == 500


@pytest.mark.parametrize("suffix", [".m3u8", ".mp3", ".wav", ".sdp", ".mpd"])
@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n",
        "\ufeff\n#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:1,\nfile://{target}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{target}'\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=audio 50000 RTP/AVP 0\n",
        (
            "<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011' type='static'><Period>"
            "<AdaptationSet><Representation id='1'><BaseURL>{target}</BaseURL></Representation></AdaptationSet>"
            "</Period></MPD>"
        ),
    ],
    ids=["hls", "hls with mark", "concat", "sdp", "dash"],
)
def test_playlists_open_nothing(tmp_path: Path, text: str, suffix: str) -> None:
    target = tmp_path / "secret.wav"
    target.write_bytes(wav(b"\x01\x02" * 800))
    before = target.stat().st_atime_ns
    path = tmp_path / f"list{suffix}"
    path.write_text(text.format(target=target))
    with pytest.raises(AudioError):
        AudioReader(path)
    assert target.stat().st_atime_ns == before


def test_demuxers_that_follow_references_are_not_allowed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # The look at the first bytes is one guard; the list of formats must hold without it.
    monkeypatch.setattr("app.asr.media._PLAYLIST_HEADS", (b"never",))
    target = tmp_path / "secret.wav"
    target.write_bytes(wav(b"\x01\x02" * 800))
    path = tmp_path / "list.wav"
    path.write_text(f"ffconcat version 1.0\nfile '{target}'\n")
    with pytest.raises(AudioError, match="not audio or video"):
        AudioReader(path)


def test_pipes_and_devices_are_refused_without_waiting(tmp_path: Path) -> None:
    path = tmp_path / "pipe.wav"
    os.mkfifo(path)
    for refused in (path, Path("/dev/null")):
        with pytest.raises(InputError, match="not a file"):
            AudioReader(refused)


def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(b"\x01\x02"))
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(InputError, match="may not be read"):
        AudioReader(path)


def test_a_stream_of_the_caller_stays_open_and_one_of_ours_is_closed(tmp_path: Path) -> None:
    stream = io.BytesIO(wav(b"\x01\x02" * 800))
    stream.seek(30)
    with AudioReader(stream) as reader:
        assert sum(len(block) for block in reader.blocks()) == 800
    assert not stream.closed
    path = tmp_path / "a.wav"
    path.write_bytes(stream.getvalue())
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(5):
        with AudioReader(path) as reader:
            next(reader.blocks())
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before


def test_a_read_error_is_told_as_such() -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > len(self.getvalue()) // 2:
                raise OSError(5, "Input/output error")
            return super().read(size)

    for length in (30_000, 10_000_000):  # it fails while the header is read, and later
        stream = Failing(wav(bytes(length)))
        with pytest.raises(AudioError, match="Input/output error"), AudioReader(stream) as reader:
            list(reader.blocks())


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (wav(bytes(100)), False),
        (wav(bytes(100)) + b"\x00", False),
        (wav(bytes(100)) + b"LIST\x04\x00\x00\x00INFO", False),
        (wav(bytes(100), length=40), True),
        (wav(bytes(100), length=0), True),
        (wav(bytes(100), length=0xFFFFFFFF), True),
        (wav(bytes(100), length=5000), True),
        (b"ID3" + bytes(100), False),
    ],
)
def test_wav_lengths_are_checked_against_the_file(content: bytes, wrong: bool) -> None:
    assert wav_length_is_wrong(GuardedFile(io.BytesIO(content))) is wrong

"""Opening a media file safely: local bytes only, known dangers refused, broken WAV lengths put right.

Lives here: the guarded byte source FFmpeg reads through, the list of demuxers it may use, the check of
a WAV's declared length against the file, and the wording of everything that can be wrong with a file
before its first packet. Decoding to samples is audio.py's work.

Why so careful: FFmpeg takes a *name* for a URL and a *playlist* for an order to open other files.
Neither happens here. FFmpeg never sees the name, only a Python object to read from; demuxers that
follow references are not on its list of formats; and its list of protocols is empty.
"""

from __future__ import annotations

import io
import os
import stat
import struct
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import av
import av.error
import av.format
import av.logging

from app.asr.errors import AudioError, InputError

if TYPE_CHECKING:
    from av.container import InputContainer

# What PyAV raises for bad data: its own errors, errors of our byte source, and limits of its wrappers.
MEDIA_FAILURES = (av.error.FFmpegError, OSError, ValueError, RuntimeError, MemoryError, LookupError)

# Demuxers that open other files or sockets, talk to devices, or build sound from text.
_REFUSED_NAMES = (
    "alias_pix alsa avisynth bktr brender_pix concat concatf dash decklink dshow dvdvideo fbdev ffmetadata "
    "gdigrab hls iec61883 image2 image2pipe imf jack kmsgrab lavfi libcdio libdc1394 openal oss pulse rtp "
    "rtsp sap sdp sndio tedcaptions tty vapoursynth vfwcap video4linux2 vobsub webm_dash_manifest "
    "x11grab xcbgrab"
)
_PLAYLIST_HEADS = (b"#EXTM3U", b"ffconcat", b"[playlist]", b"<MPD", b"<smil", b"v=0\r\n", b"v=0\n")
_UNKNOWN_LENGTH = 0xFFFFFFFF
_MAX_RIFF_CHUNKS = 1000


class GuardedFile:
    """Bytes of one local file, for FFmpeg to read; notices when the file changes under it.

    Args:
        source: path of a regular file (opened and owned here), or a binary stream (owned by the caller,
            read from its beginning when it can seek).

    Raises:
        InputError: the path is missing, not a regular file, or not readable.
        AudioError: it is empty.
    """

    def __init__(self, source: Path | BinaryIO) -> None:
        self.name = _display_name(source)
        self.failure: OSError | None = None
        self._owned = isinstance(source, (str, Path))
        self._stream: BinaryIO = _open_regular(Path(source)) if isinstance(source, (str, Path)) else source
        self._identity = self._fingerprint()
        if self.seekable() and self.seek(0, io.SEEK_END) == 0:
            self.close()
            raise AudioError(
                f"'{self.name}' is empty (0 bytes)", fix="Check that the recording or copy was completed"
            )
        if self.seekable():
            self.seek(0)

    def read(self, size: int) -> bytes:
        try:
            return self._stream.read(size) or b""
        except OSError as error:
            self.failure = error
            raise

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def seekable(self) -> bool:
        return self._stream.seekable()

    def close(self) -> None:
        """Close the file if it was opened here."""
        if self._owned:
            self._stream.close()

    def check(self) -> None:
        """Raises AudioError when reading failed or the file changed since it was opened."""
        if self.failure is not None:
            raise AudioError(
                f"'{self.name}' could not be read to its end: {self.failure.strerror or self.failure}",
                fix="Check the disk or the connection it lies on, then try again",
            )
        if self._identity is not None and self._fingerprint() != self._identity:
            raise AudioError(
                f"'{self.name}' changed while it was being read",
                fix="Wait until the file has been written completely, then try again",
            )

    def _fingerprint(self) -> tuple[int, int] | None:
        """Size and time of last change; None for a stream of the caller (it may have no file)."""
        if not self._owned:
            return None
        facts = os.fstat(self._stream.fileno())
        return facts.st_size, facts.st_mtime_ns


def open_container(file: GuardedFile) -> InputContainer:
    """Open `file` as a media container without touching anything but its bytes.

    Raises:
        AudioError: it is a playlist, or no demuxer recognises it.
    """
    av.logging.set_level(None)  # FFmpeg stays silent; what matters is raised or noted by us
    # PyAV before 19 raises on tags that are no UTF-8, unless told not to; from then on it does not know the option.
    tags: dict[str, Any] = (
        {} if int(av.__version__.partition(".")[0]) >= 19 else {"metadata_errors": "replace"}
    )
    options = {"format_whitelist": _allowed_demuxers(), "protocol_whitelist": "none"}
    if file.seekable():
        head = file.read(64)
        file.seek(0)
        _refuse_playlist(file.name, head)
        if wav_length_is_wrong(file):
            options["ignore_length"] = "1"
        file.seek(0)
    try:
        # A bare object: FFmpeg must not learn the file's name, it would guess formats from it.
        container: InputContainer = av.open(_Bytes(file), mode="r", options=options, **tags)
        return container
    except MEDIA_FAILURES as error:
        file.check()
        raise AudioError(
            f"'{file.name}' is not audio or video that can be read ({_reason(error)})",
            fix="Give a recording such as wav, mp3, m4a, flac, ogg or mp4; if it is one, "
            "the file is damaged: copy or export it again",
        ) from error


def wav_length_is_wrong(file: GuardedFile) -> bool:
    """Whether a RIFF/WAVE header declares a data length that the file contradicts.

    Writers that stream, or die, leave 0, 0xFFFFFFFF or an old value. Then the samples run to the end
    of the file. A length is believed when the file ends there, or when more well-formed chunks follow.
    """
    file.seek(0, io.SEEK_END)
    end = file.tell()
    file.seek(0)
    header = file.read(12)
    if len(header) < 12 or header[:4] != b"RIFF" or header[8:] != b"WAVE":
        return False
    position = 12
    for _ in range(_MAX_RIFF_CHUNKS):
        chunk = _chunk_at(file, position)
        if chunk is None:
            return False
        kind, size = chunk
        if kind == b"data":
            data_end = position + 8 + size
            return size == _UNKNOWN_LENGTH or data_end > end or not _chunks_until_end(file, data_end, end)
        position += 8 + size + size % 2
    return False


def _chunks_until_end(file: GuardedFile, position: int, end: int) -> bool:
    """Whether `position` is the end of the file, or a chain of well-formed chunks leads there."""
    for _ in range(_MAX_RIFF_CHUNKS):
        if end - position < 8:  # the end itself, a pad byte, or a scrap too small for a chunk
            return True
        # Chunks start at even offsets, but some writers forget the pad byte.
        chunk = _chunk_at(file, position + position % 2) or _chunk_at(file, position)
        if chunk is None:
            return False
        kind, size = chunk
        position += position % 2 + 8 + size
        if not all(32 <= byte < 127 for byte in kind) or position > end + 1:
            return False
    return False


def _chunk_at(file: GuardedFile, position: int) -> tuple[bytes, int] | None:
    file.seek(position)
    raw = file.read(8)
    if len(raw) < 8:
        return None
    kind, size = struct.unpack("<4sI", raw)
    return kind, size


class _Bytes:
    """The part of GuardedFile that PyAV may see: no name, no close."""

    def __init__(self, file: GuardedFile) -> None:
        self.read = file.read
        if file.seekable():
            self.seek = file.seek
            self.tell = file.tell


def _display_name(source: Path | BinaryIO) -> str:
    if isinstance(source, (str, Path)):
        return os.fsencode(source).decode("utf-8", "replace")
    name = getattr(source, "name", None)
    return name if isinstance(name, str) and name else "the upload"


def _open_regular(path: Path) -> BinaryIO:
    name = _display_name(path)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise InputError(
                f"'{name}' is a directory", fix="Give an audio file, or a directory that holds some"
            )
        if not stat.S_ISREG(mode):
            raise InputError(
                f"'{name}' is a device, pipe or socket, not a file",
                fix="Write the audio to a file first, then give that file",
            )
        return path.open("rb")
    except FileNotFoundError as error:
        raise InputError(f"'{name}' does not exist", fix="Check the spelling of the path") from error
    except PermissionError as error:
        raise InputError(f"'{name}' may not be read", fix="Give this user read permission on it") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"'{name}' cannot be opened: {reason}", fix="Check the path and the disk") from error


def _refuse_playlist(name: str, head: bytes) -> None:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(_PLAYLIST_HEADS):
        raise AudioError(
            f"'{name}' is a playlist that points to other files, not a recording",
            fix="Give the audio files themselves",
        )


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).split(": '<none>'")[0]


@lru_cache(maxsize=1)
def _allowed_demuxers() -> str:
    """FFmpeg's list syntax: every demuxer of this build except the refused ones."""
    refused = set(_REFUSED_NAMES.split())
    allowed: list[str] = []
    for names in av.format.formats_available:
        if refused.isdisjoint(names.split(",")) and av.format.ContainerFormat(names).is_input:
            allowed.append(names)
    return ",".join(sorted(allowed))

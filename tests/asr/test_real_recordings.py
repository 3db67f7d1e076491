"""Recordings of people, in every format this wheel can write: exact length, and no speech lost.

No recording is kept in this repository. Set ASR_RECORDINGS_DIR to a directory of WAV files with speech.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import av
import numpy as np
import pytest

from app.asr.audio import SAMPLE_RATE, AudioReader
from app.asr.segments import cut

_DIRECTORY = os.environ.get("ASR_RECORDINGS_DIR", "")
_RECORDINGS = sorted(Path(_DIRECTORY).glob("*.wav")) if _DIRECTORY else []

pytestmark = pytest.mark.skipif(
    not _RECORDINGS, reason="ASR_RECORDINGS_DIR names no directory with WAV files of real speech"
)

# (file name, codec, rate, samples that the format itself may add)
_FORMATS = [
    ("a.wav", "pcm_s16le", 8000, 0),
    ("b.wav", "pcm_s24le", 44100, 0),
    ("c.wav", "pcm_f32le", 192000, 0),
    ("d.wav", "pcm_u8", 22050, 0),
    ("a.flac", "flac", 48000, 0),
    ("a.ogg", "libopus", 48000, 0),
    ("a.mp3", "libmp3lame", 44100, 8),
    ("b.mp3", "libmp3lame", 16000, 8),
    ("a.m4a", "aac", 44100, 1024),
    ("a.mkv", "aac", 48000, 2048),
    ("a.webm", "libopus", 48000, 960),
    ("a.amr", "libopencore_amrnb", 8000, 320),
]


def decode(path: Path) -> np.ndarray:
    with AudioReader(path) as reader:
        return np.concatenate(list(reader.blocks()))


def convert(source: Path, target: Path, codec: str, rate: int) -> int:
    """Write `source` in another format, in stereo where it can; returns the samples given to the encoder."""
    layout = "mono" if codec == "libopencore_amrnb" else "stereo"
    written = 0
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        stream = writer.add_stream(codec, rate=rate, layout=layout)
        change = av.AudioResampler(stream.format.name, layout, rate, frame_size=stream.frame_size or 1024)
        for frame in [*reader.decode(audio=0), None]:
            for piece in change.resample(frame):
                written += piece.samples
                writer.mux(stream.encode(piece))
        writer.mux(stream.encode(None))
    return written


def loud_and_lost(samples: np.ndarray, max_seconds: float = 10.0) -> int:
    """Samples of clear sound that lie in no segment."""
    covered = np.zeros(len(samples), bool)
    for segment in cut([samples], max_seconds=max_seconds):
        covered[segment.start : segment.start + len(segment.samples)] = True
    power = np.convolve(samples.astype(np.float64) ** 2, np.ones(512) / 512, mode="same")
    return int(np.sum(~covered & (power > 0.01 * power.max())))


@pytest.mark.parametrize("recording", _RECORDINGS, ids=lambda path: path.stem)
@pytest.mark.parametrize(("name", "codec", "rate", "added"), _FORMATS)
def test_conversions_have_the_exact_length_and_keep_their_speech(
    tmp_path: Path, recording: Path, name: str, codec: str, rate: int, added: int
) -> None:
    path = tmp_path / name
    written = convert(recording, path, codec, rate)
    with av.open(str(path)) as container:
        stored = sum(frame.samples for frame in container.decode(audio=0))
    got = decode(path)
    assert len(got) == math.ceil(stored * SAMPLE_RATE / rate)
    assert abs(stored - written) <= added
    assert loud_and_lost(got) == 0


@pytest.mark.parametrize("recording", _RECORDINGS, ids=lambda path: path.stem)
@pytest.mark.parametrize("decibels", [0, -20, -40])
def test_no_loud_sample_of_speech_is_lost(recording: Path, decibels: int) -> None:
    assert loud_and_lost(decode(recording) * np.float32(10 ** (decibels / 20))) == 0


@pytest.mark.parametrize("recording", _RECORDINGS, ids=lambda path: path.stem)
def test_a_pause_of_seconds_parts_segments(recording: Path) -> None:
    samples = decode(recording)
    pause = np.zeros(4 * SAMPLE_RATE, np.float32)
    segments = list(cut([pause, samples, pause, samples, pause], max_seconds=30))
    middle = 4 * SAMPLE_RATE + len(samples) + 2 * SAMPLE_RATE
    assert any(segment.start > middle for segment in segments)
    assert not any(segment.start <= middle < segment.start + len(segment.samples) for segment in segments)

"""Decoding, mixing, resampling and the frontend; every media file is made here with PyAV or by hand."""

from __future__ import annotations

import io
import math
import struct
import sys
import tracemalloc
from pathlib import Path

import av
import av.filter
import numpy as np
import pytest
from av.stream import Disposition

from app.asr.audio import SAMPLE_RATE, AudioReader
from app.asr.errors import AsrError, AudioError, InputError

LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}


def tone(samples: int, rate: int, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(samples) / rate)).astype(np.float32)


def encode(
    path: Path, channels: np.ndarray, rate: int, codec: str, options: dict[str, str] | None = None
) -> Path:
    """Write `channels` (count, samples) with PyAV; the suffix of `path` chooses the container."""
    layout = LAYOUTS[len(channels)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout, options=options or {})
        resampler = av.AudioResampler(
            format=stream.format.name, layout=layout, rate=rate, frame_size=stream.frame_size or 1024
        )
        if codec == "wmav2":
            stream.bit_rate = 64_000
        interleaved = np.ascontiguousarray(channels.T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(interleaved, format="flt", layout=layout)
        frame.sample_rate = rate
        frame.pts = 0
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return path


def wav(
    data: bytes, *, kind: int = 1, bits: int = 16, rate: int = 16_000, length: int | None = None
) -> bytes:
    """A mono RIFF/WAVE file by hand; `length` overrides the declared size of the data."""
    align = bits // 8
    form = struct.pack("<HHIIHH", kind, 1, rate, rate * align, align, bits)
    declared = len(data) if length is None else length
    riff = min(0xFFFFFFFF, 36 + declared)
    return (
        b"RIFF"
        + struct.pack("<I", riff)
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + form
        + b"data"
        + struct.pack("<I", declared)
        + data
    )


def read(source: Path | bytes, block_seconds: float = 1.0) -> np.ndarray:
    with AudioReader(io.BytesIO(source) if isinstance(source, bytes) else source) as reader:
        return np.concatenate(list(reader.blocks(block_seconds)))


def level(samples: np.ndarray, hertz: float = 440.0) -> float:
    """Amplitude of one frequency in 16 kHz samples, edges left out."""
    inner = samples[800:-800] if len(samples) > 4000 else samples
    wave = np.exp(-2j * np.pi * hertz * np.arange(len(inner)) / SAMPLE_RATE)
    return float(2 * abs(np.mean(inner * wave)))


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 32000, 44100, 48000, 96000, 192000])
@pytest.mark.parametrize("count", [1, 100, 12347])
def test_sample_count_is_exact_at_every_rate(tmp_path: Path, rate: int, count: int) -> None:
    path = encode(tmp_path / "a.wav", tone(count, rate)[np.newaxis], rate, "pcm_s16le")
    assert len(read(path)) == math.ceil(count * SAMPLE_RATE / rate)


@pytest.mark.parametrize("rate", [8000, 44100, 192000])
def test_resampling_keeps_time_and_level_to_the_last_sample(tmp_path: Path, rate: int) -> None:
    path = encode(tmp_path / "a.wav", tone(rate, rate)[np.newaxis], rate, "pcm_f32le")
    got = read(path)
    assert np.abs(got - tone(SAMPLE_RATE, SAMPLE_RATE))[200:-200].max() < 2e-3
    assert np.abs(got[-40:]).max() > 0.3


@pytest.mark.parametrize(
    ("codec", "tolerance"),
    [
        ("pcm_u8", 0.02),
        ("pcm_s16le", 1e-4),
        ("pcm_s24le", 1e-6),
        ("pcm_s32le", 1e-6),
        ("pcm_f32le", 1e-6),
        ("pcm_f64le", 1e-6),
        ("pcm_alaw", 0.03),
        ("pcm_mulaw", 0.03),
    ],
)
def test_every_width_has_the_same_scale(tmp_path: Path, codec: str, tolerance: float) -> None:
    original = tone(5000, SAMPLE_RATE)
    path = encode(tmp_path / "a.wav", original[np.newaxis], SAMPLE_RATE, codec)
    assert np.abs(read(path) - original).max() <= tolerance


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("a.mp3", "libmp3lame", 44100),
        ("a.mp3", "libmp3lame", 16000),
        ("a.m4a", "aac", 48000),
        ("a.aac", "aac", 48000),
        ("a.flac", "flac", 44100),
        ("a.ogg", "libopus", 48000),
        ("a.webm", "libopus", 48000),
        ("a.amr", "libopencore_amrnb", 8000),
        ("a.mkv", "aac", 44100),
        ("a.aiff", "pcm_s16be", 22050),
        ("a.wma", "wmav2", 44100),
        ("a.mp4", "aac", 44100),
    ],
)
def test_formats_decode_with_their_whole_length(tmp_path: Path, name: str, codec: str, rate: int) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV wheel has no encoder {codec}")
    path = encode(tmp_path / name, tone(2 * rate, rate)[np.newaxis], rate, codec)
    got = read(path)
    # Codecs without a gapless mark keep their padding: at most a few of their frames.
    assert -0.06 <= len(got) / SAMPLE_RATE - 2.0 <= 0.16
    assert level(got) == pytest.approx(0.5, rel=0.2)


def test_amr_frames_by_hand_decode() -> None:
    # 50 NO_DATA frames (type 15, good) of 20 ms: a legal AMR-NB file that any encoder-less build can read.
    got = read(b"#!AMR\n" + b"\x7c" * 50)
    assert len(got) == SAMPLE_RATE


def test_video_with_sound_gives_its_sound(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, sound=True)
    with AudioReader(path) as reader:
        got = np.concatenate(list(reader.blocks()))
        assert reader.info.codec == "aac"
    assert len(got) == pytest.approx(SAMPLE_RATE, abs=1100)


def test_video_without_sound_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, sound=False)
    with pytest.raises(AudioError, match="no audio track"):
        read(path)


def write_video(path: Path, *, sound: bool) -> None:
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width = video.height = 32
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=16000, layout="mono") if sound else None
        for index in range(10):
            picture = av.VideoFrame.from_ndarray(np.full((32, 32, 3), index * 20, np.uint8), format="rgb24")
            picture.pts = index
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        if audio is not None:
            for start in range(0, 16000, 1000):
                frame = av.AudioFrame.from_ndarray(
                    tone(1000, 16000)[np.newaxis], format="fltp", layout="mono"
                )
                frame.sample_rate, frame.pts = 16000, start
                container.mux(audio.encode(frame))
            container.mux(audio.encode(None))


def test_surround_with_a_plane_for_each_channel_decodes(tmp_path: Path) -> None:
    channels = np.stack(
        [tone(32000, 16000) * (index == 2) for index in range(8)]
    )  # speech in the centre only
    got = read(encode(tmp_path / "a.m4a", channels, 16000, "aac"))
    assert level(got) == pytest.approx(0.5 / 8, rel=0.1)


@pytest.mark.parametrize("count", [2, 6, 8])
def test_mono_is_the_plain_mean_of_all_channels(tmp_path: Path, count: int) -> None:
    channels = np.zeros((count, 8000), np.float32)
    channels[0], channels[-1] = 0.25, 0.5
    path = encode(tmp_path / "a.wav", channels, SAMPLE_RATE, "pcm_f32le")
    assert np.allclose(read(path), 0.75 / count, atol=1e-6)


def test_best_stream_is_chosen_and_others_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("flac", rate=16000, layout="mono") for _ in range(2)]
        streams[1].disposition = Disposition.default.value
        for stream, value in zip(streams, (0.1, 0.4), strict=True):
            plane = np.full((1, 1600), int(value * 32768), np.int16)
            frame = av.AudioFrame.from_ndarray(plane, format="s16", layout="mono")
            frame.sample_rate, frame.pts = 16000, 0
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    assert np.allclose(read(path), 0.4, atol=1e-3)


@pytest.mark.parametrize("length", [None, 0, 0xFFFFFFFF, 400, 9_999_999])
def test_wav_with_a_wrong_length_is_read_to_its_end(length: int | None) -> None:
    data = (tone(8000, SAMPLE_RATE) * 32767).astype("<i2").tobytes()
    assert len(read(wav(data, length=length))) == 8000


def test_wav_chunks_after_the_samples_are_not_sound() -> None:
    body = wav(b"\x01\x02" * 800)
    assert len(read(body + b"LIST" + struct.pack("<I", 4) + b"INFO")) == 800


def test_nan_and_infinity_become_silence_and_loud_floats_are_limited() -> None:
    data = np.full(1000, 0.25, "<f4")
    data[10], data[20], data[30], data[40] = np.nan, np.inf, -np.inf, 1e30
    got = read(wav(data.tobytes(), kind=3, bits=32))
    assert got[[10, 20, 30]].tolist() == [0.0, 0.0, 0.0]
    assert got[40] == 1.0
    assert got[11] == 0.25
    resampled = read(wav(data.tobytes(), kind=3, bits=32, rate=44100))
    assert np.isfinite(resampled).all() and np.abs(resampled).max() <= 1.0


@pytest.mark.parametrize("rate", [1, 999, 1_000_001])
def test_a_rate_that_is_nonsense_is_refused(rate: int) -> None:
    """One second at 1 Hz would become 16000 times as many samples."""
    with pytest.raises(AudioError, match=f"claims a rate of {rate} Hz"):
        read(wav(bytes(4000), rate=rate))


@pytest.mark.parametrize("samples", [1, 1600])
def test_tiny_clips_are_kept(samples: int) -> None:
    assert len(read(wav(b"\x10\x10" * samples))) == samples


@pytest.mark.parametrize(
    "content",
    [
        b"",
        wav(b""),
        b"this is only text, not sound\n" * 40,
        bytes(20_000),
        np.random.default_rng(3).bytes(1),
        b"RIFF",
        wav(b"")[:30],
    ],
    ids=["empty", "44 bytes", "text", "zeros", "one byte", "magic only", "cut header"],
)
def test_files_without_sound_are_refused_with_a_fix(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.wav"
    path.write_bytes(content)
    for source in (path, content):
        with pytest.raises(AudioError) as caught:
            read(source)
        assert caught.value.problem and caught.value.fix


def test_missing_files_and_directories_are_refused(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "no.wav", "does not exist"), (tmp_path, "is a directory")):
        with pytest.raises(InputError, match=reason):
            read(path)


def test_random_damage_never_raises_anything_else(tmp_path: Path) -> None:
    clean = {
        name: encode(tmp_path / name, tone(16000, 16000)[np.newaxis], 16000, codec).read_bytes()
        for name, codec in (
            ("a.wav", "pcm_s16le"),
            ("a.mp3", "libmp3lame"),
            ("a.flac", "flac"),
            ("a.m4a", "aac"),
            ("a.mkv", "aac"),
        )
    }
    random = np.random.default_rng(7)
    for content in clean.values():
        for _ in range(25):
            broken = bytearray(content[: random.integers(1, len(content))])
            for place in random.integers(0, len(broken), size=random.integers(0, 30)):
                broken[place] = random.integers(0, 256)
            try:
                got = read(bytes(broken))
            except AsrError:
                continue
            assert np.isfinite(got).all() and np.abs(got).max() <= 1.0


def test_a_truncated_mp3_gives_what_is_there_and_a_note(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp3", tone(10 * 16000, 16000)[np.newaxis], 16000, "libmp3lame")
    content = path.read_bytes()
    with AudioReader(io.BytesIO(content[: len(content) // 2])) as reader:
        total = sum(len(block) for block in reader.blocks())
        assert 4.0 < total / SAMPLE_RATE < 6.0
        assert any("ends after" in note for note in reader.notes)


def test_damage_in_the_middle_costs_only_itself(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.m4a", tone(10 * 16000, 16000)[np.newaxis], 16000, "aac")
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 4
    middle = start + (len(content) - start) // 3
    content[middle : middle + 3000] = np.random.default_rng(3).bytes(3000)
    with AudioReader(io.BytesIO(bytes(content))) as reader:
        got = np.concatenate(list(reader.blocks()))
    assert len(got) / SAMPLE_RATE == pytest.approx(10.0, abs=0.3)
    assert level(got[-16000:]) == pytest.approx(0.5, rel=0.1)


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(b"\x10\x10" * 16000 * 5))
    with AudioReader(path) as reader:
        blocks = reader.blocks()
        next(blocks)
        with path.open("ab") as file:
            file.write(b"\x10" * 100_000)
        with pytest.raises(AudioError, match="changed while"):
            list(blocks)


@pytest.mark.parametrize("seconds", [0.01, 0.3, 1.0, 100.0])
def test_blocks_have_the_asked_size_and_the_same_samples(tmp_path: Path, seconds: float) -> None:
    path = encode(tmp_path / "a.wav", tone(50_000, 22050)[np.newaxis], 22050, "pcm_s16le")
    with AudioReader(path) as reader:
        blocks = list(reader.blocks(seconds))
    assert all(len(block) == round(seconds * SAMPLE_RATE) for block in blocks[:-1])
    assert np.array_equal(np.concatenate(blocks), read(path))
    assert all(block.dtype == np.float32 for block in blocks)


def test_memory_does_not_grow_with_length() -> None:
    class Endless(io.RawIOBase):
        """Ten minutes of WAV that exist only while it is read."""

        def __init__(self) -> None:
            self.head, self.place, self.end = wav(b"", length=0xFFFFFFFF), 0, 44 + 2 * 600 * 16000

        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            size = min(size, self.end - self.place)
            piece = (self.head[self.place :] + bytes(size))[:size] if self.place < 44 else bytes(size)
            self.place += size
            return piece

    tracemalloc.start()
    with AudioReader(Endless()) as reader:  # type: ignore[arg-type]
        total = sum(len(block) for block in reader.blocks())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 600 * SAMPLE_RATE
    assert peak < 2_000_000


def test_ffmpeg_stays_silent(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp3", tone(32000, 16000)[np.newaxis], 16000, "libmp3lame")
    content = bytearray(path.read_bytes())
    content[2000:3000] = np.random.default_rng(3).bytes(1000)
    read(bytes(content))
    printed = capfd.readouterr()
    assert printed.out == printed.err == ""


def test_no_threads_are_left_to_ffmpeg(tmp_path: Path) -> None:
    tasks = Path("/proc/self/task")
    if sys.platform != "linux" or not tasks.exists():
        pytest.skip("threads are counted through /proc")
    if not hasattr(av.filter.Graph, "threads"):
        pytest.skip("this PyAV is too old to be told")
    path = encode(tmp_path / "a.flac", tone(44100, 44100)[np.newaxis], 44100, "flac")
    before = len(list(tasks.iterdir()))
    with AudioReader(path) as reader:
        blocks = reader.blocks(0.1)
        next(blocks)
        assert len(list(tasks.iterdir())) == before

"""From any media file to what the network hears: 16 kHz mono blocks, then feature frames.

Lives here: decoding, mixing to mono, resampling with an exact sample count, and the frontend (filter
bank, frame stacking, normalisation). Opening files safely is media.py's work, the arithmetic of mixing and
resampling lives in resampling.py, finding speech is vad.py's.

How sound is treated, in this order:
- one audio stream is read, the one FFmpeg ranks best (default flag, channels, bit rate);
- NaN and infinite samples become 0; samples beyond eight times full scale are limited to it;
- mono is the plain mean of all channels, each with the same weight, low-frequency channel included;
- the rate becomes 16 kHz, and n samples at rate r give exactly ceil(n * 16000 / r) samples;
- the result is limited to [-1, 1].
Damaged packets are skipped; the silence that stands for one keeps later times right.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, cast, final

import av
import av.stream
import kaldi_native_fbank as knf
import numpy as np

from app.asr.errors import AudioError, PackError
from app.asr.media import MEDIA_FAILURES, GuardedFile, open_container
from app.asr.resampling import SAMPLE_RATE, Mixer, Resampler, Samples

if TYPE_CHECKING:
    from av.audio.codeccontext import AudioCodecContext
    from av.audio.stream import AudioStream
    from av.container import InputContainer

__all__ = ["SAMPLE_RATE", "AudioInfo", "AudioReader", "Frontend", "FrontendConfig"]

_RATES = (1_000, 1_000_000)  # Hz; outside, a header is nonsense (and 1 Hz would blow up 16000 times)
_CHUNK_SECONDS = 0.25  # decoded frames are gathered to about this much before resampling
_BETTER_DECODERS = {"amrnb": "libopencore_amrnb", "amrwb": "libopencore_amrwb"}
_MAX_DEMUX_FAILURES = 8  # in a row, after which the rest of a file is given up
_MAX_PACKET_SECONDS = 2.0  # longest silence that stands for one damaged packet


@dataclass(frozen=True)
class AudioInfo:
    """What a file says about its sound before it is decoded (`duration_seconds` may be None or wrong)."""

    duration_seconds: float | None
    codec: str
    sample_rate: int
    channels: int


@final
class AudioReader:
    """Decodes one file, or one binary stream, to 16 kHz mono; opens it at once, closes it as context manager.

    Memory does not grow with the length of the sound, apart from the index an mp4 file carries in itself.

    Attributes:
        info: what the header says.
        notes: sentences about damage that was worked around; complete after the last block.

    Raises:
        InputError: the path is missing or unreadable.
        AudioError: there is no sound that can be decoded.
    """

    def __init__(self, source: Path | BinaryIO) -> None:
        self.notes: list[str] = []
        self._skipped = 0
        self._file = GuardedFile(source)
        self._container: InputContainer | None = None
        try:
            self._container = open_container(self._file)
            self._stream = _best_stream(self._container, self._file.name)
            self.info = _describe(self._container, self._stream)
            self._decoder = _decoder(self._stream)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the decoder and close the file; may be called again."""
        if self._container is not None:
            self._container.close()
            self._container = None
        self._file.close()

    def blocks(self, block_seconds: float = 1.0) -> Iterator[Samples]:
        """Yield float32 blocks of `block_seconds` (the last one shorter), values in [-1, 1]. Once only.

        Raises:
            AudioError: nothing could be decoded, or the file changed or failed while it was read.
        """
        size = max(1, round(block_seconds * SAMPLE_RATE))
        buffer = np.empty(size, np.float32)
        filled = total = 0
        for piece in self._resampled():
            while len(piece):
                taken = min(size - filled, len(piece))
                buffer[filled : filled + taken] = piece[:taken]
                filled, piece = filled + taken, piece[taken:]
                if filled == size:
                    self._file.check()
                    total += size
                    yield buffer
                    buffer, filled = np.empty(size, np.float32), 0
        self._file.check()
        self._conclude(total + filled)
        if filled:
            yield buffer[:filled]

    def _conclude(self, samples: int) -> None:
        """Refuse a file that gave no sample; note what was lost of one that did."""
        name, seconds, declared = self._file.name, samples / SAMPLE_RATE, self.info.duration_seconds
        if samples == 0:
            found = f"all {self._skipped} packets are damaged" if self._skipped else "the stream is empty"
            raise AudioError(
                f"'{name}' holds no sound: {found}", fix="Export the recording again and check that it plays"
            )
        if self._skipped:
            self.notes.append(f"{self._skipped} damaged packets of '{name}' were skipped")
        if declared is not None and seconds < declared - max(1.0, 0.02 * declared):
            self.notes.append(f"'{name}' ends after {seconds:.1f} s, its header promises {declared:.1f} s")

    def _resampled(self) -> Iterator[Samples]:
        """Mono pieces of any length at 16 kHz; a change of rate within the stream starts a new resampler."""
        resampler: Resampler | None = None
        for rate, mono in _gathered(self._decoded()):
            if resampler is None or resampler.rate != rate:
                if resampler is not None:
                    yield from resampler.finish()
                resampler = Resampler(rate)
            yield from resampler.push(mono)
        if resampler is not None:
            yield from resampler.finish()

    def _decoded(self) -> Iterator[tuple[int, Samples]]:
        """(rate, mono samples) of every frame that decodes."""
        mix = Mixer()
        missing = 0.0  # seconds of damaged packets since the last good frame
        for packet in self._packets():
            try:
                frames: list[Any] = self._decoder.decode(packet)
                pieces = [(frame.sample_rate, mix(frame)) for frame in frames]
            except MEDIA_FAILURES:
                self._file.check()
                self._skipped += 1
                missing += _packet_seconds(packet)
                continue
            for rate, mono in pieces:
                if not _RATES[0] <= rate <= _RATES[1]:
                    raise AudioError(
                        f"'{self._file.name}' claims a rate of {rate} Hz, outside {_RATES[0]}-{_RATES[1]}",
                        fix="Export the recording again, at 16000 Hz",
                    )
                if missing:
                    yield rate, np.zeros(round(missing * rate), np.float32)
                    missing = 0.0
                yield rate, mono

    def _packets(self) -> Iterator[Any]:
        """Packets of the chosen stream, then None, which makes the decoder give what it holds back."""
        if self._container is None:
            raise AudioError(f"'{self._file.name}' is closed already", fix="Open it again to read it")
        failures = 0
        while failures < _MAX_DEMUX_FAILURES:
            try:
                for packet in self._container.demux(self._stream):
                    if packet.size:
                        failures = 0
                        yield packet
                break
            except MEDIA_FAILURES:
                self._file.check()
                failures += 1
        if failures:
            self._skipped += failures
        yield None


def _best_stream(container: InputContainer, name: str) -> AudioStream:
    candidates = list(container.streams.audio)
    if not candidates:
        kind = "pictures" if container.streams.video else "no media"
        raise AudioError(
            f"'{name}' has no audio track (it holds {kind})", fix="Give a recording, or a video with sound"
        )
    best = container.streams.best("audio")
    ranked = sorted(candidates, key=lambda stream: best is None or stream.index != best.index)
    for stream in ranked:
        if getattr(stream, "codec_context", None) is None:
            continue  # FFmpeg has no decoder for this one
        discard = getattr(
            av.stream, "Discard", None
        )  # PyAV 17 and later; before, packets are read and dropped
        for other in container.streams:
            if discard is not None and other.index != stream.index:
                other.discard = discard.all
        stream.codec_context.thread_count = 1  # the machine's cores belong to the network
        return stream
    raise AudioError(
        f"'{name}' holds sound in a codec that FFmpeg cannot decode",
        fix="Convert it to wav, mp3 or m4a first",
    )


def _describe(container: InputContainer, stream: AudioStream) -> AudioInfo:
    seconds: float | None = None
    if stream.duration and stream.time_base:
        seconds = float(stream.duration * stream.time_base)
    elif container.duration:
        seconds = container.duration / 1_000_000  # AV_TIME_BASE
    context = stream.codec_context
    return AudioInfo(
        duration_seconds=seconds if seconds and seconds > 0 else None,
        codec=context.name,
        sample_rate=context.sample_rate or 0,
        channels=context.channels or 0,
    )


def _packet_seconds(packet: Any) -> float:
    if packet is None or not packet.duration or not packet.time_base:
        return 0.0
    return min(_MAX_PACKET_SECONDS, max(0.0, float(packet.duration * packet.time_base)))


def _decoder(stream: AudioStream) -> AudioCodecContext:
    """The stream's own decoder, or the better one for AMR: FFmpeg's own fails on its comfort noise."""
    context = stream.codec_context
    better = _BETTER_DECODERS.get(context.name)
    if better is None or better not in av.codecs_available:
        return context
    replacement = cast("AudioCodecContext", av.AudioCodecContext.create(better, "r"))
    replacement.sample_rate = context.sample_rate
    replacement.layout = "mono"
    return replacement


def _gathered(pieces: Iterator[tuple[int, Samples]]) -> Iterator[tuple[int, Samples]]:
    """Join small neighbours of one rate, so that the resampler is not called for every 20 ms."""
    held: list[Samples] = []
    rate = count = 0
    for next_rate, piece in pieces:
        if held and (next_rate != rate or count >= _CHUNK_SECONDS * rate):
            yield rate, np.concatenate(held)
            held, count = [], 0
        rate = next_rate
        held.append(piece)
        count += len(piece)
    if held:
        yield rate, np.concatenate(held)


@dataclass(frozen=True, eq=False)
class FrontendConfig:
    """How waveforms become features; the defaults are Paraformer's.

    Args:
        cmvn_shift: added to every stacked frame, shape (lfr_m * n_mels,).
        cmvn_scale: multiplied after that, same shape.
        n_mels: mel bins of one frame.
        frame_length_ms, frame_shift_ms: window and step.
        window: window function, by Kaldi's name.
        lfr_m, lfr_n: a feature frame stacks `lfr_m` frames, and there is one for every `lfr_n` frames.

    Raises:
        PackError: the normalisation does not fit the other values.
    """

    cmvn_shift: Samples
    cmvn_scale: Samples
    n_mels: int = 80
    frame_length_ms: int = 25
    frame_shift_ms: int = 10
    window: str = "hamming"
    lfr_m: int = 7
    lfr_n: int = 6

    def __post_init__(self) -> None:
        width = self.lfr_m * self.n_mels
        if self.cmvn_shift.shape != (width,) or self.cmvn_scale.shape != (width,):
            raise PackError(
                f"the normalisation has {self.cmvn_shift.shape} and {self.cmvn_scale.shape} values, "
                f"the frontend gives {width}",
                fix="Make the model pack again from its source",
            )


class Frontend:
    """Waveform to feature frames, as the network's training did it. Holds no state between calls."""

    def __init__(self, config: FrontendConfig) -> None:
        self.config = config
        self._shift = config.cmvn_shift.astype(np.float32)
        self._scale = config.cmvn_scale.astype(np.float32)
        self._options = knf.FbankOptions()
        frames = self._options.frame_opts
        frames.samp_freq = SAMPLE_RATE
        frames.frame_length_ms = config.frame_length_ms
        frames.frame_shift_ms = config.frame_shift_ms
        frames.window_type = config.window
        frames.dither = 0.0
        frames.snip_edges = True
        self._options.mel_opts.num_bins = config.n_mels
        self._options.energy_floor = 0.0

    def features(self, samples: Samples) -> Samples:
        """Features of one segment.

        Args:
            samples: 16 kHz mono in [-1, 1], shape (n,).

        Returns:
            shape (frames, lfr_m * n_mels); 0 frames when `samples` is shorter than one window.
        """
        mels = self._filter_bank(samples)
        if not len(mels):
            return np.zeros((0, self.config.lfr_m * self.config.n_mels), np.float32)
        return (_stack(mels, self.config.lfr_m, self.config.lfr_n) + self._shift) * self._scale

    def _filter_bank(self, samples: Samples) -> Samples:
        bank = knf.OnlineFbank(self._options)
        # The scale of 16-bit integers, which the network was trained on.
        bank.accept_waveform(SAMPLE_RATE, (samples.astype(np.float32) * np.float32(1 << 15)).tolist())
        bank.input_finished()
        count = bank.num_frames_ready
        mels = np.empty((count, self.config.n_mels), np.float32)
        for index in range(count):
            mels[index] = bank.get_frame(index)
        return mels


def _stack(mels: Samples, width: int, step: int) -> Samples:
    """Low frame rate: row i joins `width` frames around frame i * step; edge frames are repeated outward."""
    rows = -(-len(mels) // step)
    first = (width - 1) // 2
    index = np.arange(rows)[:, np.newaxis] * step + np.arange(width)[np.newaxis] - first
    stacked: Samples = mels[np.clip(index, 0, len(mels) - 1)].reshape(rows, width * mels.shape[1])
    return stacked

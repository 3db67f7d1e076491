"""`make fuzz-media`: damaged recordings for the decoder; each gives sound or is refused, and nothing else happens.

A second of sound in every container and codec that this PyAV can write is damaged by chance and decoded as an upload is
(app/asr/audio.py), in processes of their own, because what is looked for may be a crash of FFmpeg. A case is known by
its number: the same number is the same file.

    python -m tests.fuzz.media [--cases N] [--minutes M] [--seed S] [--case NUMBER]
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import av
import numpy as np

from app.asr.audio import AudioReader
from app.asr.errors import AsrError

ROOT = Path(__file__).resolve().parents[2]
FORMATS = (
    *(
        ("wav", codec)
        for codec in ("pcm_s16le", "pcm_u8", "pcm_f32le", "pcm_alaw", "adpcm_ms", "adpcm_ima_wav")
    ),
    *(("flac", "flac"), ("ogg", "libopus"), ("ogg", "libvorbis"), ("mp3", "libmp3lame"), ("adts", "aac")),
    *(("mp4", "aac"), ("mov", "alac"), ("matroska", "aac"), ("webm", "libopus"), ("aiff", "pcm_s16be")),
    *(
        ("caf", "pcm_s16le"),
        ("au", "pcm_s16be"),
        ("amr", "libopencore_amrnb"),
        ("asf", "wmav2"),
        ("avi", "mp2"),
    ),
)
COMMAND = ("-m", "tests.fuzz.media")  # what a child runs
BLOCK = 250  # cases of one process
CASE_SECONDS = 20  # a second of sound takes milliseconds
MOST_MEMORY = 1 << 30  # bytes of address space beyond what the process has before its first case
MOST_SAMPLES = 600 * 16_000  # of a file made of one second; damage can repeat it
_WIDTHS = (1, 2, 4, 8)


def samples() -> list[bytes]:
    """The undamaged files; formats that this PyAV cannot write are left out."""
    times = np.arange(16_000) / 16_000
    sound = (8000 * np.sin(2 * np.pi * (200 + 400 * times) * times)).astype(np.int16)
    made = []
    for container, codec in FORMATS:
        rate = 8_000 if codec == "libopencore_amrnb" else 48_000 if codec == "libopus" else 16_000
        try:
            made.append(_encoded(container, codec, sound, rate))
        except (av.FFmpegError, ValueError):
            continue
    return made


def _encoded(
    container: str, codec: str, sound: np.ndarray[tuple[int], np.dtype[np.int16]], rate: int
) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate)
        frame = av.AudioFrame.from_ndarray(sound[np.newaxis], format="s16", layout="mono")
        frame.sample_rate = 16_000
        resampler = av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=rate)
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            output.mux(stream.encode(part))
        output.mux(stream.encode(None))
    return file.getvalue()


def damaged(clean: list[bytes], number: int) -> bytes:
    """The file of a case."""
    random = np.random.default_rng(number)
    content = bytearray(clean[number % len(clean)])
    for _ in range(int(random.integers(1, 6))):
        if not content:
            break
        at, length = int(random.integers(len(content))), int(random.integers(1, 200))
        kind = int(random.integers(6))
        if kind == 0:
            del content[at:]
        elif kind == 1:
            content[at : at + length] = random.bytes(length)
        elif kind == 2:  # a length or a count that cannot be
            width = _WIDTHS[int(random.integers(len(_WIDTHS)))]
            value = (0, (1 << 8 * width) - 1, (1 << 8 * width - 1) - 1, 1)[int(random.integers(4))]
            content[at : at + width] = value.to_bytes(width, ("little", "big")[int(random.integers(2))])
        elif kind == 3:
            del content[at : at + length]
        elif kind == 4:
            content[at:at] = content[at : at + length] * int(random.integers(1, 20))
        else:  # the rest of another file
            other = clean[int(random.integers(len(clean)))]
            content[at:] = other[int(random.integers(len(other))) :]
    return bytes(content)


def outcome(content: bytes) -> str:
    """`sound`, `refused`, or what is wrong."""
    heard = 0
    try:
        with AudioReader(io.BytesIO(content)) as reader:
            for block in reader.blocks():
                heard += len(block)
                if not np.isfinite(block).all() or (len(block) and np.abs(block).max() > 1.0):
                    return "samples that are no numbers, or louder than 1"
                if heard > MOST_SAMPLES:
                    return "sound without an end"
    except AsrError:
        return "refused"
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        return f"{type(error).__name__}: {error}"
    return "sound"


def child(numbers: range) -> None:
    """Tells the number of each case before it, and what came of it after it."""
    clean = samples()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, whatever FFmpeg is at
    size = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MOST_MEMORY,) * 2)
    for number in numbers:
        print(number, end=" ", flush=True)
        signal.alarm(CASE_SECONDS)
        told = outcome(damaged(clean, number))
        signal.alarm(0)
        print(json.dumps(told), flush=True)


def block(first: int, count: int) -> tuple[Counter[str], dict[int, str]]:
    """Cases in a process of its own: how they ended, and the faults by number. After a crash the rest goes on."""
    ends: Counter[str] = Counter()
    faults: dict[int, str] = {}
    end = first + count
    while first < end:
        command = [sys.executable, *COMMAND, "--child", str(first), str(end)]
        done = subprocess.run(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False
        )
        for line in done.stdout.splitlines():
            number, _, told = line.partition(" ")
            first = int(number) + 1
            kind = json.loads(told) if told else f"the process ended with {done.returncode}"
            ends[kind if kind in ("sound", "refused") else "fault"] += 1
            if kind not in ("sound", "refused"):
                faults[int(number)] = kind
        if not done.stdout:
            raise RuntimeError(f"the decoder cannot be tried here; see: {' '.join(command)}")
    return ends, faults


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.media", description="Damaged recordings.")
    parser.add_argument("--cases", type=int, default=10_000, help="files to try (default: 10000)")
    parser.add_argument("--minutes", type=float, default=20.0, help="stop after so long (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="number of the first case")
    parser.add_argument("--case", type=int, help="only this one; says what came of it")
    parser.add_argument("--child", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child is not None:
        child(range(*options.child))
        return 0
    if options.case is not None:
        child(range(options.case, options.case + 1))
        return 0
    limit = time.monotonic() + options.minutes * 60
    ends: Counter[str] = Counter()
    faults: dict[int, str] = {}
    first, last = options.seed, options.seed + options.cases
    while first < last and time.monotonic() < limit:
        count = min(BLOCK, last - first)
        some, wrong = block(first, count)
        ends.update(some)
        faults.update(wrong)
        first += count
    print(f"{sum(ends.values())} damaged files of {len(samples())} formats: {dict(ends)}")
    for number, fault in faults.items():
        print(f"case {number}: {fault}")
    return 2 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

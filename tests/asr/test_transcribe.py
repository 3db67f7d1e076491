"""The pipeline on the shipped model: streaming, joining, stopping, failing."""

from __future__ import annotations

import json
import threading
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from app.asr import transcribe
from app.asr.audio import SAMPLE_RATE
from app.asr.engine import EngineOptions
from app.asr.errors import AudioError, InputError, PackError
from app.asr.hotwords import parse_hotwords
from app.asr.segments import cut
from app.asr.transcribe import Transcriber
from tests.support.heldout import read_samples
from tests.support.tight import without_silence

RECORDINGS = Path(transcribe.__file__).parents[1] / "demo" / "recordings"
LISTED = {
    item["file"]: item
    for item in json.loads((RECORDINGS / "recordings.json").read_text("utf-8"))["recordings"]
}


def _write(path: Path, samples: NDArray[np.float32]) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")
        pcm = (np.clip(samples, -1, 1) * 32767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    return path


def _text(engine: Transcriber, path: Path) -> str:
    return "".join(utterance.text for utterance in engine.transcribe(path))


@pytest.fixture(scope="module")
def engine() -> Transcriber:
    return Transcriber.open(EngineOptions(threads=1))


@pytest.fixture(scope="module")
def meeting() -> NDArray[np.float32]:
    return read_samples(RECORDINGS / "meeting.ogg")


def test_commands_are_understood(engine: Transcriber) -> None:
    for name in ("command-1.flac", "command-2.flac", "golden.wav"):
        assert _text(engine, RECORDINGS / name) == LISTED[name]["text"]


def test_names_need_their_hot_words(engine: Transcriber) -> None:
    listed = LISTED["names.ogg"]
    words = parse_hotwords(listed["hotwords"], engine.vocabulary)
    without = _text(engine, RECORDINGS / "names.ogg")
    biased = "".join(utterance.text for utterance in engine.transcribe(RECORDINGS / "names.ogg", words))
    assert not any(name in without for name in listed["hotwords"])
    assert biased == listed["text"]


@pytest.mark.parametrize("seconds", [5, 7.5, 10, 15, 20, 30, 60, 120])
def test_the_meeting_has_the_same_words_however_it_is_cut(meeting: object, seconds: float) -> None:
    with Transcriber.open(EngineOptions(threads=1, segment_seconds=seconds)) as engine:
        assert _text(engine, RECORDINGS / "meeting.ogg") == LISTED["meeting.ogg"]["text"]


def test_words_are_given_out_while_the_rest_is_decoded(
    engine: Transcriber, meeting: NDArray[np.float32], tmp_path: Path
) -> None:
    path = _write(tmp_path / "long.wav", np.tile(meeting, 5))
    transcription = engine.transcribe(path)
    utterances = iter(transcription)
    next(utterances)
    assert transcription.audio_seconds < 200 < 5 * len(meeting) / SAMPLE_RATE
    done, total = transcription.progress
    assert 0 < done < 60 and total is not None and abs(total - 5 * len(meeting) / SAMPLE_RATE) < 1
    for _ in utterances:
        pass
    assert transcription.audio_seconds == 5 * len(meeting) / SAMPLE_RATE
    assert transcription.rtf > 0


def test_times_rise_and_lie_within_the_file(engine: Transcriber, meeting: NDArray[np.float32]) -> None:
    utterances = list(engine.transcribe(RECORDINGS / "meeting.ogg"))
    words = [word for utterance in utterances for word in utterance.words]
    assert all(word.start < word.end for word in words)
    assert all(left.start <= right.start for left, right in pairwise(words))
    assert words[-1].end <= len(meeting) / SAMPLE_RATE
    assert len(utterances) > 20


def test_a_reader_that_stops_leaves_no_thread(
    engine: Transcriber, meeting: NDArray[np.float32], tmp_path: Path
) -> None:
    path = _write(tmp_path / "long.wav", np.tile(meeting, 3))
    utterances = iter(engine.transcribe(path))
    next(utterances)
    utterances.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name == "asr-prepare"]


def test_silence_is_an_empty_transcript(engine: Transcriber, tmp_path: Path) -> None:
    path = _write(tmp_path / "silence.wav", np.zeros(SAMPLE_RATE * 5, np.float32))
    transcription = engine.transcribe(path)
    assert list(transcription) == []
    assert transcription.audio_seconds == 5.0


def test_a_failure_in_the_thread_ahead_reaches_the_reader(
    engine: Transcriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AudioError("the file went away", fix="Try again.")

    monkeypatch.setattr(transcribe, "cut", fail)
    with pytest.raises(AudioError, match="went away"):
        list(engine.transcribe(RECORDINGS / "golden.wav"))


def test_options_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(PackError, match="no fp32 pack"):
        Transcriber.open(EngineOptions(precision="fp32"))
    with Transcriber.open(EngineOptions(threads=1, hotwords=False)) as engine:
        words = parse_hotwords(["天气"], engine.vocabulary)
        with pytest.raises(InputError, match="not loaded"):
            engine.transcribe(RECORDINGS / "golden.wav", words)


@pytest.mark.parametrize("precision", ["int8", "fp16"])
@pytest.mark.parametrize("seconds", [None, 5, 7.5, 10, 12.5, 15, 20, 30, 60, 100])
def test_speech_without_a_pause_is_cut_and_joined_without_loss(
    meeting: NDArray[np.float32], tmp_path: Path, seconds: float | None, precision: str
) -> None:
    """The words that were said, exactly, wherever the cuts fall."""
    samples = without_silence(meeting)
    hard_cuts = sum(part.overlap > 0 for part in cut([samples], max_seconds=seconds or 30.0))
    assert hard_cuts >= (30 // seconds if seconds and seconds <= 15 else 0), (
        "the recording still has pauses to cut at"
    )
    with Transcriber.open(EngineOptions(threads=1, segment_seconds=seconds, precision=precision)) as engine:
        text = _text(engine, _write(tmp_path / "speech.wav", samples))
    assert text == LISTED["meeting.ogg"]["text"]

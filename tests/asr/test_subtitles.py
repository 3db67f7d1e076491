"""Rendering: the five formats, cues, escapes, streaming."""

from __future__ import annotations

import json
import re
import tracemalloc
from itertools import pairwise

import pytest

from app.asr.hotwords import UnusableWord
from app.asr.subtitles import FORMATS, MAX_CUE_SECONDS, SUFFIXES, ResultDetails, cues, render
from app.asr.transcript import Transcript, Utterance, Word
from tests.fakes.engine import spoken

DETAILS = ResultDetails(
    duration=12.34567,
    model="demo",
    precision="int8",
    rtf=0.123456,
    peak_rss_bytes=1000,
    hotwords_used=("张三",),
    hotwords_unusable=(UnusableWord("龘", "no such character"),),
)


def transcript_of(*utterances: Utterance) -> Transcript:
    transcript = Transcript()
    for utterance in utterances:
        transcript.add(utterance)
    return transcript


def rendered(transcript: Transcript, form: str, details: ResultDetails = DETAILS) -> str:
    return "".join(render(transcript, form, details))


TWO = transcript_of(spoken(0.5, "你", "好"), spoken(3601.0, "new", "york"))


def test_text_has_a_line_an_utterance() -> None:
    assert rendered(TWO, "text") == "你好\nnew york\n"


def test_srt() -> None:
    assert rendered(TWO, "srt") == (
        "1\n00:00:00,500 --> 00:00:01,300\n你好\n\n2\n01:00:01,000 --> 01:00:01,800\nnew york\n\n"
    )


def test_vtt() -> None:
    assert rendered(TWO, "vtt") == (
        "WEBVTT\n\n00:00:00.500 --> 00:00:01.300\n你好\n\n01:00:01.000 --> 01:00:01.800\nnew york\n\n"
    )


def test_tsv() -> None:
    assert rendered(TWO, "tsv") == "start\tend\ttext\n500\t1000\t你好\n3601000\t3601500\tnew york\n"


def test_json() -> None:
    assert json.loads(rendered(TWO, "json")) == {
        "text": "你好new york",
        "duration": 12.346,
        "words": [
            {"text": "你", "start": 0.5, "end": 0.7},
            {"text": "好", "start": 0.75, "end": 0.95},
            {"text": "new", "start": 3601.0, "end": 3601.2},
            {"text": "york", "start": 3601.25, "end": 3601.45},
        ],
        "segments": [
            {"start": 0.5, "end": 1.0, "text": "你好"},
            {"start": 3601.0, "end": 3601.5, "text": "new york"},
        ],
        "rtf": 0.1235,
        "peak_rss_bytes": 1000,
        "model": "demo",
        "precision": "int8",
        "hotwords": {"used": ["张三"], "unusable": [{"text": "龘", "reason": "no such character"}]},
    }


def test_silence_renders_in_every_format() -> None:
    empty = Transcript()
    bare = ResultDetails(duration=0.0, model="m", precision="fp32", rtf=float("nan"), file='a"b.wav')
    told = json.loads(rendered(empty, "json", bare))
    assert (told["text"], told["words"], told["segments"], told["rtf"]) == ("", [], [], None)
    assert told["file"] == 'a"b.wav'
    assert [rendered(empty, form, bare) for form in ("text", "srt", "vtt")] == ["", "", "WEBVTT\n\n"]
    assert set(SUFFIXES) == set(FORMATS)


def test_marks_that_a_player_would_read_as_code_are_escaped() -> None:
    odd = transcript_of(spoken(0.0, "<b>", "&", "--> 1", 'x\n\n2"', "{\\an8}"))
    assert "&lt;b&gt;" in rendered(odd, "vtt") and "&amp;" in rendered(odd, "vtt")
    for form in ("srt", "vtt"):
        body = rendered(odd, form).split("\n", 3)[3]
        assert not re.search(r"[<>{]|-->|\n\n.", body.replace("{\\an8}", "") if form == "vtt" else body)
    assert rendered(odd, "tsv").count("\n") == 2
    assert json.loads(rendered(odd, "json"))["words"][3]["text"] == 'x\n\n2"'


def test_long_speech_is_cut_into_readable_cues() -> None:
    chinese = transcript_of(spoken(0.0, *"字" * 120))
    latin = transcript_of(spoken(0.0, *["letters"] * 60))
    for transcript, limit in ((chinese, 20), (latin, 42)):
        found = list(cues(transcript))
        assert max(len(cue.text) for cue in found) <= limit
        assert max(cue.end - cue.start for cue in found) <= MAX_CUE_SECONDS
        assert min(len(cue.text) for cue in found) >= limit // 4
        assert all(a.end <= b.start for a, b in pairwise(found))
        spaces = " " if limit == 42 else ""
        assert spaces.join(cue.text for cue in found) == transcript.text


def test_slow_speech_is_cut_by_time() -> None:
    slow = Utterance(0.0, 20.0, tuple(Word("字", n * 1.4, n * 1.4 + 1.3) for n in range(14)))
    assert all(cue.end - cue.start <= MAX_CUE_SECONDS for cue in cues(transcript_of(slow)))


def test_a_pause_ends_a_cue_and_the_longest_silence_is_preferred() -> None:
    def at(*starts: float) -> Utterance:
        return Utterance(starts[0], starts[-1] + 0.2, tuple(Word("字", s, s + 0.2) for s in starts))

    assert [cue.text for cue in cues(transcript_of(at(0.0, 0.2, 1.0, 1.2)))] == ["字字", "字字"]
    starts = [n * 0.2 for n in range(24)]
    late = [s + (0.3 if n >= 9 else 0.0) for n, s in enumerate(starts)]
    assert [len(cue.text) for cue in cues(transcript_of(at(*late)))] == [9, 15]


def test_one_endless_word_is_still_a_cue() -> None:
    word = Word("a" * 100, 1.0, 60.0)
    assert [(c.start, c.end) for c in cues(transcript_of(Utterance(1.0, 60.0, (word,))))] == [(1.0, 7.0)]


def test_cues_never_end_before_they_start() -> None:
    instant = transcript_of(
        Utterance(1.0, 1.0, (Word("字", 1.0, 1.0),)), Utterance(1.0, 1.0, (Word("字", 1.0, 1.0),))
    )
    assert all(cue.end > cue.start for cue in cues(instant))


@pytest.mark.parametrize("form", FORMATS)
def test_ten_hours_are_streamed(form: str) -> None:
    transcript = transcript_of(*(spoken(float(s), *("字" * 25)) for s in range(0, 36_000, 60)))
    tracemalloc.start()
    longest = max(len(piece) for piece in render(transcript, form, DETAILS))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert longest < 1000
    assert peak < 200_000

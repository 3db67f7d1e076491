"""Rendering: the five formats, escapes, streaming."""

from __future__ import annotations

import json
import re
import tracemalloc

import pytest

from app.asr.hotwords import UnusableWord
from app.asr.subtitles import FORMATS, SUFFIXES, ResultDetails, render
from app.asr.transcript import Transcript, Utterance
from tests.fakes.engine import marked, spoken

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
        "rtf": 0.123456,
        "peak_rss_bytes": 1000,
        "model": "demo",
        "precision": "int8",
        "device": "cpu",
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


def test_marks_stand_behind_their_words_in_every_format() -> None:
    said = marked(spoken(0.0, *"今天开会", "new", "york", *"好吗"), {1: "，", 5: ",", 7: "？"})
    transcript = transcript_of(said)
    line = "今天，开会new york,好吗？"
    assert rendered(transcript, "text") == line + "\n"
    assert rendered(transcript, "tsv").endswith(f"\t{line}\n")
    told = json.loads(rendered(transcript, "json"))
    assert told["text"] == told["segments"][0]["text"] == line
    assert [word["text"] for word in told["words"]] == [*"今天开会", "new", "york", *"好吗"]
    for form in ("srt", "vtt"):
        assert line in rendered(transcript, form)


def test_two_lines_of_a_cue_are_two_lines_of_the_file() -> None:
    transcript = transcript_of(marked(spoken(0.0, *"字" * 22), {11: "，"}))
    assert rendered(transcript, "srt").splitlines()[2:] == ["字" * 12 + "，", "字" * 10, ""]
    assert rendered(transcript, "vtt").splitlines()[3:] == ["字" * 12 + "，", "字" * 10, ""]


@pytest.mark.parametrize("form", FORMATS)
def test_ten_hours_are_streamed(form: str) -> None:
    transcript = transcript_of(*(spoken(float(s), *("字" * 25)) for s in range(0, 36_000, 60)))
    tracemalloc.start()
    longest = max(len(piece) for piece in render(transcript, form, DETAILS))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert longest < 1000
    assert peak < 200_000

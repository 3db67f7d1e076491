"""FunASR's messages: what clients may say, how wrong ones are refused, what an answer holds."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from app.asr.transcript import Transcript
from app.service import funasr_frames
from app.service.errors import RequestError
from app.service.funasr_frames import Wishes, answer, read_frame
from tests.fakes.engine import marked
from tests.fakes.recogniser import spoken

FIRST = {
    "mode": "offline",
    "wav_name": "talk",
    "wav_format": "pcm",
    "audio_fs": 8000,
    "is_speaking": True,
    "hotwords": '{"阿里巴巴": 20, "通义实验室": 30}',
    "itn": True,
    "chunk_size": [5, 10, 5],
}


def read(**changes: Any) -> tuple[Wishes, bool]:
    return read_frame(json.dumps({**FIRST, **changes}), Wishes())


def test_the_first_message_of_the_protocol() -> None:
    assert read() == (Wishes("talk", "pcm", 8000, "阿里巴巴\n通义实验室"), False)


@pytest.mark.parametrize(
    "end", ['{"is_speaking": false}', '{"is_speaking": false, "is_end": true}', '{"is_finished": true}']
)
def test_the_end_of_a_recording_keeps_what_was_said(end: str) -> None:
    wishes, _ = read()
    assert read_frame(end, wishes) == (wishes, True)


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ("", None),
        ("{}", None),
        ("阿里巴巴,达摩院", "阿里巴巴,达摩院"),
        ("阿里巴巴 20\n达摩院 30", "阿里巴巴 20\n达摩院 30"),
        ('["阿里巴巴", "达摩院"]', "阿里巴巴\n达摩院"),
        ({"阿里巴巴": 20}, "阿里巴巴"),
        (["阿里巴巴"], "阿里巴巴"),
        ("2024", "2024"),
        ('"quoted"', '"quoted"'),
        ("{half", "{half"),
        ("/etc/passwd", "/etc/passwd"),
    ],
)
def test_hot_words_in_every_form_that_clients_send(said: Any, heard: str | None) -> None:
    assert read(hotwords=said)[0].hotwords == heard


def test_new_hot_words_replace_the_old_and_none_leave_them() -> None:
    wishes, _ = read()
    assert read_frame('{"wav_name": "next"}', wishes)[0].hotwords == "阿里巴巴\n通义实验室"
    assert read_frame('{"hotwords": ""}', wishes)[0].hotwords is None


@pytest.mark.parametrize(
    "changes",
    [
        {"mode": "2pass"},
        {"mode": "online"},
        {"mode": "other"},
        {"mode": 1},
        {"mode": None},
        {"wav_name": 5},
        {"wav_name": "x" * 256},
        {"wav_format": ["pcm"]},
        {"audio_fs": 7999},
        {"audio_fs": 48_001},
        {"audio_fs": "16000"},
        {"audio_fs": True},
        {"audio_fs": 16000.5},
        {"audio_fs": -1},
        {"audio_fs": 10**400},
        {"audio_fs": float("nan")},
        {"audio_fs": float("inf")},
        {"wav_format": "mp3", "audio_fs": 10**9},
        {"hotwords": 7},
        {"hotwords": '{"a": 1', "mode": {}},
        {"hotwords": [1, 2]},
        {"hotwords": "[[1]]"},
        {"is_speaking": "false"},
        {"is_speaking": []},
        {"itn": "yes"},
    ],
)
def test_what_cannot_be_done_is_refused_with_a_remedy(changes: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as refused:
        read(**changes)
    assert refused.value.fix
    assert len(refused.value.problem) < 200


@pytest.mark.parametrize(
    "text", ["", "hello", "[]", "null", "17", '"offline"', "{", "[" * 100_000, "9" * 5000, "\x00"]
)
def test_garbage_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="JSON"):
        read_frame(text, Wishes())


def test_streaming_modes_are_refused_by_name() -> None:
    with pytest.raises(RequestError, match="2pass"):
        read(mode="2pass")


def test_names_can_always_be_written_back() -> None:
    wishes, _ = read_frame('{"wav_name": "a\\ud800b", "hotwords": "\\udfff今天"}', Wishes())
    assert (wishes.wav_name, wishes.hotwords) == ("a?b", "?今天")
    answer(wishes, Transcript(), ()).encode()


def test_random_messages_are_read_or_refused() -> None:
    seed = random.Random(5)
    values: list[Any] = [
        None,
        True,
        False,
        0,
        1,
        -1,
        1e308,
        "",
        "pcm",
        "false",
        [],
        {},
        ["今"],
        {"今": {}},
        "\ud800",
        [[]],
    ]
    for _ in range(3000):
        frame = {name: seed.choice(values) for name in FIRST if seed.random() < 0.6}
        try:
            wishes, _ = read_frame(json.dumps(frame), Wishes())
        except RequestError:
            continue
        assert 8000 <= wishes.audio_fs <= 48_000 or not wishes.is_pcm
        answer(wishes, Transcript(), ()).encode()


def transcript(count: int = 1) -> Transcript:
    made = Transcript()
    for number in range(count):
        made.add(spoken(number * 2.0, "今", "天", "new", "york"))
    return made


def test_an_answer_has_what_the_protocol_promises() -> None:
    told = json.loads(answer(Wishes("talk"), transcript(), ()))
    times = [[0, 200], [250, 450], [500, 700], [750, 950]]
    assert json.loads(told.pop("timestamp")) == times
    assert told == {
        "mode": "offline",
        "wav_name": "talk",
        "text": "今天new york",
        "stamp_sents": [{"text_seg": "今 天 new york", "punc": "", "start": 0, "end": 950, "ts_list": times}],
        "is_final": True,
        "is_end": True,
    }


def test_sentences_end_at_every_mark() -> None:
    transcript = Transcript()
    transcript.add(marked(spoken(0.0, "今", "天", "new", "york", "好"), {1: "，", 3: ".", 4: "？"}))
    transcript.add(spoken(2.0, "好"))
    told = json.loads(answer(Wishes(), transcript, []))
    assert told["text"] == "今天，new york.好？好"
    assert [(part["text_seg"], part["punc"], part["start"], part["end"]) for part in told["stamp_sents"]] == [
        ("今 天", "，", 0, 450),
        ("new york", ".", 500, 950),
        ("好", "？", 1000, 1200),
        ("好", "", 2000, 2200),
    ]
    assert [time for part in told["stamp_sents"] for time in part["ts_list"]] == json.loads(told["timestamp"])


def test_an_answer_fits_into_what_clients_take(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = answer(Wishes(), transcript(100), ["a note"])
    for limit, missing in ((len(whole) - 500, ["stamp_sents"]), (3000, ["stamp_sents", "timestamp"])):
        monkeypatch.setattr(funasr_frames, "MAX_ANSWER_BYTES", limit)
        told = json.loads(answer(Wishes(), transcript(100), ["a note"]))
        assert [name for name in ("stamp_sents", "timestamp") if not told[name]] == missing
        assert told["text"] == json.loads(whole)["text"]
        assert told["notes"][0] == "a note"
        assert [note.split()[0] for note in told["notes"][1:]] == missing

"""POST /v1/audio/transcriptions and /v1/models in memory, with a recogniser that says what it is told to."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.asr.errors import AudioError, HotwordError, ResourceError
from app.asr.hotwords import HotwordSet, UnusableWord
from tests.fakes.engine import marked
from tests.fakes.recogniser import READY, FakeRecogniser, spoken
from tests.support.service import app_in, client_of, events_of, get, transcribe, uploads_of, wav

SCRIPT = (spoken(0.0, "今", "天"), spoken(1.0, "New", "York"))


@pytest.fixture
def recogniser() -> FakeRecogniser:
    return FakeRecogniser(SCRIPT)


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error object, and nothing beside it."""
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return dict(body["error"])


def test_json_is_the_text_and_the_length(tmp_path: Path, recogniser: FakeRecogniser) -> None:
    response = transcribe(app_in(tmp_path, recogniser))
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {"text": "今天New York", "usage": {"type": "duration", "seconds": 2}}


def test_silence_is_an_empty_text(tmp_path: Path) -> None:
    response = transcribe(app_in(tmp_path, FakeRecogniser(())))
    assert response.json()["text"] == ""


def test_verbose_json_has_segments(tmp_path: Path, recogniser: FakeRecogniser) -> None:
    body = transcribe(app_in(tmp_path, recogniser), {"response_format": "verbose_json"}).json()
    assert (body["task"], body["language"], body["duration"]) == ("transcribe", "chinese", 1.5)
    assert [(s["id"], s["start"], s["end"], s["text"]) for s in body["segments"]] == [
        (0, 0.0, 0.5, "今天"),
        (1, 1.0, 1.5, "New York"),
    ]
    assert "words" not in body


def test_punctuation_is_in_texts_and_segments_and_not_in_words(tmp_path: Path) -> None:
    script = (marked(spoken(0.0, "今", "天"), {1: "。"}), marked(spoken(1.0, "New", "York"), {1: "."}))
    app = app_in(tmp_path, FakeRecogniser(script))
    fields = {"response_format": "verbose_json", "timestamp_granularities[]": ["word", "segment"]}
    body = transcribe(app, fields).json()
    assert body["text"] == "今天。New York."
    assert [segment["text"] for segment in body["segments"]] == ["今天。", "New York."]
    assert [word["word"] for word in body["words"]] == ["今", "天", "New", "York"]
    assert transcribe(app, {"response_format": "srt"}).text.splitlines()[2::4] == ["今天。", "New York."]
    deltas = events_of(transcribe(app, {"stream": "true"}).text)
    assert deltas[-1]["text"] == "今天。New York."


@pytest.mark.parametrize(
    ("asked", "there"),
    [(["word"], {"words"}), (["segment"], {"segments"}), (["word", "segment"], {"words", "segments"})],
)
def test_verbose_json_has_the_times_that_were_asked_for(
    tmp_path: Path, recogniser: FakeRecogniser, asked: list[str], there: set[str]
) -> None:
    fields = {"response_format": "verbose_json", "timestamp_granularities[]": asked}
    body = transcribe(app_in(tmp_path, recogniser), fields).json()
    assert {"words", "segments"} & set(body) == there
    if "words" in there:
        assert body["words"][2] == {"word": "New", "start": 1.0, "end": 1.2}


@pytest.mark.parametrize(
    ("form", "body"),
    [
        ("text", "今天\nNew York\n"),
        ("srt", "1\n00:00:00,000 --> 00:00:00,800\n今天\n\n2\n00:00:01,000 --> 00:00:01,800\nNew York\n\n"),
        (
            "vtt",
            "WEBVTT\n\n00:00:00.000 --> 00:00:00.800\n今天\n\n00:00:01.000 --> 00:00:01.800\nNew York\n\n",
        ),
    ],
)
def test_other_formats_are_plain_text(
    tmp_path: Path, recogniser: FakeRecogniser, form: str, body: str
) -> None:
    response = transcribe(app_in(tmp_path, recogniser), {"response_format": form})
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.text == body


def test_a_stream_gives_deltas_that_make_the_text(tmp_path: Path, recogniser: FakeRecogniser) -> None:
    response = transcribe(app_in(tmp_path, recogniser), {"stream": "true"})
    assert response.headers["content-type"].startswith("text/event-stream")
    events = events_of(response.text)
    assert [event["type"] for event in events] == ["transcript.text.delta"] * 2 + ["transcript.text.done"]
    assert "".join(event["delta"] for event in events[:-1]) == events[-1]["text"] == "今天New York"


def test_words_that_need_a_space_get_it_between_deltas(tmp_path: Path) -> None:
    script = [spoken(0.0, "New"), spoken(1.0, "York"), spoken(2.0, "今")]
    events = events_of(transcribe(app_in(tmp_path, FakeRecogniser(script)), {"stream": "true"}).text)
    assert [event["delta"] for event in events[:-1]] == ["New", " York", "今"]


def test_a_stream_of_silence_is_done(tmp_path: Path) -> None:
    events = events_of(transcribe(app_in(tmp_path, FakeRecogniser(())), {"stream": "true"}).text)
    assert [(event["type"], event["text"]) for event in events] == [("transcript.text.done", "")]


def test_an_error_before_the_first_words_of_a_stream_has_a_status(tmp_path: Path) -> None:
    broken = FakeRecogniser([AudioError("it is damaged", fix="Repair it.")])
    response = transcribe(app_in(tmp_path, broken), {"stream": "true"})
    assert response.status_code == 400
    assert error_of(response)["message"] == "It is damaged. Repair it."


def test_an_error_later_in_a_stream_is_its_last_event(tmp_path: Path) -> None:
    broken = FakeRecogniser([spoken(0.0, "今"), AudioError("it is damaged", fix="Repair it.")])
    app = app_in(tmp_path, broken)
    response = transcribe(app, {"stream": "true"})
    assert "event: error\n" in response.text
    assert events_of(response.text)[-1]["error"]["message"] == "It is damaged. Repair it."
    assert uploads_of(app) == []


@pytest.mark.parametrize(
    ("fields", "taken"),
    [
        ({"hotwords": "张筱雨", "prompt": "一句话"}, "张筱雨"),
        ({"keywords[]": ["张筱雨", "New York"], "prompt": "一句话"}, "张筱雨\nNew York"),
        ({"hotwords": " ", "prompt": "一句话"}, "一句话"),
        ({"prompt": "/etc/passwd http://example.com"}, "/etc/passwd http://example.com"),
        ({}, None),
    ],
)
def test_hot_words_come_from_their_field_or_else_the_prompt(
    tmp_path: Path, recogniser: FakeRecogniser, fields: dict[str, Any], taken: str | None
) -> None:
    assert transcribe(app_in(tmp_path, recogniser), fields).status_code == 200
    assert recogniser.requests[0][0].hotwords == taken


def test_verbose_json_tells_what_became_of_the_hot_words(tmp_path: Path, recogniser: FakeRecogniser) -> None:
    recogniser.hotwords = HotwordSet(((1,),), ("张三",), (UnusableWord("𠮷", "not in the vocabulary"),))
    fields = {"response_format": "verbose_json", "hotwords": "张三 𠮷"}
    assert transcribe(app_in(tmp_path, recogniser), fields).json()["hotwords"] == {
        "used": ["张三"],
        "unusable": [{"text": "𠮷", "reason": "not in the vocabulary"}],
        "warnings": [],
    }


def test_a_model_without_hot_words_refuses_them_but_not_a_prompt(
    tmp_path: Path, recogniser: FakeRecogniser
) -> None:
    recogniser.becomes(has_hotwords=False)
    app = app_in(tmp_path, recogniser)
    assert error_of(transcribe(app, {"hotwords": "张三"}))["param"] == "hotwords"
    assert transcribe(app, {"prompt": "张三"}).status_code == 200
    assert recogniser.requests[0][0].hotwords is None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": "xml"}, "response_format"),
        ({"response_format": "diarized_json"}, "response_format"),
        ({"timestamp_granularities[]": "syllable"}, "timestamp_granularities[]"),
        ({"timestamp_granularities[]": "word"}, "timestamp_granularities[]"),
        ({"stream": "perhaps"}, "stream"),
        ({"stream": "true", "response_format": "srt"}, "stream"),
        ({"temperature": "warm"}, "temperature"),
        ({"temperature": "nan"}, "temperature"),
        ({"temperature": "7"}, "temperature"),
        ({"language": "中文"}, "language"),
        ({"language": "../../etc"}, "language"),
        ({"language": "fr"}, "language"),
        ({"hotwords": "字" * 400}, "hotwords"),
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
    ],
)
def test_bad_values_are_refused_by_name(
    tmp_path: Path, recogniser: FakeRecogniser, fields: dict[str, Any], param: str
) -> None:
    app = app_in(tmp_path, recogniser, max_hotword_bytes=1000)
    response = transcribe(app, fields)
    assert response.status_code == 400
    error = error_of(response)
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert recogniser.requests == []
    assert uploads_of(app) == []


def test_unknown_fields_are_ignored(tmp_path: Path, recogniser: FakeRecogniser) -> None:
    fields = {"chunking_strategy": "auto", "include[]": "logprobs", "colour": "green", "language": "zh"}
    assert transcribe(app_in(tmp_path, recogniser), fields).status_code == 200


@pytest.mark.parametrize("name", ["whisper-1", "WHISPER-1", "fake", "demo", "gpt-4o-transcribe"])
def test_aliases_stand_for_the_model(tmp_path: Path, recogniser: FakeRecogniser, name: str) -> None:
    assert transcribe(app_in(tmp_path, recogniser), {"model": name}).status_code == 200


def test_an_unknown_model_is_not_found(tmp_path: Path, recogniser: FakeRecogniser) -> None:
    response = transcribe(app_in(tmp_path, recogniser), {"model": "whisper-9"})
    assert response.status_code == 404
    assert error_of(response)["code"] == "model_not_found"


def test_models_are_listed_and_found_one_by_one(tmp_path: Path) -> None:
    app = app_in(tmp_path)
    listed = get(app, "/v1/models").json()
    assert listed["object"] == "list"
    names = [model["id"] for model in listed["data"]]
    assert names[0] == "fake"
    assert "whisper-1" in names
    one = get(app, "/v1/models/whisper-1").json()
    assert one == next(model for model in listed["data"] if model["id"] == "whisper-1")
    assert error_of(get(app, "/v1/models/owner/other"))["code"] == "model_not_found"


def test_a_missing_and_an_empty_file_are_refused(tmp_path: Path, recogniser: FakeRecogniser) -> None:
    app = app_in(tmp_path, recogniser)
    assert error_of(transcribe(app, content=b""))["param"] == "file"

    async def without() -> httpx.Response:
        async with client_of(app) as client:
            form, files = {"model": "whisper-1"}, {"other": ("talk.wav", wav())}
            return await client.post("/v1/audio/transcriptions", data=form, files=files)

    error = error_of(asyncio.run(without()))
    assert (error["param"], error["code"]) == ("file", "missing_required_parameter")
    assert uploads_of(app) == []


def test_a_file_that_is_no_audio_is_refused_with_a_remedy(tmp_path: Path, recogniser: FakeRecogniser) -> None:
    app = app_in(tmp_path, recogniser)
    response = transcribe(app, content=b"%PDF-1.7 no audio at all" * 50)
    assert response.status_code == 400
    error = error_of(response)
    assert error["param"] == "file"
    assert "talk.wav" in error["message"]
    assert str(tmp_path) not in error["message"]
    assert recogniser.requests == []
    assert uploads_of(app) == []


def test_the_recogniser_gets_the_bytes_under_a_name_of_ours(
    tmp_path: Path, recogniser: FakeRecogniser
) -> None:
    app = app_in(tmp_path, recogniser)

    async def scene() -> httpx.Response:
        async with client_of(app) as client:
            files = {"file": ("../../../evil.wav", wav())}
            return await client.post("/v1/audio/transcriptions", data={"model": "fake"}, files=files)

    assert asyncio.run(scene()).status_code == 200
    request, content = recogniser.requests[0]
    assert content == wav()
    assert request.source.parent == app.state.service.settings.uploads
    assert "evil" not in request.source.name
    assert not list(tmp_path.rglob("*evil*"))
    assert uploads_of(app) == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (AudioError("it is damaged", fix="Repair it."), 400),
        (HotwordError("too many", fix="Fewer."), 400),
        (ResourceError("no memory", fix="Wait."), 503),
        (RuntimeError("a secret of ours"), 500),
    ],
)
def test_errors_of_the_engine(tmp_path: Path, error: Exception, status: int) -> None:
    for broken in (FakeRecogniser([spoken(0.0, "今"), error]), FakeRecogniser(refuse=error)):
        app = app_in(tmp_path, broken)
        response = transcribe(app)
        assert response.status_code == status
        assert "secret" not in error_of(response)["message"]
        assert uploads_of(app) == []


def test_after_the_time_limit_the_work_ends(tmp_path: Path) -> None:
    slow = FakeRecogniser([spoken(0.0, "今"), 60.0])
    response = transcribe(app_in(tmp_path, slow, request_seconds=0.1))
    assert response.status_code == 504
    assert (slow.cancelled, slow.running) == (1, 0)


def test_too_long_a_file_is_refused_before_it_is_recognised(
    tmp_path: Path, recogniser: FakeRecogniser
) -> None:
    response = transcribe(app_in(tmp_path, recogniser, max_audio_seconds=1), content=wav(2))
    assert response.status_code == 413
    assert error_of(response)["code"] == "audio_too_long"
    assert recogniser.requests == []


def test_a_file_that_turns_out_too_long_is_given_up(tmp_path: Path) -> None:
    endless = FakeRecogniser([spoken(float(second), "今") for second in range(100)])
    response = transcribe(app_in(tmp_path, endless, max_audio_seconds=10))
    assert response.status_code == 413
    assert endless.cancelled == 1


def test_a_full_queue_says_when_to_come_back(tmp_path: Path) -> None:
    """60 s wait, 100 s are queued at most: 70 s more leave after 30 s of audio, at 0.5 s each."""
    gate = asyncio.Event()
    began = asyncio.Event()
    busy = FakeRecogniser(lambda request: [began.set, gate.wait] if request.request_id == "first" else [])
    busy.becomes(rtf=0.5)
    app = app_in(tmp_path, busy, queue_seconds=100)

    async def scene() -> tuple[httpx.Response, httpx.Response, httpx.Response]:
        async with client_of(app) as client:

            def post(seconds: float, name: str) -> Any:
                return client.post(
                    "/v1/audio/transcriptions",
                    data={"model": "fake"},
                    files={"file": wav(seconds)},
                    headers={"X-Request-ID": name},
                )

            first = asyncio.create_task(post(60, "first"))
            await began.wait()
            refused, small = await post(70, "second"), await post(30, "third")
            gate.set()
            return await first, refused, small

    first, refused, small = asyncio.run(asyncio.wait_for(scene(), 10))
    assert (first.status_code, refused.status_code, small.status_code) == (200, 429, 200)
    assert refused.headers["retry-after"] == "15"
    assert error_of(refused)["code"] == "rate_limit_exceeded"


def test_a_file_longer_than_the_queue_is_taken_when_nothing_waits(
    tmp_path: Path, recogniser: FakeRecogniser
) -> None:
    assert transcribe(app_in(tmp_path, recogniser, queue_seconds=1), content=wav(3)).status_code == 200


def test_no_new_work_while_draining_or_when_the_engine_has_failed(
    tmp_path: Path, recogniser: FakeRecogniser
) -> None:
    app = app_in(tmp_path, recogniser)
    recogniser.becomes(state="failed", message="the pack is damaged")
    response = transcribe(app)
    assert response.status_code == 503
    assert "the pack is damaged" in error_of(response)["message"]
    recogniser.state = READY
    app.state.service.admission.drain()
    response = transcribe(app)
    assert (response.status_code, error_of(response)["code"]) == (503, "shutting_down")
    assert recogniser.requests == []

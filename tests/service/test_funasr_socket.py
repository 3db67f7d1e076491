"""FunASR's protocol through a real web server: a client written from its documentation, and clients that misbehave."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import random
import socket
import wave
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from app.asr.errors import AudioError
from app.service.errors import Overloaded
from app.service.funasr_recording import Recording
from app.service.recognising import RecognitionRequest
from tests.fakes.recogniser import FakeRecogniser, Step, spoken
from tests.support.service import app_in, served, until, uploads_of

RECORDINGS = Path(__file__).resolve().parents[2] / "app" / "demo" / "recordings"
SCRIPT = (spoken(0.0, "今", "天"), spoken(1.0, "开", "会"))
SOUND = bytes(range(256)) * 125  # a second at 16 kHz
END = {"is_speaking": False}
Scene = Callable[[str], Awaitable[None]]


@pytest.fixture
def recogniser() -> FakeRecogniser:
    return FakeRecogniser(SCRIPT)


def play(app: FastAPI, scene: Scene) -> None:
    """A scene with the address of the websocket; afterwards no recording is left behind."""
    with served(app) as address:
        asyncio.run(asyncio.wait_for(scene(address.replace("http://", "ws://")), 20))
        until(lambda: not uploads_of(app))


def joined(address: str) -> connect:
    """A connection as FunASR's own client opens it."""
    return connect(address, subprotocols=[Subprotocol("binary")], ping_interval=None)


async def say(client: ClientConnection, **frame: Any) -> None:
    await client.send(json.dumps(frame))


async def hear(client: ClientConnection) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(await client.recv())
    return told


async def recognise(client: ClientConnection, frames: Sequence[bytes], **first: Any) -> dict[str, Any]:
    """One recording, as the protocol tells a client to send it."""
    begin = {
        "mode": "offline",
        "wav_name": "talk",
        "wav_format": "pcm",
        "audio_fs": 16000,
        "is_speaking": True,
    }
    await say(client, **{**begin, **first})
    for frame in frames:
        await client.send(frame)
    await say(client, **END)
    return await hear(client)


async def refused(client: ClientConnection) -> tuple[str, int]:
    """The code of the error that was told, and that of the closing; nothing else may come."""
    told = await hear(client)
    assert (told["is_final"], told["is_end"], told["text"], told["mode"]) == (False, True, "", "offline")
    assert len(told["error"]) > 20
    with pytest.raises(ConnectionClosed) as closed:
        await client.recv()
    assert closed.value.rcvd is not None
    return told["code"], closed.value.rcvd.code


def samples(data: bytes) -> tuple[int, bytes]:
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        return file.getframerate(), file.readframes(file.getnframes())


def test_a_recording_as_the_protocol_has_it(tmp_path: Path, recogniser: FakeRecogniser) -> None:
    async def scene(address: str) -> None:
        async with joined(address) as client:
            assert client.subprotocol == "binary"
            hotwords = json.dumps({"阿里巴巴": 20, "通义实验室": 30}, ensure_ascii=False)
            told = await recognise(client, [SOUND[:960], SOUND[960:]], hotwords=hotwords, itn=True)
        assert (told["mode"], told["wav_name"], told["text"]) == ("offline", "talk", "今天开会")
        assert told["is_final"] is True
        assert told["is_end"] is True
        assert json.loads(told["timestamp"]) == [[0, 200], [250, 450], [1000, 1200], [1250, 1450]]
        assert told["stamp_sents"][1] == {
            "text_seg": "开 会",
            "punc": "",
            "start": 1000,
            "end": 1450,
            "ts_list": [[1000, 1200], [1250, 1450]],
        }

    play(app_in(tmp_path, recogniser), scene)
    ((request, data),) = recogniser.requests
    assert request.hotwords == "阿里巴巴\n通义实验室"
    assert samples(data) == (16000, SOUND)


def test_frames_of_any_size_and_every_rate(tmp_path: Path, recogniser: FakeRecogniser) -> None:
    seed = random.Random(11)
    sent: list[tuple[int, bytes]] = []

    async def scene(address: str) -> None:
        async with joined(address) as client:
            for _ in range(25):
                rate = seed.choice([8000, 11025, 16000, 22050, 44100, 48000, seed.randrange(8000, 48001)])
                sound = seed.randbytes(2 * seed.randrange(1, 200_000))
                largest = seed.choice([1, 100, 5000, 100_000, 1 << 20])
                sound = sound[: 2 * min(len(sound) // 2, 300 * largest)]
                frames, place = [], 0
                while place < len(sound):
                    step = seed.randint(0, largest)
                    frames.append(sound[place : place + step])
                    place += step
                sent.append((rate, sound))
                assert (await recognise(client, frames, audio_fs=rate))["text"] == "今天开会"

    play(app_in(tmp_path, recogniser), scene)
    assert [samples(data) for _, data in recogniser.requests] == sent


def test_files_in_containers_and_a_wav_that_is_called_pcm(tmp_path: Path, recogniser: FakeRecogniser) -> None:
    ogg = (RECORDINGS / "meeting.ogg").read_bytes()
    held = io.BytesIO()
    with wave.open(held, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(44100)
        file.writeframes(SOUND)

    async def scene(address: str) -> None:
        async with joined(address) as client:
            for wav_format in ("ogg", "others", "mp3"):
                await recognise(client, [ogg[:1000], ogg[1000:]], wav_format=wav_format)
            await recognise(client, [held.getvalue()])
            await recognise(client, [SOUND + b"x"], audio_fs=8000)  # half a sample at the end

    play(app_in(tmp_path, recogniser), scene)
    received = [data for _, data in recogniser.requests]
    assert received[:4] == [ogg, ogg, ogg, held.getvalue()]
    assert samples(received[4]) == (8000, SOUND)


def test_several_recordings_one_after_the_other_without_waiting(tmp_path: Path) -> None:
    recogniser = FakeRecogniser()
    recogniser.script = lambda request: [0.02, spoken(0.0, str(len(recogniser.requests)))]

    async def scene(address: str) -> None:
        async with joined(address) as client:
            await say(client, wav_name="first", hotwords="开会")
            for name in ("second", "third"):
                await client.send(SOUND)
                await say(client, **END)
                await say(client, wav_name=name)
            await say(client, **END)  # nothing was said
            told = [await hear(client) for _ in range(3)]
        assert [(one["wav_name"], one["text"]) for one in told] == [
            ("first", "1"),
            ("second", "2"),
            ("third", ""),
        ]
        assert told[2]["is_final"] is True

    play(app_in(tmp_path, recogniser), scene)
    assert [request.hotwords for request, _ in recogniser.requests] == ["开会"] * 2


def test_without_a_subprotocol(tmp_path: Path, recogniser: FakeRecogniser) -> None:
    async def scene(address: str) -> None:
        async with connect(address) as client:
            assert client.subprotocol is None
            assert (await recognise(client, [SOUND]))["text"] == "今天开会"

    play(app_in(tmp_path, recogniser), scene)


WRONG: tuple[dict[str, Any] | str, ...] = (
    {"mode": "2pass", "chunk_size": [5, 10, 5]},
    {"mode": "online"},
    {"audio_fs": 96000},
    {"audio_fs": "16000"},
    {"wav_name": 17},
    {"hotwords": 3},
    {"is_speaking": "no"},
    "hello",
    "[]",
    "null",
    "{" * 1000,
    "x" * 500_000,
)


def test_what_cannot_be_done_is_told_then_the_connection_closed(
    tmp_path: Path, recogniser: FakeRecogniser
) -> None:
    async def scene(address: str) -> None:
        for frame in WRONG:
            async with joined(address) as client:
                await client.send(SOUND)  # a recording has begun
                await client.send(frame if isinstance(frame, str) else json.dumps(frame))
                assert (await refused(client))[1] == 1008, frame
        async with joined(address) as client:  # and the service lives
            assert (await recognise(client, [SOUND]))["text"] == "今天开会"

    play(app_in(tmp_path, recogniser), scene)
    assert len(recogniser.requests) == 1


def test_an_unreadable_recording_is_told_by_its_name(tmp_path: Path) -> None:
    def script(request: RecognitionRequest) -> list[Step]:
        return [AudioError(f"'{request.source}' is damaged", fix="Export it again.")]

    async def scene(address: str) -> None:
        async with joined(address) as client:
            told = await recognise(client, [SOUND])
            assert told["error"] == "'talk' is damaged. Export it again."
        async with joined(address) as client:
            told = await recognise(client, [b"this is no music"], wav_format="mp3")
            assert (told["code"], told["is_final"]) == ("invalid_file", False)
            assert str(tmp_path) not in told["error"]

    play(app_in(tmp_path, FakeRecogniser(script)), scene)


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"max_upload_bytes": 20_000}, ("file_too_large", 1009)),
        ({"max_audio_seconds": 1}, ("audio_too_long", 1009)),
        ({"upload_idle_seconds": 1.0}, ("timeout", 1008)),
        ({"request_seconds": 0.1}, ("timeout", 1013)),
    ],
)
def test_limits_of_size_length_and_time(tmp_path: Path, given: dict[str, Any], code: tuple[str, int]) -> None:
    async def scene(address: str) -> None:
        async with joined(address) as client:
            await client.send(SOUND * 2)
            if "upload_idle_seconds" not in given:
                await say(client, **END)
            assert await refused(client) == code

    app = app_in(tmp_path, FakeRecogniser([3600.0]), **given)
    play(app, scene)


def test_a_service_with_too_much_to_do_says_so(tmp_path: Path) -> None:
    async def scene(address: str) -> None:
        async with joined(address) as client:
            await client.send(SOUND)
            await say(client, **END)
            assert await refused(client) == ("rate_limit_exceeded", 1013)

    play(app_in(tmp_path, FakeRecogniser([Overloaded(7.0)])), scene)


def test_a_fault_of_ours_is_told_without_its_secrets(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene(address: str) -> None:
        async with joined(address) as client:
            told = await recognise(client, [SOUND])
            assert told["code"] == "internal_error"
            assert "secret" not in json.dumps(told)

    play(app_in(tmp_path, FakeRecogniser([RuntimeError("secret")])), scene)
    assert "a fault on a websocket" in caplog.text


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(recording: Recording) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Recording, "_write", full)

    async def scene(address: str) -> None:
        async with joined(address) as client:
            await client.send(SOUND)
            await say(client, **END)
            assert await refused(client) == ("insufficient_resources", 1013)

    play(app_in(tmp_path), scene)


@pytest.mark.parametrize("how", ["close", "abort", "half"])
@pytest.mark.parametrize("when", ["before", "during"])
def test_a_client_that_goes_away_leaves_nothing_running(tmp_path: Path, how: str, when: str) -> None:
    recogniser = FakeRecogniser([3600.0])
    app = app_in(tmp_path, recogniser)

    async def scene(address: str) -> None:
        client = await joined(address)
        await say(client, wav_name="talk")
        await client.send(SOUND * 20)
        await asyncio.to_thread(until, lambda: uploads_of(app))
        if when == "during":
            await say(client, **END)
            await asyncio.to_thread(until, lambda: recogniser.running)
        if how == "close":
            await client.close()
        elif how == "abort":
            client.transport.abort()
        else:
            client.transport.get_extra_info("socket").shutdown(socket.SHUT_WR)
        await asyncio.to_thread(until, lambda: not recogniser.running and not uploads_of(app))
        client.transport.abort()
        await client.wait_closed()

    play(app, scene)
    assert recogniser.cancelled == (when == "during")


def test_a_model_without_hot_words_ignores_them_as_funasr_does(
    tmp_path: Path, recogniser: FakeRecogniser
) -> None:
    recogniser.becomes(has_hotwords=False)

    async def scene(address: str) -> None:
        async with joined(address) as client:
            told = await recognise(client, [SOUND], hotwords="开会")
            assert told["text"] == "今天开会"
            assert "no hot words" in told["notes"][0]

    play(app_in(tmp_path, recogniser), scene)
    assert recogniser.requests[0][0].hotwords is None


def test_a_service_with_keys_wants_one(tmp_path: Path, recogniser: FakeRecogniser) -> None:
    async def scene(address: str) -> None:
        with pytest.raises(InvalidStatus):
            await joined(address)
        headers = {"Authorization": "Bearer my-own-key"}
        async with connect(address, additional_headers=headers) as client:
            assert (await recognise(client, [SOUND]))["text"] == "今天开会"

    play(app_in(tmp_path, recogniser, api_keys="my-own-key"), scene)


def test_random_conversations_never_break_the_service(
    tmp_path: Path, recogniser: FakeRecogniser, caplog: pytest.LogCaptureFixture
) -> None:
    seed = random.Random(8)
    texts = [
        json.dumps(END),
        json.dumps({"mode": "offline", "wav_format": "pcm"}),
        json.dumps({"wav_format": "mp3"}),
        '{"audio_fs": 1e999}',
        '{"wav_name": "\\ud800"}',
        '{"hotwords": "{\\"a\\": null}"}',
        "",
        "{}",
        "\x00",
    ]

    async def talk(address: str) -> None:
        async with joined(address) as client:
            try:
                for _ in range(seed.randrange(1, 8)):
                    binary = seed.random() < 0.4
                    await client.send(
                        seed.randbytes(seed.randrange(0, 3000)) if binary else seed.choice(texts)
                    )
                if seed.random() < 0.5:
                    client.transport.abort()
                    return
                await say(client, mode="online")  # so that each ends with an error, if not before
                while (await hear(client))["is_final"]:
                    pass
            except ConnectionClosed:
                return

    async def scene(address: str) -> None:
        for _ in range(15):
            await asyncio.gather(*(talk(address) for _ in range(10)))
        async with joined(address) as client:
            assert (await recognise(client, [SOUND]))["text"] == "今天开会"

    play(app_in(tmp_path, recogniser), scene)
    assert "fault" not in caplog.text

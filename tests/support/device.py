"""The device that the GPU tests run on, and models opened on it: a CUDA device, or the CPU where that is rehearsed.

`ASR_GPU_REHEARSAL=cpu` rehearses: every path that does not need CUDA itself runs with the CPU as the device.
"""

from __future__ import annotations

import importlib.util
import os
import wave
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.asr.engine import EngineOptions
from app.asr.hotwords import HotwordSet
from app.asr.memory import HOST_RESERVE_BYTES, Budget, calibrate, probe_with
from app.asr.opening import Opened, open_model
from app.asr.pack import Pack
from app.asr.running import Station
from app.asr.selfcheck import golden_samples, self_check
from app.asr.transcribe import Transcriber

# Read once, when the tests are collected: each test's environment is without such settings.
REHEARSED = os.environ.get("ASR_GPU_REHEARSAL") == "cpu"
# What chose the card, for the programs that the tests start.
CHOSEN = {name: value for name, value in os.environ.items() if name == "CUDA_VISIBLE_DEVICES"}
ROOT = Path(__file__).resolve().parents[2]
SAMPLE_RATE = 16_000


@dataclass(frozen=True)
class Device:
    """`name` as options take it; without a device `problem` says why."""

    name: str
    problem: str = ""

    @property
    def cuda(self) -> bool:
        return self.name.startswith("cuda")


def find_device() -> Device:
    """The first CUDA device that torch can use, or the CPU in a rehearsal."""
    if REHEARSED:
        return Device("cpu")
    if importlib.util.find_spec("torch") is None:
        return Device("", "torch is not installed in this environment")
    from app.asr.torch_backend import cuda_report

    report = cuda_report()
    for card in report.cards:
        if card.runnable:
            return Device(f"cuda:{card.index}")
    return Device("", f"{report.problem or 'torch holds no code for the cards of this host'}. {report.fix}")


def backend_on(device: Device, pack: Pack, precision: str, *, hotwords: bool = True) -> Any:
    """The torch backend itself, in any of its precisions."""
    from app.asr.torch_backend import TorchBackend

    return TorchBackend(pack, device=device.name, precision=precision, threads=1, hotwords=hotwords)


def opened_on(device: Device, directory: Path, precision: str, **options: Any) -> Opened:
    """A model as `transcribe` opens it. In a rehearsal the torch backend stands where a GPU's would, on the CPU."""
    if device.cuda:
        wanted = EngineOptions(model=str(directory), device=device.name, precision=precision, **options)
        return open_model(wanted)
    pack = Pack.open(directory)
    backend = backend_on(device, pack, precision)
    verdict = self_check(backend, pack)
    measure = probe_with(backend, backend.memory, backend.prepare(golden_samples(pack)))
    cost = calibrate(measure, one_at_a_time=False, with_hotwords=pack.manifest.architecture.has_hotwords)
    budget = Budget(backend.memory, limit=None, working=None, reserve=HOST_RESERVE_BYTES)
    has_hotwords = pack.manifest.architecture.has_hotwords
    return Opened(pack.name, pack.vocabulary, has_hotwords, Station(backend, budget, cost), verdict)


def transcriber_on(device: Device, directory: Path, precision: str, **options: Any) -> Transcriber:
    """The whole pipeline on the device."""
    opened = opened_on(device, directory, precision, **options)
    return Transcriber(opened, EngineOptions(model=str(directory), device=device.name, **options))


def text_of(transcriber: Transcriber, path: Path, hotwords: HotwordSet | None = None) -> list[str]:
    """What a file says, word by word."""
    utterances = transcriber.transcribe(path, hotwords)
    return [word.text for utterance in utterances for word in utterance.words]


def some_words(pack: Pack, count: int) -> HotwordSet:
    """So many different hot words of two or three characters of the model's vocabulary."""
    plain = [index for index, token in enumerate(_tokens(pack)) if _is_character(token)]
    chooser = np.random.default_rng(count)
    chosen: dict[tuple[int, ...], None] = {}
    while len(chosen) < count:
        chosen[tuple(int(i) for i in chooser.choice(plain, chooser.integers(2, 4)))] = None
    ids = tuple(chosen)
    return HotwordSet(ids=ids, used=tuple(pack.vocabulary.decode(word) for word in ids), unusable=())


def _tokens(pack: Pack) -> list[str]:
    import json

    tokens: list[str] = json.loads(pack.path("tokens.json").read_text(encoding="utf-8"))
    return tokens


def _is_character(token: str) -> bool:
    return len(token) == 1 and "\u4e00" <= token <= "\u9fff"


def differing(found: Iterable[str], wanted: Iterable[str]) -> float:
    """Share of words that are not the same, by edit distance."""
    from difflib import SequenceMatcher

    mine, theirs = list(found), list(wanted)
    same = sum(
        block.size for block in SequenceMatcher(None, mine, theirs, autojunk=False).get_matching_blocks()
    )
    return 1.0 - same / max(1, len(theirs), len(mine))


def write_speech(path: Path, speech: NDArray[np.float32], seconds: float) -> Path:
    """A WAV file of that length: the speech over and over, with short gaps. Written piece by piece."""
    tile = (np.clip(np.concatenate([speech, np.zeros(SAMPLE_RATE // 2, np.float32)]), -1, 1) * 32767).astype(
        np.int16
    )
    left = round(seconds * SAMPLE_RATE)
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(SAMPLE_RATE)
        while left > 0:
            sound.writeframes(tile[:left].tobytes())
            left -= min(left, len(tile))
    return path

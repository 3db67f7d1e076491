"""Runs FunASR's AutoModel on one file and tells how long it took and what it held of the GPU.

    python -m scripts.bench.run_automodel MODEL_DIR AUDIO.wav DEVICE HOTWORDS.txt [GIB]

The file is cut by the spans that lie beside it (AUDIO.json, milliseconds): they stand for a VAD model whose weights
would have to be fetched, and cost nothing. What follows, sorting and batching with batch_size_s=300, is AutoModel's
own code (`inference_with_vad`). GIB makes the card look smaller (small_card.py). HOTWORDS.txt may be empty: no
hot words then.
"""

from __future__ import annotations

import json
import sys
import time
import wave
from pathlib import Path
from typing import Any

import numpy as np

from scripts.bench.run_peer import tell
from scripts.bench.small_card import GIB, shrink

WARM_UP_SECONDS = 2


def load(directory: str, device: str) -> Any:
    from funasr import AutoModel

    return AutoModel(
        model=directory, disable_update=True, device=device, disable_pbar=True, log_level="ERROR"
    )


def give_spans(model: Any, spans: list[list[int]]) -> None:
    """Puts spans in the place of what a VAD model would find."""
    recognise = model.inference
    stand_in = object()

    def inference(input: Any, *, model: Any = None, **options: Any) -> Any:  # noqa: A002 - FunASR's name for it
        if model is stand_in:
            return [{"key": "file", "value": [list(span) for span in spans]}]
        return recognise(input, model=model, **options)

    model.vad_model, model.vad_kwargs, model.inference = stand_in, {}, inference


def read(path: Path) -> Any:
    """A 16 kHz mono file as float32, (samples,)."""
    with wave.open(str(path)) as sound:
        return np.frombuffer(sound.readframes(sound.getnframes()), np.int16).astype(np.float32) / 32768


def main(arguments: list[str]) -> int:
    directory, audio, device, words_file, *card = arguments
    if card:
        shrink(int(float(card[0]) * GIB))
    import torch

    cuda = device.startswith("cuda")
    if cuda and card:
        torch.cuda.mem_get_info(device)  # from here on the card is small
    started = time.perf_counter()
    model = load(directory, device)
    sound = read(Path(audio))
    words = Path(words_file).read_text(encoding="utf-8").strip() or None
    model.generate(input=sound[: WARM_UP_SECONDS * 16_000], hotword=words)
    held = torch.cuda.memory_allocated(device) if cuda else None
    tell("loaded", seconds=time.perf_counter() - started)
    give_spans(model, json.loads(Path(audio).with_suffix(".json").read_text(encoding="utf-8")))
    started = time.perf_counter()
    results = model.inference_with_vad(sound, hotword=words, batch_size_s=300)
    if cuda:
        torch.cuda.synchronize(device)
    seconds = time.perf_counter() - started
    found = sum(len(result.get("timestamp", ())) for result in results)
    peak = torch.cuda.max_memory_allocated(device) if cuda else None
    tell("done", seconds=seconds, words=found, held_bytes=held, peak_bytes=peak)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

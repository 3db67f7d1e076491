"""Runs a peer on one file, as its README says, and tells when it was loaded and done. Runs inside .venv-bench.

    python run_peer.py automodel|onnx-int8|onnx-fp32 MODEL_DIR AUDIO.wav THREADS HOTWORDS PIECE_SECONDS
    python run_peer.py export MODEL_DIR OUTPUT_DIR

What it tells are lines that begin with BENCH on standard output; the libraries print others. PIECE_SECONDS
above 0 feeds the file in pieces of that length, for files that do not fit as one.
"""

from __future__ import annotations

import json
import sys
import tempfile
import wave
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

Recogniser = Callable[[Any], int]


def tell(event: str, **facts: Any) -> None:
    print("BENCH " + json.dumps({"event": event, **facts}), flush=True)


def load_automodel(directory: str, threads: int) -> Any:
    from funasr import AutoModel

    return AutoModel(
        model=directory, disable_update=True, device="cpu", ncpu=threads, disable_pbar=True, log_level="ERROR"
    )


def open_automodel(directory: str, threads: int, hotwords: str) -> Recogniser:
    model = load_automodel(directory, threads)

    def recognise(sound: Any) -> int:
        return sum(
            len(result.get("timestamp", ())) for result in model.generate(input=sound, hotword=hotwords)
        )

    return recognise


def open_onnx(directory: str, threads: int, hotwords: str, quantize: bool) -> Recogniser:
    from funasr_onnx import SeacoParaformer

    model = SeacoParaformer(directory, batch_size=1, quantize=quantize, intra_op_num_threads=threads)

    def recognise(sound: Any) -> int:
        return sum(len(result.get("timestamp", ())) for result in model(sound, hotwords))

    return recognise


def pieces(path: str, seconds: int) -> Iterator[Any]:
    """Give the file's name for 0 seconds, else float32 arrays of that length."""
    if not seconds:
        yield path
        return
    with wave.open(path) as sound:
        while block := sound.readframes(seconds * sound.getframerate()):
            yield np.frombuffer(block, np.int16).astype(np.float32) / 32768


def warm_up(recognise: Recogniser, path: str) -> None:
    """Recognise one second of the file, so that what libraries do at their first call counts as loading."""
    with wave.open(path) as sound, tempfile.NamedTemporaryFile(suffix=".wav") as beginning:
        with wave.open(beginning.name, "wb") as short:
            short.setparams(sound.getparams())
            short.writeframes(sound.readframes(sound.getframerate()))
        recognise(beginning.name)


def export(directory: str, output: str) -> None:
    """Write FunASR's own ONNX graphs, fp32 and int8."""
    import torch

    model = load_automodel(directory, 1)
    original = torch.onnx.export

    def with_old_exporter(*arguments: Any, **options: Any) -> Any:
        # FunASR's graphs fail in the exporter that torch 2.13 takes by default.
        return original(*arguments, **{**options, "dynamo": False})

    torch.onnx.export = with_old_exporter
    model.export(type="onnx", quantize=True, output_dir=output)
    tell("done")


def main(arguments: list[str]) -> int:
    verb, *rest = arguments
    if verb == "export":
        export(*rest)
        return 0
    directory, audio, threads, hotwords, piece_seconds = rest
    if verb == "automodel":
        recognise = open_automodel(directory, int(threads), hotwords)
    else:
        recognise = open_onnx(directory, int(threads), hotwords, quantize=verb == "onnx-int8")
    warm_up(recognise, audio)
    tell("loaded")
    words = 0
    for number, piece in enumerate(pieces(audio, int(piece_seconds))):
        words += recognise(piece)
        if not number:
            tell("first")
    tell("done", words=words)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Runs a peer on one file, as its README says, and tells when it was loaded and done. Runs inside .venv-bench.

    python run_peer.py PEER MODEL_DIR AUDIO.wav THREADS HOTWORDS PIECE_SECONDS
    python run_peer.py export|export-sherpa MODEL_DIR OUTPUT_DIR

PEER is automodel, onnx-int8, onnx-fp32, sherpa-int8 or sherpa-fp32. What it tells are lines that begin with BENCH on
standard output; the libraries print others. PIECE_SECONDS above 0 feeds the file in pieces of that length, for files
that do not fit as one. sherpa-onnx knows no hot words for this kind of model: it gets the network without that part,
and leaves HOTWORDS alone.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Recogniser = Callable[[Any], int]
SAMPLE_RATE = 16_000  # of all files here
WHOLE_SECONDS = 86_400
# SeACo-Paraformer without its hot words is this class, with the same weights.
_CLASSES = ("SeacoParaformer", "BiCifParaformer")


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


def open_sherpa(directory: str, threads: int, quantize: bool) -> Recogniser:
    from sherpa_onnx import OfflineRecognizer

    graph = f"{directory}/{'model_quant' if quantize else 'model'}.onnx"
    model = OfflineRecognizer.from_paraformer(graph, f"{directory}/tokens.txt", num_threads=threads)

    def recognise(sound: Any) -> int:
        samples = next(pieces(sound, WHOLE_SECONDS)) if isinstance(sound, str) else sound
        stream = model.create_stream()
        stream.accept_waveform(SAMPLE_RATE, samples)
        model.decode_stream(stream)
        return len(stream.result.tokens)

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


def export_for_sherpa(directory: str, output: str) -> None:
    """Write graphs without hot words, with the tokens and the metadata that sherpa-onnx reads (its
    scripts/paraformer/add-metadata.py names them)."""
    import onnx

    made, source = Path(output), Path(directory)
    tokens = json.loads((source / "tokens.json").read_text(encoding="utf-8"))
    rows = re.findall(r"\[([^\]]*)\]", (source / "am.mvn").read_text(encoding="utf-8"))
    means, scales = (",".join(row.split()) for row in rows if len(row.split()) > 1)
    with tempfile.TemporaryDirectory() as folder:
        for file in source.iterdir():
            (Path(folder) / file.name).symlink_to(file.resolve())
        config = Path(folder) / "config.yaml"
        text = config.read_text(encoding="utf-8").replace(f"model: {_CLASSES[0]}", f"model: {_CLASSES[1]}")
        config.unlink()
        config.write_text(text, encoding="utf-8")
        export(folder, output)
    facts: dict[str, Any] = {"vocab_size": len(tokens), "lfr_window_size": 7, "lfr_window_shift": 6}
    facts |= {"neg_mean": means, "inv_stddev": scales, "model_type": "paraformer", "version": 1}
    for graph in ("model.onnx", "model_quant.onnx"):
        model = onnx.load(made / graph)
        del model.metadata_props[:]
        for name, value in facts.items():
            model.metadata_props.add(key=name, value=str(value))
        onnx.save(model, made / graph)
    listed = "".join(f"{token} {number}\n" for number, token in enumerate(tokens))
    (made / "tokens.txt").write_text(listed, encoding="utf-8")


EXPORTS: dict[str, Callable[[str, str], None]] = {"export": export, "export-sherpa": export_for_sherpa}


def main(arguments: list[str]) -> int:
    verb, *rest = arguments
    if verb in EXPORTS:
        EXPORTS[verb](*rest)
        return 0
    directory, audio, threads, hotwords, piece_seconds = rest
    if verb == "automodel":
        recognise = open_automodel(directory, int(threads), hotwords)
    elif verb.startswith("sherpa"):
        recognise = open_sherpa(directory, int(threads), quantize=verb == "sherpa-int8")
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

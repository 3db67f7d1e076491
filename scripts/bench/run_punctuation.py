"""Runs one punctuation model on a text, and tells what that cost: time, memory, and which mark each word got.

    python -m scripts.bench.run_punctuation automodel MODEL_DIR TEXT MARKS.json
    python -c "$OURS" PACK TEXT MARKS.json pread|mapped

FunASR's AutoModel runs in this module; OURS is the same for the product, as a program of its own. Memory is told
in MiB: of this process alone (anonymous), and of files that are mapped, which the kernel may take back.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from scripts.bench.run_peer import load_automodel, tell

OURS = """
import json, sys, time
from pathlib import Path
import numpy as np
from app.asr.host import keep_heap_small
from app.asr.marks import MarkStream, split
from app.asr.tokens import Word
from scripts.bench.run_punctuation import memory, tell

pack, text, target, table = sys.argv[1:]
keep_heap_small()
tell("started", **memory())
started, cpu = time.perf_counter(), time.process_time()
from app.asr.punctuation import Punctuation
model = Punctuation.open(Path(pack))
tell("loaded", seconds=time.perf_counter() - started, cpu=time.process_time() - cpu, **memory())
if table == "mapped":
    read = model._table
    shape = (len(read._keys), read._width)
    rows = np.memmap(read._path, read._type, "r", read._begin["rows"], shape)
    model.rows = lambda tokens: rows[[read._row(token) for token in tokens]].astype(np.float32)
words = [Word(token, 0.0, 0.0) for token in split(Path(text).read_text(encoding="utf-8"))]
stream, marks = MarkStream(model), []
started, cpu = time.perf_counter(), time.process_time()
for word in words:
    marks += [given.mark for given in stream.add([word])]
marks += [given.mark for given in stream.flush()]
tell("done", seconds=time.perf_counter() - started, cpu=time.process_time() - cpu, words=len(words), **memory())
Path(target).write_text(json.dumps(marks), encoding="utf-8")
"""
_NAMES = {"VmRSS": "rss", "RssAnon": "anonymous", "RssFile": "mapped"}


def memory() -> dict[str, float]:
    """What this process holds now, MiB."""
    found = {}
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name in _NAMES:
            found[_NAMES[name]] = int(value.split()[0]) / 1024
    return found


def shown(model: Any, text: str, array: Any) -> list[str]:
    """The mark behind each token as AutoModel writes it behind words that it leaves as they are."""
    from funasr.auto.auto_model import _get_punc_tokens, _punc_symbol

    tokens = _get_punc_tokens(text, array, model)
    return [_punc_symbol(number, token, model) for number, token in zip(array, tokens, strict=True)]


def main(arguments: list[str]) -> int:
    _, directory, source, target = arguments
    tell("started", **memory())
    started, cpu = time.perf_counter(), time.process_time()
    model = load_automodel(directory, threads=1)
    tell("loaded", seconds=time.perf_counter() - started, cpu=time.process_time() - cpu, **memory())
    text = Path(source).read_text(encoding="utf-8").strip()
    started, cpu = time.perf_counter(), time.process_time()
    [found] = model.generate(input=text)
    spent = {"seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu}
    tell("done", **spent, words=len(found["punc_array"]), **memory())
    Path(target).write_text(json.dumps(shown(model.model, text, found["punc_array"])), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

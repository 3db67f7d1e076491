"""The worker process: it owns the model, takes batches of segments, and is expendable.

`python -m app.service.worker_main FD OPTIONS`: FD is its end of a socket pair, OPTIONS the engine's as JSON. It ends
when told to, when the web process is gone, or when its device is lost. Nothing is kept here that would be missed.
"""

from __future__ import annotations

import json
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.asr.backend import EncodedHotwords
from app.asr.engine import EngineOptions
from app.asr.errors import AsrError, DeviceLostError
from app.asr.host import keep_heap_small
from app.asr.opening import Opened, open_model, open_next
from app.asr.pack import SEG_DICT, TOKENS
from app.asr.running import BatchRunner, Station
from app.service.frames import (
    CANNOT_START,
    DEVICE_LOST,
    STOPPED,
    Channel,
    ChannelClosed,
    Frame,
    results_frame,
    segments_of,
)

# The kernel, when it must kill, takes this process and not the one that holds the requests.
OOM_SCORE = 800
# Hot-word lists kept encoded, and their words in all: a word takes 24 KiB of the full model on a CPU.
_ENCODED_LISTS, _ENCODED_WORDS = 8, 1500


@dataclass(frozen=True)
class _Work:
    """A batch with its features made, or why they could not be."""

    number: int
    prepared: list[NDArray[np.float32]]
    hotwords: tuple[tuple[int, ...], ...]
    fault: Exception | None = None


class _Engine:
    """The model, its runner, and what they tell the web process."""

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self._opened: Opened = open_model(options)
        self._runner = BatchRunner(self._opened.station, batch_size=options.batch_size, fallback=self._go_on)
        self._encoded: dict[tuple[tuple[int, ...], ...], EncodedHotwords] = {}

    def _go_on(self, error: AsrError) -> Station:
        self._opened = open_next(self._opened, self._options, error)
        self._encoded.clear()
        return self._opened.station

    def prepare(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._runner.backend.prepare(samples)

    def run(self, work: _Work) -> Frame:
        """Recognises a batch. Raises AsrError."""
        if work.fault is not None:
            raise work.fault
        started = time.perf_counter()
        results = self._runner.run(work.prepared, self._words(work.hotwords))
        more: dict[str, Any] = {
            "seconds": time.perf_counter() - started,
            "statistics": self.statistics(),
        }
        if self._opened.directory is None:
            # A vocabulary that grows with what is said: ids mean nothing elsewhere, so the words go along.
            tokens = self._opened.vocabulary.tokens
            more["tokens"] = [[tokens[int(token)] for token in result.ids] for result in results]
        return results_frame(work.number, results, more)

    def _words(self, ids: tuple[tuple[int, ...], ...]) -> EncodedHotwords | None:
        if not ids:
            return None
        if ids not in self._encoded:
            while len(self._encoded) >= _ENCODED_LISTS or (
                self._encoded and len(ids) + sum(map(len, self._encoded)) > _ENCODED_WORDS
            ):
                self._encoded.pop(next(iter(self._encoded)))
            self._encoded[ids] = self._runner.backend.encode_hotwords(ids)
        return self._encoded[ids]

    def description(self) -> dict[str, Any]:
        """What the web process wants to know of a model that is ready."""
        opened, backend = self._opened, self._runner.backend
        directory = opened.directory
        seg_dict = directory / SEG_DICT if directory is not None else None
        return {
            "kind": "ready",
            "model": opened.name,
            "device": backend.device,
            "precision": backend.precision,
            "reasons": opened.reasons,
            "self_check": opened.verdict.reason if opened.verdict is not None else "no clip to check with",
            "self_check_passed": opened.verdict.passed if opened.verdict is not None else None,
            "has_hotwords": opened.has_hotwords and self._options.hotwords,
            "most_rows": self._runner.most_rows,
            "statistics": self.statistics(),
            "longest_seconds": self._runner.longest_seconds(None),
            "tokens": str(directory / TOKENS) if directory is not None else None,
            "seg_dict": str(seg_dict) if seg_dict is not None and seg_dict.exists() else None,
        }

    def statistics(self) -> dict[str, Any]:
        """Counters since the start of this process."""
        found = self._runner.statistics
        backend = self._runner.backend
        on_cpu = backend.device == "cpu"
        return {
            "frames": found.frames,
            "padded_frames": found.padded_frames,
            "out_of_memory": found.out_of_memory,
            "fallbacks": found.fallbacks,
            "device": backend.device,
            "precision": backend.precision,
            "device_peak_bytes": None if on_cpu else backend.memory.peak(),
            "device_budget_bytes": None if on_cpu else found.budget_bytes,
            "device_predicted_bytes": None if on_cpu else found.predicted_bytes,
        }


def main(arguments: Sequence[str]) -> int:
    """Run until told to stop; the exit code says why it ended."""
    keep_heap_small()
    _offer_to_the_kernel()
    channel = Channel(socket.socket(fileno=int(arguments[0])))
    options = EngineOptions(**json.loads(arguments[1]))
    try:
        engine = _Engine(options)
        channel.send(Frame(engine.description()))
        return _serve(channel, engine)
    except AsrError as error:
        channel.send(Frame({"kind": "cannot start", **_told(error)}))
        return CANNOT_START
    except ChannelClosed:
        return STOPPED


def _serve(channel: Channel, engine: _Engine) -> int:
    waiting: queue.Queue[_Work | None] = queue.Queue(maxsize=1)
    threading.Thread(target=_read, args=(channel, engine, waiting), name="worker-read", daemon=True).start()
    while (work := waiting.get()) is not None:
        try:
            channel.send(engine.run(work))
        except DeviceLostError as error:
            channel.send(Frame({"kind": "failed", "id": work.number, "lost": True, **_told(error)}))
            return DEVICE_LOST
        except AsrError as error:
            channel.send(Frame({"kind": "failed", "id": work.number, "lost": False, **_told(error)}))
    return STOPPED


def _read(channel: Channel, engine: _Engine, waiting: queue.Queue[_Work | None]) -> None:
    """Runs in a thread of its own: features of the next batch are made while the network works on this one."""
    try:
        while (frame := channel.receive()).kind == "batch":
            number = int(frame.header["id"])
            words = tuple(tuple(word) for word in frame.header["hotwords"])
            try:
                prepared = [engine.prepare(segment) for segment in segments_of(frame)]
            except Exception as fault:  # noqa: BLE001 - raised again where a batch may fail, or end the process
                waiting.put(_Work(number, [], words, fault))
            else:
                waiting.put(_Work(number, prepared, words))
        waiting.put(None)
    except ChannelClosed:
        # The web process is gone: nobody waits for what is being computed.
        os._exit(STOPPED)


def _told(error: AsrError) -> dict[str, str]:
    return {"error": type(error).__name__, "problem": error.problem, "fix": error.fix}


def _offer_to_the_kernel() -> None:
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write(str(OOM_SCORE))
    except OSError:
        return  # not Linux, or not allowed: then the kernel judges by size alone


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

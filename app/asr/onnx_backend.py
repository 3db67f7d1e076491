"""The CPU backend: onnxruntime runs a pack's graphs, each segment by itself, several side by side.

Here: sessions, threads and memory settings, and the order of the stages. The graphs are made by onnx_export.py.
A stage is loaded when it is first needed: without hot words their part of the model never is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from app.asr import pack
from app.asr.audio import Frontend
from app.asr.backend import HOTWORD_FILTER, EncodedHotwords, filtered_rows
from app.asr.errors import DeviceMemoryError, PackError, ResourceError
from app.asr.host import helpers_give_way
from app.asr.joining import Recognition
from app.asr.memory import DeviceMemory, HostMemory
from app.asr.timing import FRAME_SECONDS, token_times
from app.asr.tokens import Vocabulary

_SPECIAL_IDS = (Vocabulary.blank_id, Vocabulary.sos_id, Vocabulary.eos_id)
# Words whose embedding runs at once: bounds the memory of a list of 1000 words.
_HOTWORD_BATCH = 128
# Segments side by side at most, on however many processors: each takes memory of its own, and the threads of an
# operator use what is left of the processors.
MOST_AT_ONCE = 4


def open_session(path: Path, threads: int) -> ort.InferenceSession:
    """A graph, loaded to run on the CPU. Raises PackError when it cannot be."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that wait do not spin: decoding runs beside them, and on a busy two-core host spinning made the
    # same file take twice as long; on a quiet one it gained nothing.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Every segment has its own length: remembered allocation patterns would only pile up.
    options.enable_mem_pattern = False
    try:
        # Where several segments run side by side, the helpers of one would take the processors of the others.
        with helpers_give_way(threads - 1):
            return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a dozen unrelated classes
        raise PackError(
            f"{path} cannot be loaded ({_first_line(error)})",
            fix="Make the pack again with this version of the program.",
        ) from error


class OnnxBackend:
    """Runs an opened pack on the CPU. Use it from one thread.

    Args:
        model: the pack, already checked.
        threads: of one operator; the count of granted processors is the caller's to know.

    Raises:
        PackError: a graph cannot be loaded.
    """

    device = "cpu"
    pads = False  # dynamic int8 takes one range a tensor: in one batch segments would change each other

    def __init__(self, model: pack.Pack, *, threads: int) -> None:
        self._pack = model
        self._threads = threads
        self.most_rows = min(threads, MOST_AT_ONCE)
        self._lanes = ThreadPoolExecutor(self.most_rows, thread_name_prefix="asr-segment")
        self._shape = model.manifest.architecture
        # Half weights are cast when a graph is loaded, and everything is computed in float32.
        self.precision = "fp16 storage" if model.precision == "fp16" else model.precision
        self._frontend = Frontend(model.frontend)
        self._encoder = self._session(pack.ENCODER)
        self._decoder = self._session(pack.DECODER)
        self.memory: DeviceMemory = HostMemory()

    @cached_property
    def _timestamps(self) -> ort.InferenceSession:
        return self._session(pack.TIMESTAMPS)

    @cached_property
    def _hotword_encoder(self) -> ort.InferenceSession:
        return self._session(pack.HOTWORD_ENCODER)

    @cached_property
    def _bias_decoder(self) -> ort.InferenceSession:
        return self._session(pack.BIAS_DECODER)

    @cached_property
    def _bias_head(self) -> ort.InferenceSession:
        return self._session(pack.BIAS_HEAD)

    def _session(self, name: str) -> ort.InferenceSession:
        return open_session(self._pack.path(name), self._threads)

    def prepare(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """16 kHz mono samples (n,) -> features (frames, width)."""
        return self._frontend.features(samples)

    def release(self) -> None:
        """Nothing is kept for reuse."""

    def encode_hotwords(self, words: Sequence[Sequence[int]]) -> EncodedHotwords:
        """Token ids of each word -> rows (H + 1, layers, 2 D), the keys and values of each layer, the no-bias row last.

        Raises:
            PackError: the model has no hot-word branch.
        """
        # Loaded now, and not with the first batch: what they take is then seen when that batch is planned.
        _ = self._bias_decoder, self._bias_head
        listed = [list(word) for word in words] + [[Vocabulary.sos_id]]
        parts = []
        for first in range(0, len(listed), _HOTWORD_BATCH):
            batch = listed[first : first + _HOTWORD_BATCH]
            lengths = np.array([len(word) for word in batch], dtype=np.int64)
            ids = np.zeros((len(batch), int(lengths.max())), dtype=np.int64)
            for index, word in enumerate(batch):
                ids[index, : len(word)] = word
            parts.append(run_session(self._hotword_encoder, {"ids": ids, "lengths": lengths})[0])
        return EncodedHotwords(np.concatenate(parts), words, self)

    def recognise(
        self, batch: Sequence[NDArray[np.float32]], hotwords: EncodedHotwords | None
    ) -> list[Recognition]:
        """Features (frames, width) of segments -> for each its tokens and their times, up to `most_rows` side by side.

        Raises:
            DeviceMemoryError: a segment does not fit into memory.
        """
        if len(batch) == 1:
            return [self._one(batch[0], hotwords)]
        if self._shape.predictor.upsample:
            _ = self._timestamps  # loaded here once, and not by each
        running = [self._lanes.submit(self._one, features, hotwords) for features in batch]
        wait(running)  # also those beside one that failed: what they hold must be free before the next try
        return [segment.result() for segment in running]

    def _one(self, features: NDArray[np.float32], hotwords: EncodedHotwords | None) -> Recognition:
        if len(features) == 0:
            return Recognition.nothing()
        hidden, acoustic, alphas = run_session(self._encoder, {"features": features[None]})
        if acoustic.shape[1] == 0:
            return Recognition.nothing()
        ids, state = run_session(self._decoder, {"hidden": hidden, "acoustic": acoustic})
        chosen = ids[0]
        if hotwords is not None:
            biased = self._biased_ids(acoustic, state, hotwords.rows)
            chosen = np.where(biased == self._shape.no_bias_id, chosen, biased)
        chosen = chosen[~np.isin(chosen, _SPECIAL_IDS)].astype(np.int32)
        starts, ends = self._times(hidden, alphas, len(chosen))
        return Recognition(ids=chosen, starts=starts, ends=ends)

    def _biased_ids(
        self, acoustic: NDArray[np.float32], state: NDArray[np.float32], memory: NDArray[np.float32]
    ) -> NDArray[np.int64]:
        if len(memory) > HOTWORD_FILTER:
            _, scores = run_session(self._bias_decoder, {"streams": state, "memory": memory})
            memory = memory[filtered_rows(scores[0])]
        # Both sides at once: the weights, more than a cache holds, are fetched once.
        streams = np.concatenate([acoustic, state])
        hidden, _ = run_session(self._bias_decoder, {"streams": streams, "memory": memory})
        sides = {"acoustic_side": hidden[:1], "decoder_side": hidden[1:]}
        biased: NDArray[np.int64] = run_session(self._bias_head, sides)[0][0]
        return biased

    def _times(
        self, hidden: NDArray[np.float32], alphas: NDArray[np.float32], tokens: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if not self._shape.predictor.upsample:
            return token_times(alphas[0], tokens, step_seconds=FRAME_SECONDS)
        fine = run_session(self._timestamps, {"hidden": hidden})[0][0]
        return token_times(fine, tokens, step_seconds=FRAME_SECONDS / self._shape.predictor.upsample_times)


def run_session(session: ort.InferenceSession, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """The outputs of a graph. Raises DeviceMemoryError, or ResourceError when it fails for another reason."""
    try:
        outputs: list[NDArray[Any]] = session.run(None, dict(inputs))
    except Exception as error:  # onnxruntime raises a dozen unrelated classes
        shapes = ", ".join(f"{name} {value.shape}" for name, value in inputs.items())
        said = _first_line(error)
        kind = DeviceMemoryError if _is_memory(error, said) else ResourceError
        raise kind(
            f"onnxruntime could not run a stage on {shapes} ({said})",
            fix="Use shorter segments (--segment-seconds 10), or give the process more memory.",
        ) from error
    return outputs


def _is_memory(error: Exception, said: str) -> bool:
    words = ("llocat", "bad_alloc")  # "Failed to allocate memory ...", "Allocation failed", "std::bad_alloc"
    return isinstance(error, MemoryError) or any(word in said for word in words)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]

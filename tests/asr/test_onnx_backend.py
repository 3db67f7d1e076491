"""The CPU backend on the shipped packs."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from app.asr.audio import AudioReader, Frontend
from app.asr.backend import HOTWORD_FILTER, EncodedHotwords, filtered_rows
from app.asr.catalogue import DEMO_PACKS
from app.asr.errors import AsrError, DeviceMemoryError, PackError, ResourceError
from app.asr.host import HELPER_NICENESS
from app.asr.joining import Recognition
from app.asr.onnx_backend import MOST_AT_ONCE, OnnxBackend, run_session
from app.asr.pack import ENCODER, GOLDEN, Pack


def _features(pack: Pack) -> NDArray[np.float32]:
    with AudioReader(pack.path(GOLDEN)) as reader:
        samples = np.concatenate(list(reader.blocks()))
    return Frontend(pack.frontend).features(samples)


@pytest.fixture(scope="module", params=["int8", "fp16"])
def backend(request: pytest.FixtureRequest) -> OnnxBackend:
    return OnnxBackend(Pack.open(DEMO_PACKS / request.param), threads=1)


@pytest.fixture(scope="module")
def features() -> NDArray[np.float32]:
    return _features(Pack.open(DEMO_PACKS / "int8"))


def test_golden_clip_gives_the_tokens_of_the_manifest(
    backend: OnnxBackend, features: NDArray[np.float32]
) -> None:
    golden = Pack.open(DEMO_PACKS / ("int8" if backend.precision == "int8" else "fp16")).manifest.golden
    [found] = backend.recognise([features], None)
    assert tuple(found.ids) == golden.tokens == golden.packed_tokens
    assert (np.diff(found.starts) > 0).all() and (found.ends > found.starts).all()
    assert found.ends[-1] <= len(features) * 0.06


def test_hot_words_are_loaded_when_first_used(features: NDArray[np.float32]) -> None:
    fresh = OnnxBackend(Pack.open(DEMO_PACKS / "int8"), threads=1)
    fresh.recognise([features], None)
    assert not {"_hotword_encoder", "_bias_decoder", "_bias_head"} & set(vars(fresh))
    fresh.recognise([features], fresh.encode_hotwords([[5, 6]]))
    assert {"_hotword_encoder", "_bias_decoder", "_bias_head"} <= set(vars(fresh))


def test_a_word_is_encoded_alike_in_any_company(backend: OnnxBackend) -> None:
    words = [[3 + i % 250, 4 + i % 200] + [7] * (i % 5) for i in range(300)]
    together = backend.encode_hotwords(words).rows
    assert together.shape[0] == 301
    for index in (0, 4, 127, 128, 299):
        np.testing.assert_allclose(
            together[index], backend.encode_hotwords([words[index]]).rows[0], atol=1e-5
        )


def test_nothing_to_hear_gives_nothing(backend: OnnxBackend) -> None:
    for frames in (0, 1, 3):
        [found] = backend.recognise([np.zeros((frames, 560), np.float32)], None)
        assert len(found.starts) == len(found.ends) == len(found.ids)
    [found] = backend.recognise([np.zeros((0, 560), np.float32)], None)
    assert len(found.ids) == 0


@pytest.mark.parametrize("words", [None, [[5, 6], [7]]])
def test_segments_side_by_side_are_what_they_are_alone(
    features: NDArray[np.float32], words: list[list[int]] | None
) -> None:
    pack = Pack.open(DEMO_PACKS / "int8")
    one, three = OnnxBackend(pack, threads=1), OnnxBackend(pack, threads=3)
    assert (one.most_rows, three.most_rows, OnnxBackend(pack, threads=64).most_rows) == (1, 3, MOST_AT_ONCE)
    batch = [
        features[first : first + length] for first in (0, 7, 20) for length in (0, 30, 61, len(features))
    ]
    alone = [one.recognise([part], one.encode_hotwords(words) if words else None)[0] for part in batch]
    for _ in range(3):
        together = three.recognise(batch, three.encode_hotwords(words) if words else None)
        for mine, theirs in zip(together, alone, strict=True):
            assert mine.ids.tolist() == theirs.ids.tolist()
            np.testing.assert_allclose(mine.starts, theirs.starts, atol=1e-4)
            np.testing.assert_allclose(mine.ends, theirs.ends, atol=1e-4)
    assert sum(len(found.ids) for found in alone) > 20


def test_helpers_of_one_segment_give_way_to_the_other_segments() -> None:
    before = set(os.listdir("/proc/self/task"))
    backend = OnnxBackend(Pack.open(DEMO_PACKS / "int8"), threads=3)
    helpers = set(os.listdir("/proc/self/task")) - before
    niceness = [os.getpriority(os.PRIO_PROCESS, int(helper)) for helper in helpers]
    nicer = min(19, os.getpriority(os.PRIO_PROCESS, 0) + HELPER_NICENESS)
    assert niceness == [nicer] * 4, "two of the encoder, two of the decoder"
    assert backend.most_rows == 3


def test_segments_beside_one_that_failed_are_done_when_the_failure_is_told(
    features: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next, smaller try would find their memory taken."""
    backend = OnnxBackend(Pack.open(DEMO_PACKS / "int8"), threads=2)
    begun, done = threading.Barrier(2), threading.Event()
    whole = backend._one

    def one(part: NDArray[np.float32], hotwords: EncodedHotwords | None) -> Recognition:
        begun.wait(10)
        if len(part) == 30:
            raise DeviceMemoryError("no room", fix="none")
        found = whole(part, hotwords)
        done.set()
        return found

    monkeypatch.setattr(backend, "_one", one)
    with pytest.raises(DeviceMemoryError):
        backend.recognise([features[:30], features], None)
    assert done.is_set()


@pytest.mark.parametrize(
    ("raised", "kind", "said"),
    [
        (
            RuntimeError("Failed to allocate memory for requested buffer\nat 0x1"),
            DeviceMemoryError,
            "buffer)",
        ),
        (MemoryError(), DeviceMemoryError, "MemoryError"),
        (RuntimeError("std::bad_alloc"), DeviceMemoryError, "bad_alloc"),
        (RuntimeError("Got invalid dimensions"), ResourceError, "invalid dimensions"),
    ],
)
def test_a_stage_that_fails_for_want_of_memory_can_be_tried_smaller(
    raised: Exception, kind: type[AsrError], said: str
) -> None:
    """What fails for another reason must not: it would fail for ever."""

    class FakeSession:
        def run(self, *_: object) -> None:
            raise raised

    session: Any = FakeSession()
    with pytest.raises(AsrError) as caught:
        run_session(session, {"features": np.zeros((1, 2, 560), np.float32)})
    assert type(caught.value) is kind
    assert "features (1, 2, 560)" in caught.value.problem and said in caught.value.problem


def test_filter_keeps_the_best_rows_and_the_no_bias_row() -> None:
    scores = np.random.default_rng(0).random(200).astype(np.float32)
    kept = filtered_rows(scores)
    assert len(kept) == HOTWORD_FILTER + 1
    assert kept[-1] == 199
    assert set(kept[:-1]) == set(np.argsort(scores)[-HOTWORD_FILTER:])


def test_a_graph_that_is_none_is_a_pack_error(tmp_path: Path) -> None:
    directory = Path(shutil.copytree(DEMO_PACKS / "int8", tmp_path / "pack"))
    pack = Pack.open(directory)
    (directory / ENCODER).write_bytes(b"not a graph")
    with pytest.raises(PackError, match=rf"{ENCODER} cannot be loaded"):
        OnnxBackend(pack, threads=1)

"""Above 50 hot words FunASR lets a batch's first segment choose which of them all segments may use; we do not."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the comparison needs torch")
pytest.importorskip("funasr", reason="the reference, FunASR, is not installed")

from app.asr.audio import Frontend
from app.asr.backend import HOTWORD_FILTER
from app.asr.catalogue import DEMO_PACKS
from app.asr.onnx_backend import OnnxBackend
from app.asr.pack import Pack
from tests.support.heldout import heldout
from tests.support.pair import Pair
from tests.support.reference import directory_from_pack


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(directory_from_pack(DEMO_PACKS / "fp16", tmp_path_factory.mktemp("demo") / "model"))


@pytest.fixture(scope="module")
def words(pair: Pair) -> list[str]:
    """The names of the rare set among enough others that the filter must choose."""
    names = sorted({utterance.name for utterance in heldout("rare") if utterance.name})
    others = [word for word in pair.words(400) if not any(name in word for name in names)]
    return names + others[: 200 - len(names)]


@pytest.mark.parametrize("hotwords", [0, 3, 200])
def test_the_demo_model_gives_funasr_tokens_and_times(pair: Pair, hotwords: int) -> None:
    found = [pair.compare(utterance.samples, hotwords) for utterance in heldout("rare")[:8]]
    assert sum(comparison.tokens for comparison in found) > 60
    assert all(comparison.differing == comparison.near_ties == 0 for comparison in found)
    assert max(comparison.worst_time for comparison in found) <= 0.06


def test_each_segment_chooses_its_own_hot_words(pair: Pair, words: list[str]) -> None:
    assert len(words) > 2 * HOTWORD_FILTER
    utterances = heldout("rare")[:16]
    clips = [utterance.samples for utterance in utterances]
    alone = [pair.reference.recognise([clip], words)[0][0] for clip in clips]
    batch = [ids for ids, _ in pair.reference.recognise(clips, words)]
    changed = sum(mine != theirs for mine, theirs in zip(alone, batch, strict=True))
    assert changed > 0, "FunASR no longer lets the first segment choose for all"

    pack = Pack.open(DEMO_PACKS / "fp16")
    backend, frontend = OnnxBackend(pack, threads=1), Frontend(pack.frontend)
    encoded = backend.encode_hotwords(pair.ids(words))
    ours = [
        found.ids.tolist()
        for found in backend.recognise([frontend.features(clip) for clip in clips], encoded)
    ]
    assert ours == alone

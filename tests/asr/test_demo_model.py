"""What the shipped demo model can do, on speech it never heard: error rates and names, in both shipped precisions.

The bounds are the product's promise; the measured figures stand in app/demo/README.md.
"""

from __future__ import annotations

import pytest

from app.asr.audio import Frontend
from app.asr.catalogue import DEMO_PACKS
from app.asr.onnx_backend import OnnxBackend
from app.asr.pack import Pack
from tests.support.heldout import Score, Utterance, heldout, score


class Model:
    def __init__(self, precision: str) -> None:
        self.pack = Pack.open(DEMO_PACKS / precision)
        self.backend = OnnxBackend(self.pack, threads=1)
        self.frontend = Frontend(self.pack.frontend)
        self.known: dict[tuple[str, str], Score] = {}

    def score(self, kind: str, hotwords: str) -> Score:
        if (kind, hotwords) not in self.known:
            self.known[kind, hotwords] = score(
                heldout(kind), lambda utterance: self._text(utterance, hotwords)
            )
        return self.known[kind, hotwords]

    def _text(self, utterance: Utterance, hotwords: str) -> str:
        names = sorted({other.name for other in heldout("rare") if other.name})
        words: list[str] = []
        if hotwords in ("own", "own and others"):
            words = [utterance.name] if utterance.name else []
        if hotwords in ("others", "own and others"):
            words += [name for name in names if name != utterance.name][:10]
        ids = [self.pack.vocabulary.encode_word(word) or [] for word in words]
        encoded = self.backend.encode_hotwords(ids) if ids else None
        [found] = self.backend.recognise([self.frontend.features(utterance.samples)], encoded)
        return self.pack.vocabulary.decode(int(token) for token in found.ids)


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    # fp16 is stored in half and computed in float32: the float reference.
    return {precision: Model(precision) for precision in ("fp16", "int8")}


@pytest.fixture(params=["fp16", "int8"])
def model(request: pytest.FixtureRequest, models: dict[str, Model]) -> Model:
    return models[request.param]


def test_error_rate_on_plain_sentences(model: Model) -> None:
    assert len(heldout("plain")) >= 100
    assert model.score("plain", "none").error_rate <= 0.02


def test_rare_names_come_right_with_hot_words_only(model: Model) -> None:
    assert model.score("rare", "none").recall <= 0.40
    assert model.score("rare", "own").recall >= 0.85
    assert model.score("rare", "own and others").recall >= 0.85


def test_foreign_hot_words_cost_next_to_nothing(model: Model) -> None:
    apart = model.score("plain", "others").error_rate - model.score("plain", "none").error_rate
    assert apart <= 0.003


def test_int8_is_as_good_as_float(models: dict[str, Model]) -> None:
    for kind, hotwords in (("plain", "none"), ("rare", "own"), ("rare", "own and others")):
        int8, exact = (models[precision].score(kind, hotwords) for precision in ("int8", "fp16"))
        assert abs(int8.error_rate - exact.error_rate) <= 0.003
        assert abs(int8.recall - exact.recall) <= 0.02

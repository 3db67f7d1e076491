"""Utterances: where they end with punctuation and without, and when they are given out."""

from __future__ import annotations

import numpy as np
import pytest

from app.asr.joining import TimedTokens
from app.asr.marks import Marker
from app.asr.transcript import Utterance
from app.asr.utterances import UtteranceBuilder
from app.asr.written_text import TextVocabulary
from tests.fakes.engine import FAKE_VOCABULARY
from tests.fakes.marker import FakeMarker


def tokens_of(text: str, *, gaps: dict[int, float] | None = None) -> TimedTokens:
    """Characters 0.25 s apart, with longer silences before some of them."""
    steps = np.full(len(text), 0.25)
    for place, silence in (gaps or {}).items():
        steps[place] += silence
    starts = np.cumsum(steps) - 0.25
    ids = np.array([FAKE_VOCABULARY.tokens.index(char) for char in text], np.int32)
    return TimedTokens(ids, starts, starts + 0.2)


def said(tokens: TimedTokens, punctuation: Marker | None) -> list[Utterance]:
    builder = UtteranceBuilder(FAKE_VOCABULARY, punctuation)
    return [*builder.add(tokens), *builder.flush()]


def test_without_punctuation_a_pause_ends_an_utterance() -> None:
    found = said(tokens_of("今天开会今天", gaps={4: 0.6}), None)
    assert [utterance.text for utterance in found] == ["今天开会", "今天"]


def test_with_punctuation_a_sentence_does_and_a_pause_does_not() -> None:
    found = said(tokens_of("今天开会今天张三", gaps={2: 0.6, 5: 1.5}), FakeMarker({"会": "。", "天": "，"}))
    assert [utterance.text for utterance in found] == ["今天，开会。", "今天，张三。"]
    assert found[0].start == 0.0 and found[0].end == pytest.approx(1.55)


def test_a_long_silence_ends_an_utterance_in_the_middle_of_a_sentence() -> None:
    found = said(tokens_of("今天开会", gaps={2: 2.0}), FakeMarker())
    assert [utterance.text for utterance in found] == ["今天", "开会。"]


def test_a_sentence_is_given_out_as_soon_as_it_is_settled() -> None:
    builder = UtteranceBuilder(FAKE_VOCABULARY, FakeMarker({"会": "。"}))
    assert list(builder.add(tokens_of("今天开会" + "今" * 16))) == []
    assert [utterance.text for utterance in builder.add(tokens_of("今"))] == ["今天开会。"]


def test_a_text_without_sentences_is_still_cut() -> None:
    found = said(tokens_of("今" * 1000), FakeMarker())
    assert max(len(utterance.words) for utterance in found) <= 400
    assert "".join(utterance.text for utterance in found) == "今" * 1000 + "。"


def test_models_that_write_their_own_text_are_left_alone() -> None:
    vocabulary, marker = TextVocabulary(), FakeMarker({"好": "。"})
    ids = vocabulary.ids(["好，", "好。"])
    builder = UtteranceBuilder(vocabulary, marker)
    tokens = TimedTokens(ids, np.array([0.0, 0.3]), np.array([0.2, 0.5]))
    found = [*builder.add(tokens), *builder.flush()]
    assert [utterance.text for utterance in found] == ["好，好。"] and not marker.looked

"""Cues: how long they are, where they are cut, where their line is broken, how long they stay."""

from __future__ import annotations

from itertools import pairwise

import pytest

from app.asr.cues import MAX_CUE_SECONDS, MIN_CUE_SECONDS, cues
from app.asr.transcript import Transcript, Utterance, Word
from tests.fakes.engine import marked, spoken


def transcript_of(*utterances: Utterance) -> Transcript:
    transcript = Transcript()
    for utterance in utterances:
        transcript.add(utterance)
    return transcript


def test_long_speech_is_cut_into_readable_cues() -> None:
    chinese = transcript_of(spoken(0.0, *"字" * 120))
    latin = transcript_of(spoken(0.0, *["letters"] * 60))
    for transcript, limit in ((chinese, 20), (latin, 42)):
        found = list(cues(transcript))
        assert max(len(line) for cue in found for line in cue.lines) <= limit
        assert max(len(cue.lines) for cue in found) <= 2
        assert max(cue.end - cue.start for cue in found) <= MAX_CUE_SECONDS
        assert min(len(cue.text) for cue in found) >= limit // 4
        assert all(a.end <= b.start for a, b in pairwise(found))
        spaces = " " if limit == 42 else ""
        assert spaces.join(line for cue in found for line in cue.lines) == transcript.text


def test_slow_speech_is_cut_by_time() -> None:
    slow = Utterance(0.0, 20.0, tuple(Word("字", n * 1.4, n * 1.4 + 1.3) for n in range(14)))
    assert all(cue.end - cue.start <= MAX_CUE_SECONDS for cue in cues(transcript_of(slow)))


def test_a_pause_ends_a_cue_and_the_longest_silence_is_preferred() -> None:
    def at(*starts: float) -> Utterance:
        return Utterance(starts[0], starts[-1] + 0.2, tuple(Word("字", s, s + 0.2) for s in starts))

    assert [cue.text for cue in cues(transcript_of(at(0.0, 0.2, 1.0, 1.2)))] == ["字字", "字字"]
    starts = [n * 0.2 for n in range(24)]
    late = [s + (0.3 if n >= 9 else 0.0) for n, s in enumerate(starts)]
    [cue] = cues(transcript_of(at(*late)))
    assert [len(line) for line in cue.lines] == [9, 15]
    starts = [n * 0.3 for n in range(24)]
    late = [s + (0.3 if n >= 9 else 0.0) for n, s in enumerate(starts)]
    assert [cue.text for cue in cues(transcript_of(at(*late)))] == ["字" * 9, "字" * 15]


def test_one_endless_word_is_still_a_cue() -> None:
    word = Word("a" * 100, 1.0, 60.0)
    assert [(c.start, c.end) for c in cues(transcript_of(Utterance(1.0, 60.0, (word,))))] == [(1.0, 7.0)]


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_few_long_words_are_cut_apart(count: int) -> None:
    words = tuple(Word("x" * 60, float(index), index + 0.9) for index in range(count))
    texts = [cue.text for cue in cues(transcript_of(Utterance(0.0, float(count), words)))]
    assert texts == [word.text for word in words]


def test_cues_never_end_before_they_start() -> None:
    instant = transcript_of(
        Utterance(1.0, 1.0, (Word("字", 1.0, 1.0),)), Utterance(1.0, 1.0, (Word("字", 1.0, 1.0),))
    )
    assert all(cue.end > cue.start for cue in cues(instant))


def test_long_sentences_are_cut_at_their_marks() -> None:
    sentence = marked(spoken(0.0, *"字" * 40), {9: "，", 17: "，", 24: "、", 39: "。"})
    found = [cue.text for cue in cues(transcript_of(sentence))]
    assert found == ["字" * 10 + "，" + "字" * 8 + "，", "字" * 7 + "、\n" + "字" * 15 + "。"]


def test_a_line_is_broken_at_a_mark_even_beside_the_middle() -> None:
    [cue] = cues(transcript_of(marked(spoken(0.0, *"字" * 22), {6: "，", 21: "。"})))
    assert cue.lines == ("字" * 7 + "，", "字" * 15 + "。")


def test_a_mark_far_from_the_middle_breaks_no_line() -> None:
    [cue] = cues(transcript_of(marked(spoken(0.0, *"字" * 21), {1: "，", 20: "。"})))
    assert [len(line) for line in cue.lines] == [11, 12]


def test_a_number_is_not_broken() -> None:
    [cue] = cues(transcript_of(spoken(0.0, *"字" * 10, *"1234", *"字" * 9)))
    assert cue.lines == ("字" * 10, "1234" + "字" * 9)


def test_full_width_marks_count_as_a_character() -> None:
    sentence = marked(spoken(0.0, *"字" * 12), dict.fromkeys(range(12), "，"))
    [cue] = cues(transcript_of(sentence))
    assert len(cue.lines) == 2 and max(map(len, cue.lines)) <= 20


def test_a_sentence_that_would_only_flash_joins_its_neighbour() -> None:
    yes = marked(spoken(0.0, "好"), {0: "。"})
    near = marked(spoken(0.25, *"我们走吧"), {3: "。"})
    far = marked(spoken(2.0, *"我们走吧"), {3: "。"})
    assert [cue.text for cue in cues(transcript_of(yes, near))] == ["好。我们走吧。"]
    assert [cue.text for cue in cues(transcript_of(yes, far))] == ["好。", "我们走吧。"]
    long = marked(spoken(0.25, *"字" * 19), {18: "。"})
    assert [cue.text for cue in cues(transcript_of(yes, long))] == ["好。", "字" * 19 + "。"]


def test_two_sentences_of_usual_length_are_two_cues() -> None:
    one = marked(spoken(0.0, *"今天开会"), {3: "。"})
    two = marked(spoken(1.1, *"几点开始"), {3: "？"})
    assert [cue.text for cue in cues(transcript_of(one, two))] == ["今天开会。", "几点开始？"]


def test_fast_speech_stays_until_it_is_read_where_there_is_room() -> None:
    fast = Utterance(0.0, 1.0, tuple(Word("字", n * 0.05, n * 0.05 + 0.05) for n in range(20)))
    [cue] = cues(transcript_of(fast))
    assert cue.end == pytest.approx(20 / 9)
    followed = transcript_of(fast, spoken(1.5, *"字" * 5))
    assert next(iter(cues(followed))).end == pytest.approx(1.5)
    assert next(iter(cues(transcript_of(spoken(0.0, "字"))))).end == MIN_CUE_SECONDS

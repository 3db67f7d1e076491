"""The compact transcript."""

from __future__ import annotations

import tracemalloc

from app.asr.transcript import Transcript, Utterance, Word


def utterance(start: float, *texts: str) -> Utterance:
    words = tuple(Word(text, start + n * 0.25, start + n * 0.25 + 0.2) for n, text in enumerate(texts))
    return Utterance(start, start + len(texts) * 0.25, words)


def test_gives_back_what_was_added() -> None:
    first, second = utterance(0.5, "你", "好"), utterance(35_999.125, "hello", "𠮷")
    transcript = Transcript()
    transcript.add(first)
    transcript.add(second)
    assert len(transcript) == 4
    assert [u.text for u in transcript.utterances] == ["你好", "hello𠮷"]
    assert [w.text for w in transcript.words()] == ["你", "好", "hello", "𠮷"]
    for kept, given in zip(transcript.words(), first.words + second.words, strict=True):
        assert abs(kept.start - given.start) < 0.00051 and abs(kept.end - given.end) < 0.00051
    assert next(iter(transcript.utterances)) == Utterance(
        0.5, 1.0, (Word("你", 0.5, 0.7), Word("好", 0.75, 0.95))
    )


def test_text_is_one_line_with_spaces_between_latin_utterances() -> None:
    transcript = Transcript()
    for texts in (("new", "york"), ("hello",), ("你",), ("好",)):
        transcript.add(utterance(1.0, *texts))
    assert transcript.text == "new york hello你好"


def test_marks_are_kept_and_change_no_space() -> None:
    words = [
        Word("你", 0.0, 0.1, "，"),
        Word("new", 0.2, 0.3),
        Word("york", 0.4, 0.5, ","),
        Word("12", 0.6, 0.7, "."),
    ]
    transcript = Transcript()
    transcript.add(Utterance(0.0, 0.7, tuple(words)))
    transcript.add(utterance(1.0, "hello"))
    assert list(transcript.words())[:4] == words
    assert transcript.text == "你，new york, 12. hello"


def test_empty() -> None:
    transcript = Transcript()
    transcript.add(Utterance(1.0, 2.0, ()))
    assert transcript.text == ""
    assert list(transcript.utterances) == [] and list(transcript.words()) == [] and len(transcript) == 0


def test_ten_hours_stay_under_four_megabytes() -> None:
    tracemalloc.start()
    transcript = Transcript()
    for second in range(0, 36_000, 30):
        transcript.add(utterance(float(second), *("字" * 125)))
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(transcript) == 150_000
    assert size < 4_000_000

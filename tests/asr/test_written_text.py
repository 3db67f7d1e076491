"""Lines of text to tokens, their ids and their times."""

from __future__ import annotations

import numpy as np
import pytest

from app.asr.tokens import join_words
from app.asr.written_text import TextVocabulary, align, cut_line, plain, sounding, spread

RATE = 16_000


@pytest.mark.parametrize(
    ("line", "tokens"),
    [
        ("<|zh|><|NEUTRAL|><|Speech|><|woitn|>今天好", ["今", "天", "好"]),
        ("你 好 hello world 在 吗", ["你", "好", "hello", "world", "在", "吗"]),
        ("他说：“去 New York 吧！”", ["他", "说：", "“去", "New", "York", "吧！”"]),
        (
            "《红楼梦》是iPhone15的AT&T，对吗？",
            ["《红", "楼", "梦》", "是", "iPhone15", "的", "AT&T，", "对", "吗？"],
        ),
        (
            "Hello, world. I a b don't e-mail 3.5%",
            ["Hello,", "world.", "I", "a", "b", "don't", "e-mail", "3.5%"],
        ),
        ("call 110 120 now", ["call", "110 120", "now"]),
        ("<unk>你<s>好</s>", ["你", "好"]),
        ("▁hello▁there", ["hello", "there"]),
        ("한국어 텍스트", ["한국어", "텍스트"]),
        ("，你好", ["你", "好"]),
        ("你好（", ["你", "好（"]),
        ("a\x1b\x00b\nc", ["ab", "c"]),
        ("...", []),
        ("<|nospeech|> ", []),
        ("", []),
    ],
)
def test_a_line_is_cut(line: str, tokens: list[str]) -> None:
    assert cut_line(line) == tokens


@pytest.mark.parametrize(
    "line",
    [
        "今天天气，好！hello world",
        'Call 110 120 now. 5 people (about 3.5%) "quoted words" here',
        "The -5 degrees, in 2025, 30 people: 1, 2, 3.",
        "«Bonjour» ¿que? ♪ yes ♪",
    ],
)
def test_joined_again_the_line_is_what_it_was(line: str) -> None:
    # Behind a full stop a word of letters gets a space where the line had none.
    assert join_words(cut_line(line)) == line.replace("！h", "！ h")


def test_words_are_given_out_as_they_are_written() -> None:
    vocabulary = TextVocabulary()
    said = ["I", "a", "b", "odd@@", "ends", "<unk>ish"]
    ids = vocabulary.ids(said)
    words = vocabulary.words(ids, np.arange(6), np.arange(6) + 0.5)
    assert [word.text for word in words] == said
    assert (words[2].start, words[2].end) == (2.0, 2.5)


def test_equal_tokens_have_equal_ids() -> None:
    vocabulary = TextVocabulary()
    first, second = vocabulary.ids(["a", "b", "a"]), vocabulary.ids(["b", "c"])
    assert first[0] == first[2] != first[1] == second[0] != second[1]
    assert first.dtype == np.int32
    assert not any(vocabulary.is_special(int(i)) for i in (*first, *second))


def test_the_vocabulary_stays_small_and_keeps_what_was_said_last() -> None:
    vocabulary = TextVocabulary(most=50)
    for number in range(1000):
        ids = vocabulary.ids([f"w{number}", "often", f"v{number}"])
        assert vocabulary.decode(ids) == f"w{number} often v{number}"
    assert len(vocabulary) == len(vocabulary.tokens) == 54


def test_nothing_can_be_encoded() -> None:
    vocabulary = TextVocabulary()
    vocabulary.ids(["你", "好"])
    assert vocabulary.encode_word("你好") is None
    assert vocabulary.unknown_parts("你好 x") == ("你好", "x")


def test_plain_text_has_single_spaces() -> None:
    assert plain("  <|en|> a \t b<|x|>c ") == "a b c"


def test_spread_times_fill_the_sound_in_proportion() -> None:
    samples = np.zeros(4 * RATE, np.float32)
    samples[RATE : 3 * RATE] = 0.5
    times = spread(["你", "好", "international"], samples)
    assert times[0, 0] == pytest.approx(1.0) and times[-1, 1] == pytest.approx(3.0)
    assert np.array_equal(times[1:, 0], times[:-1, 1])
    short, same, long = times[:, 1] - times[:, 0]
    assert short == pytest.approx(same) and long == pytest.approx(short * 13 / 3)


@pytest.mark.parametrize("length", [0, 1, 319, 320, RATE])
def test_silence_of_any_length_sounds_to_its_end(length: int) -> None:
    samples = np.zeros(length, np.float32)
    assert sounding(samples) == (0.0, length / RATE)
    assert spread([], samples).shape == (0, 2)
    assert np.all(np.isfinite(spread(["a"], samples)))


def test_quiet_edges_are_no_speech() -> None:
    samples = np.full(RATE, 0.001, np.float32)
    samples[8000:12000] = np.sin(np.arange(4000)) * 0.3
    assert sounding(samples) == pytest.approx((0.5, 0.76), abs=0.02)


def test_times_of_words_become_times_of_tokens() -> None:
    words, stamps = ["你好", "▁wor", "ld", "。"], [[0, 200], [300, 360], [360, 400], [500, 600]]
    times = align(["你", "好", "world。"], words, stamps)
    assert times is not None
    assert times.tolist() == [[0, 100], [100, 200], [300, 400]]


@pytest.mark.parametrize(
    ("words", "stamps"),
    [
        (["你", "坏"], [[0, 1], [1, 2]]),
        (["你", "好"], [[0, 1]]),
        (["你", "好"], [[0, 1], [1]]),
        (["你", "好", "吗"], [[0, 1], [1, 2], [2, 3]]),
        ([], []),
    ],
)
def test_times_of_another_text_are_refused(words: list[str], stamps: list[list[float]]) -> None:
    assert align(["你", "好"], words, stamps) is None


def test_a_sign_without_letters_gets_the_end_of_what_is_before_it() -> None:
    times = align(["a", "♪", "b"], ["a", "b"], [[0, 10], [20, 30]])
    assert times is not None
    assert times.tolist() == [[0, 10], [10, 10], [20, 30]]

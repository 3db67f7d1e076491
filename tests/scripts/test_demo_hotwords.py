"""Tests of the demo model's hot-word training on an untrained network: what is remembered, asked for and changed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the network needs torch")
pytest.importorskip("funasr", reason="the demo model is made of FunASR's classes")

import torch

from scripts.demo_model import clips, grammar, hotwords, network, recogniser, spelling
from scripts.demo_model.hotword_lists import Offer
from scripts.demo_model.tapes import N_MELS, Tape

TOKENS = grammar.vocabulary()
NO_BIAS = TOKENS.index("<nobias>")
TEXTS = ("给张伟打电话", "打开客厅的灯", "现在是上午十点", "给王芳打电话")


@pytest.fixture(scope="module")
def untrained() -> torch.nn.Module:
    torch.manual_seed(1)
    model = network.build(TOKENS)
    network.speed_up(model)
    return model


@pytest.fixture
def model(untrained: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """The network, with its first weights again afterwards."""
    kept = {name: value.clone() for name, value in untrained.state_dict().items()}
    yield untrained
    untrained.load_state_dict(kept)


def state(text: str, names: tuple[tuple[int, int], ...] = ()) -> hotwords.State:
    generator = torch.Generator().manual_seed(len(text) + ord(text[1]))
    acoustic, hidden = torch.randn(2, len(text) + 1, network.WIDTH, generator=generator).half()
    return hotwords.State(text, names, acoustic, hidden)


STATES = [state(TEXTS[0], ((1, 3),)), state(TEXTS[1]), state(TEXTS[2]), state(TEXTS[3], ((1, 3),))]


def changed(before: dict[str, torch.Tensor], model: torch.nn.Module) -> set[str]:
    """The parts of the network whose weights are others now."""
    parts = {name for name, value in model.state_dict().items() if not torch.equal(before[name], value)}
    return {name.rpartition(".")[0] if "embed" in name else name.partition(".")[0] for name in parts}


def copy_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_answers_are_the_hot_word_else_nothing_and_end_with_nothing() -> None:
    batcher = hotwords.Batcher(STATES, TOKENS, 1)
    said = Offer(("张伟", "北京"), ("", "张", "伟", "", "", ""), (-1, 0, 0, -1, -1, -1))
    short = state("开灯")
    labels = batcher.labels([STATES[0], short], [said, Offer(("北京",), ("", ""), (-1, -1))])
    name = [TOKENS.index("张"), TOKENS.index("伟")]
    assert labels[0].tolist() == [NO_BIAS, *name, NO_BIAS, NO_BIAS, NO_BIAS, NO_BIAS]
    assert labels[1].tolist() == [NO_BIAS] * 3 + [-1] * 4, "nothing is asked beyond the end"


def test_most_utterances_drawn_have_names_and_lists_begin_short() -> None:
    batcher = hotwords.Batcher(STATES * 10, TOKENS, 2)
    for _ in range(20):
        states, offers = batcher.draw(16, short=True)
        assert len(states) == len(offers) == 16
        assert sum(bool(one.names) for one in states) == 12
        assert max(len(one.words) for one in offers) <= 4
    lengths = {len(offers[0].words) for _ in range(60) for _, offers in [batcher.draw(16, short=False)]}
    assert max(lengths) >= 40 and min(lengths) <= 3


def test_of_long_utterances_and_lists_fewer_share_a_batch() -> None:
    long = [state(TEXTS[0] * 6, ((1, 3),)), state(TEXTS[1] * 6)]
    batcher = hotwords.Batcher(long, TOKENS, 3)
    assert len(batcher.draw(16, short=True)[0]) == 8
    assert {len(batcher.draw(16, short=False)[0]) for _ in range(40)} == {8, 4}


def test_a_hot_word_has_one_vector_whatever_stands_beside_it(model: torch.nn.Module) -> None:
    short, long = [7], [7, 8, 9, 10]
    with torch.no_grad():
        together, alone = hotwords.encode_words(model, [short, long]), hotwords.encode_words(model, [short])
    assert torch.allclose(together[0], alone[0], atol=1e-6)
    assert not torch.allclose(together[0], together[1])


def test_pointing_costs_least_where_attention_is_on_the_word_that_was_said(model: torch.nn.Module) -> None:
    batcher = hotwords.Batcher(STATES, TOKENS, 1)
    said = Offer(("张伟", "北京"), ("", "张", "伟", "", "", ""), (-1, 0, 0, -1, -1, -1))
    labels = batcher.labels([STATES[0]], [said])

    def cost(*pointed: int) -> float:
        attention = torch.full((2, 1, len(pointed), 3), 0.01)
        for at, word in enumerate(pointed):
            attention[:, :, at, word] = 0.98
        last: Any = model.seaco_decoder
        last.decoders[-1].src_attn.attention = attention
        return float(hotwords.pointing_loss(model, [said], labels, NO_BIAS))

    right = cost(2, 0, 0, 2, 2, 2, 2)
    assert right == pytest.approx(-2 * np.log(0.98), rel=1e-3), "once for each of the branch's two inputs"
    silent_wrong, name_wrong = cost(0, 0, 0, 2, 2, 2, 2), cost(2, 1, 0, 2, 2, 2, 2)
    assert right < silent_wrong < name_wrong, (
        "a name that is missed counts more than silence that is not kept"
    )


def test_training_the_branch_learns_and_leaves_the_recogniser_alone(model: torch.nn.Module) -> None:
    before, told = copy_of(model), list[str]()
    plan = hotwords.HotwordPlan(steps=16, batch=4, short_lists=1.0)
    hotwords.train(model, STATES, TOKENS, plan, told.append)
    assert changed(before, model) == {
        "bias_encoder",
        "seaco_decoder",
        "hotword_output_layer",
        "decoder.embed.0",
    }
    losses = [float(loss) for loss in re.findall(r"loss (\S+)", " ".join(told))]
    assert len(losses) == 2 and losses[-1] < 0.9 * losses[0]


def test_spelling_is_learnt_from_text_alone(model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spelling, "WORDS", 64)
    before, told = copy_of(model), list[str]()
    spelling.teach(model, TEXTS, TOKENS, 51, told.append)
    assert changed(before, model) == {"bias_encoder", "decoder.embed.0"}
    shares = [float(line.split()[-1]) for line in told]
    assert len(shares) == 2 and shares[0] < 0.2 and shares[1] > shares[0] + 0.1


def test_the_recogniser_is_remembered_where_it_got_the_length_right(
    model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An untrained network never does, so its weights are put in: those of the truth, or one token less."""
    starts = np.array([0.5, 0.75, 1.0, 2.0, 2.25, 2.5, 2.75, 3.0], np.float32)
    energies = np.random.default_rng(0).standard_normal((400, N_MELS)).astype(np.float16)
    text = "打开灯现在是十点"
    tape = Tape(energies, text, starts, starts + np.float32(0.25), np.array([0, 3], np.int32), ("", ""))
    sampler = clips.ClipSampler([tape], TOKENS, seed=1)
    chosen = hotwords.clips_for_hotwords(sampler, 2)
    assert len(chosen) >= 3, "every sentence once, and some joined"
    truth = list[torch.Tensor]()

    def remembering_encode(model: torch.nn.Module, batch: clips.Batch) -> torch.Tensor:
        truth[:] = [batch.spikes]
        return recogniser.encode(model, batch)

    monkeypatch.setattr(hotwords, "encode", remembering_encode)

    def one_less(*_: object) -> torch.Tensor:
        return 40.0 * truth[0] * (truth[0].cumsum(1) > 1) - 20.0

    monkeypatch.setattr(hotwords, "firing_logits", one_less)
    assert hotwords.remember(model, sampler, chosen[:2], TOKENS) == []
    monkeypatch.setattr(hotwords, "firing_logits", lambda *_: 40.0 * truth[0] - 20.0)
    states = hotwords.remember(model, sampler, chosen[:2], TOKENS)
    assert sorted(one.text for one in states) == ["打开灯", "现在是十点"]
    for one in states:
        assert one.acoustic.shape == one.hidden.shape == (len(one.text) + 1, network.WIDTH)

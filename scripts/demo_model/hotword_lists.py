"""Hot-word lists for training: what is offered with an utterance, and what the hot-word branch shall answer.

Lives here: choice of right, wrong and nearly right hot words, labels (standard library only). Not here: the network.

The branch must copy the spelling of a hot word that was said, whole, and answer <nobias> everywhere else: also where
only a part of a hot word was said, or a name that shares characters or sounds with it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from . import grammar


@dataclass(frozen=True)
class Offer:
    """Hot words offered with one utterance.

    label (n,): the character each position shall answer, '' for <nobias>; said (n,): index of the hot word said
    there, -1 for none.
    """

    words: tuple[str, ...]
    label: tuple[str, ...]
    said: tuple[int, ...]


_RARE_BY_SOUND = {grammar.canonical(name): name for name in grammar.RARE_NAMES}


def respell(name: str, rng: random.Random) -> str:
    """Spell a name's sounds anew, each spelling equally likely; rare names get their rare spelling more often."""
    rare = _RARE_BY_SOUND.get(grammar.canonical(name))
    if rare is not None and rng.random() < 0.4:
        return rare
    return "".join(rng.choice(grammar.GROUP_OF.get(character, character)) for character in name)


def near_miss(name: str, rng: random.Random) -> str:
    """A name that shares sounds or characters with `name` but is another one."""
    characters = list(name)
    kind = rng.random()
    if kind < 0.45:  # one sound changed, the others spelled anew or kept
        at = rng.randrange(len(characters))
        pool = grammar.SURNAMES if at == 0 else grammar.GIVEN
        for index, character in enumerate(characters):
            if rng.random() < 0.6:
                characters[index] = rng.choice(grammar.GROUP_OF.get(character, character))
        characters[at] = rng.choice(rng.choice(pool))
    elif kind < 0.65:  # only the surname stays
        characters = [rng.choice(grammar.GROUP_OF[characters[0]])]
        characters += [rng.choice(rng.choice(grammar.GIVEN)) for _ in range(rng.randint(1, 2))]
    elif kind < 0.80:  # only a given-name sound stays
        keep = rng.choice(grammar.GROUP_OF[rng.choice(characters[1:])])
        characters = [rng.choice(rng.choice(grammar.SURNAMES)), keep]
        if rng.random() < 0.5:
            characters.insert(rng.randint(1, 2), rng.choice(rng.choice(grammar.GIVEN)))
    elif kind < 0.92:  # longer than what was said
        characters = [rng.choice(grammar.GROUP_OF[character]) for character in characters]
        characters.append(rng.choice(rng.choice(grammar.GIVEN)))
    else:  # other order
        characters = [characters[0], *reversed(characters[1:])]
    return "".join(characters)


def fragment(text: str, rng: random.Random) -> tuple[int, str]:
    """A piece of 2 to 4 characters of a text, and where it starts."""
    size = min(len(text), rng.randint(2, 4))
    at = rng.randint(0, len(text) - size)
    return at, text[at : at + size]


def offer(
    text: str, spans: Sequence[tuple[int, int]], others: Sequence[str], count: int, rng: random.Random
) -> Offer:
    """Make a list of about `count` hot words for `text`, whose names lie at `spans`.

    Args:
        others: texts of other utterances, from which wrong fragments are taken.
        count: how many hot words are wanted; a list without any is never made.
    """
    names = [text[a:b] for a, b in spans]
    words = _right(text, names, rng)
    wanted = {grammar.canonical(word): word for word in words}
    sound = grammar.canonical(text)
    label, source = [""] * len(text), [""] * len(text)
    for heard, word in wanted.items():
        at = sound.find(heard)
        while at >= 0:
            label[at : at + len(word)] = word
            source[at : at + len(word)] = [word] * len(word)
            at = sound.find(heard, at + len(word))
    hard = rng.random() < 0.6
    for _ in range(200):
        if len(words) >= max(1, count):
            break
        wrong = _wrong(names, others, hard, rng)
        heard = grammar.canonical(wrong)
        if heard in sound or wrong in words or any(heard in right or right in heard for right in wanted):
            continue
        words.append(wrong)
    rng.shuffle(words)
    return Offer(tuple(words), tuple(label), tuple(words.index(word) if word else -1 for word in source))


def _right(text: str, names: Sequence[str], rng: random.Random) -> list[str]:
    """Hot words that were said: names spelled anew for half of the texts that have some, else a rare fragment."""
    words: list[str] = []
    if names and rng.random() < 0.55:
        for name in names:
            if not words or rng.random() < 0.5:
                spelled = respell(name, rng)
                if grammar.canonical(spelled) not in [grammar.canonical(word) for word in words]:
                    words.append(spelled)
    elif len(text) >= 3 and rng.random() < 0.12:
        words.append(fragment(text, rng)[1])
    return words


def _wrong(names: Sequence[str], others: Sequence[str], hard: bool, rng: random.Random) -> str:
    kind = rng.random()
    if names and hard and kind < 0.5:
        return near_miss(rng.choice(names), rng)
    if kind < 0.55:
        return rng.choice(grammar.RARE_NAMES) if rng.random() < 0.25 else grammar.random_name(rng, 0.3)
    if kind < 0.75:
        return grammar.training_name(rng)
    return fragment(rng.choice(others), rng)[1]

"""Training clips: where tapes are cut, and the padded batches made of them.

Lives here: the mix of clip lengths and cuts, LFR stacking, labels of a clip.
Not here: speech synthesis (tapes), losses and optimisation.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from .tapes import N_MELS, Tape

LFR_M, LFR_N = 7, 6
FRAME_SECONDS = 0.01
LFR_SECONDS = LFR_N * FRAME_SECONDS
# LFR frame i is centred on filter-bank frame 6i, whose 25 ms are centred 12.5 ms after its start.
LFR_OFFSET = 0.0125 - LFR_SECONDS / 2
EOS = 2
PADDING = -1
TIGHT_SECONDS = 0.12
EDGE_TOLERANCE = 0.02  # seconds a character may stick out of a hard cut and still count as inside


@dataclass(frozen=True)
class Clip:
    """Part of a tape: filter-bank frames [begin, end) of tape number `tape`."""

    tape: int
    begin: int
    end: int


@dataclass(frozen=True)
class Labels:
    """What is said in a clip: ids (n,), starts and ends (n,) in seconds from the clip's start, name spans [a, b).

    Characters cut by the clip's edges are not among them: one sounds until `head` and one from `tail` on
    (seconds from the clip's start; None: no character is cut there).
    """

    ids: NDArray[np.int64]
    starts: NDArray[np.float32]
    ends: NDArray[np.float32]
    names: tuple[tuple[int, int], ...]
    head: float | None = None
    tail: float | None = None


@dataclass(frozen=True)
class Batch:
    """Padded clips: features (B, T, 560), frames (B,), targets (B, K) with </s> and -1 beyond, counts (B,),
    spikes (B, T) with a one where a token fires, frame_ids (B, T) the character heard (-1: none)."""

    features: torch.Tensor
    frames: torch.Tensor
    targets: torch.Tensor
    counts: torch.Tensor
    spikes: torch.Tensor
    frame_ids: torch.Tensor
    labels: tuple[Labels, ...]


def lfr(fbank: NDArray[np.float32]) -> NDArray[np.float32]:
    """Stack 7 frames every 6: (frames, 80) -> (ceil(frames / 6), 560); edges repeat the outermost frame."""
    count = -(-len(fbank) // LFR_N)
    index = LFR_N * np.arange(count)[:, None] + np.arange(LFR_M)[None, :] - LFR_M // 2
    return fbank[np.clip(index, 0, len(fbank) - 1)].reshape(count, LFR_M * fbank.shape[1])


def cmvn(tapes: Sequence[Tape]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Shift and scale (80,) that give the tapes' frames mean 0 and variance 1."""
    total = np.zeros(N_MELS)
    square = np.zeros(N_MELS)
    count = 0
    for tape in tapes:
        frames = tape.fbank.astype(np.float64)
        total += frames.sum(0)
        square += (frames**2).sum(0)
        count += len(frames)
    mean = total / count
    scale = 1.0 / np.sqrt(square / count - mean**2)
    return (-mean).astype(np.float32), scale.astype(np.float32)


def tighten(tape: Tape, rng: random.Random) -> Tape:
    """The same tape with every pause between sentences cut down to 0-120 ms: speech that never stops."""
    bounds = _sentence_bounds(tape)
    keep = np.ones(len(tape.fbank), bool)
    for end, start in zip(bounds[:-1, 1], bounds[1:, 0], strict=True):
        room = rng.random() * TIGHT_SECONDS
        before = rng.random() * room
        keep[int((end + before) / FRAME_SECONDS) : max(0, int((start - room + before) / FRAME_SECONDS))] = (
            False
        )
    place = np.concatenate([[0.0], np.cumsum(keep)]) * FRAME_SECONDS  # where each moment lies after the cuts
    moments = np.arange(len(keep) + 1) * FRAME_SECONDS
    return replace(
        tape,
        fbank=tape.fbank[keep],
        starts=np.interp(tape.starts, moments, place).astype(np.float32),
        ends=np.interp(tape.ends, moments, place).astype(np.float32),
    )


class ClipSampler:
    """Draws batches of clips of similar length from tapes; `more` are tapes that features are not normalised by."""

    def __init__(
        self, tapes: Sequence[Tape], tokens: Sequence[str], seed: int, more: Sequence[Tape] = ()
    ) -> None:
        self.shift, self.scale = cmvn(tapes)
        tapes = [*tapes, *more]
        self.tapes = tapes
        self.rng = random.Random(seed)
        ids = {token: index for index, token in enumerate(tokens)}
        self._ids = [np.array([ids[c] for c in tape.characters], np.int64) for tape in tapes]
        self._bounds = [_sentence_bounds(tape) for tape in tapes]
        sentences = [(t, s) for t, bounds in enumerate(self._bounds) for s in range(len(bounds))]
        sentences.sort(key=lambda item: self._span(item[0], item[1], item[1]))
        self.sentences = sentences

    def _span(self, tape: int, first: int, last: int) -> float:
        return float(self._bounds[tape][last, 1] - self._bounds[tape][first, 0])

    def snapped(self, tape: int, first: int, last: int, margin: float = 0.8) -> Clip:
        """Cut sentences first..last out of a tape at silence, with up to `margin` seconds of it on each side."""
        bounds = self._bounds[tape]
        before = bounds[first, 0] - (bounds[first - 1, 1] if first else 0.0)
        total = len(self.tapes[tape].fbank)
        next_start = bounds[last + 1, 0] if last + 1 < len(bounds) else total * FRAME_SECONDS
        begin = bounds[first, 0] - self._margin(min(before, margin))
        end = bounds[last, 1] + self._margin(min(next_start - bounds[last, 1], margin))
        return Clip(
            tape, max(0, int(begin / FRAME_SECONDS)), min(total, int(np.ceil(end / FRAME_SECONDS)) + 1)
        )

    def _margin(self, room: float) -> float:
        return self.rng.random() * room

    def singles(self, budget: int) -> list[Clip]:
        """Single sentences of similar length, `budget` LFR frames in all."""
        pivot = self.rng.randrange(len(self.sentences))
        window = max(60, len(self.sentences) // 80)
        clips: list[Clip] = []
        used = 0
        while used < budget:
            near = min(max(pivot + self.rng.randint(-window, window), 0), len(self.sentences) - 1)
            tape, index = self.sentences[near]
            clips.append(self.snapped(tape, index, index))
            used += (clips[-1].end - clips[-1].begin) // LFR_N + 1
        return clips

    def joined(self, budget: int, seconds: float, hard: float) -> list[Clip]:
        """Clips of about `seconds`; a share `hard` of their ends is cut anywhere, the others at silence."""
        count = max(1, round(budget * LFR_SECONDS / seconds))
        return [self._joined(seconds, hard) for _ in range(count)]

    def _joined(self, seconds: float, hard: float) -> Clip:
        tape = self.rng.randrange(len(self.tapes))
        bounds = self._bounds[tape]
        total = len(self.tapes[tape].fbank)
        start = self.rng.random() * max(0.0, total * FRAME_SECONDS - seconds)
        first = min(int(np.searchsorted(bounds[:, 0], start)), len(bounds) - 1)
        last = max(first, int(np.searchsorted(bounds[:, 1], bounds[first, 0] + seconds)) - 1)
        clip = self.snapped(tape, first, last)
        begin, end = clip.begin, clip.end
        if self.rng.random() < hard:
            begin = int(start / FRAME_SECONDS)
        if self.rng.random() < hard:
            end = min(total, begin + int(seconds / FRAME_SECONDS))
        return Clip(tape, begin, max(end, begin + 60))

    def labels(self, clip: Clip) -> Labels:
        """Characters wholly inside the clip."""
        tape = self.tapes[clip.tape]
        begin, end = clip.begin * FRAME_SECONDS, clip.end * FRAME_SECONDS
        inside = np.flatnonzero((tape.starts >= begin - EDGE_TOLERANCE) & (tape.ends <= end + EDGE_TOLERANCE))
        if inside.size == 0:
            empty = np.zeros(0, np.float32)
            return Labels(np.zeros(0, np.int64), empty, empty, ())
        low, high = int(inside[0]), int(inside[-1]) + 1
        head = float(tape.ends[low - 1]) - begin if low else 0.0
        cut_tail = high < len(tape.characters) and tape.starts[high] < end - EDGE_TOLERANCE
        names = []
        for first, name in zip(tape.first.tolist(), tape.names, strict=True):
            if name and first + 40 > low and first < high:
                at = tape.characters.index(name, first) - low
                if at >= 0 and at + len(name) <= high - low:
                    names.append((at, at + len(name)))
        return Labels(
            self._ids[clip.tape][low:high],
            np.maximum(tape.starts[low:high] - begin, 0.0).astype(np.float32),
            (tape.ends[low:high] - begin).astype(np.float32),
            tuple(names),
            head if head > EDGE_TOLERANCE else None,
            float(tape.starts[high]) - begin if cut_tail else None,
        )

    def features(self, clip: Clip, augment: bool = True) -> NDArray[np.float32]:
        """Normalised features (T, 560) of a clip, with a random mel band blanked now and then."""
        frames = self.tapes[clip.tape].fbank[clip.begin : clip.end].astype(np.float32)
        frames = (frames + self.shift) * self.scale
        if augment and self.rng.random() < 0.5:
            width = self.rng.randint(1, 12)
            low = self.rng.randrange(N_MELS - width)
            frames[:, low : low + width] = 0.0
        return lfr(frames)

    def batch(self, clips: Sequence[Clip], augment: bool = True) -> Batch:
        """Pad clips and their labels to one batch."""
        return collate([self.features(c, augment) for c in clips], [self.labels(c) for c in clips])


def _sentence_bounds(tape: Tape) -> NDArray[np.float64]:
    last = np.append(tape.first[1:], len(tape.characters)) - 1
    return np.stack([tape.starts[tape.first], tape.ends[last]], axis=1).astype(np.float64)


def lfr_index(seconds: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """LFR frame that covers each moment, within [0, count)."""
    index = np.floor((seconds - LFR_OFFSET) / LFR_SECONDS).astype(np.int64)
    return np.clip(index, 0, count - 1)


def firing_frames(labels: Labels, count: int) -> NDArray[np.int64]:
    """LFR frame at which each token fires: the middle of its character; </s> fires at the last frame.

    No two tokens fire in one frame while there is room.
    """
    middle = [*lfr_index((labels.starts + labels.ends) / 2, count).tolist(), count - 1]
    for i in range(len(middle) - 2, -1, -1):
        middle[i] = max(0, min(middle[i], middle[i + 1] - 1))
    return np.array(middle, np.int64)


def collate(features: Sequence[NDArray[np.float32]], labels: Sequence[Labels]) -> Batch:
    """Pad to the longest clip."""
    size = len(features)
    longest = max(len(f) for f in features)
    tokens = max(len(item.ids) for item in labels) + 1
    padded = np.zeros((size, longest, features[0].shape[1]), np.float32)
    targets = np.full((size, tokens), PADDING, np.int64)
    spikes = np.zeros((size, longest), np.float32)
    frame_ids = np.full((size, longest), PADDING, np.int64)
    for row, (clip, item) in enumerate(zip(features, labels, strict=True)):
        count, n = len(clip), len(item.ids)
        padded[row, :count] = clip
        targets[row, :n] = item.ids
        targets[row, n] = EOS
        np.add.at(spikes[row], firing_frames(item, count), 1.0)
        first, last = lfr_index(item.starts, count), lfr_index(item.ends, count)
        for token, a, b in zip(item.ids.tolist(), first.tolist(), last.tolist(), strict=True):
            frame_ids[row, a : max(b, a + 1)] = token
    return Batch(
        torch.from_numpy(padded),
        torch.tensor([len(f) for f in features]),
        torch.from_numpy(targets),
        torch.tensor([len(item.ids) + 1 for item in labels]),
        torch.from_numpy(np.minimum(spikes, 1.0)),
        torch.from_numpy(frame_ids),
        tuple(labels),
    )

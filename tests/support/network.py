"""Our network, run stage by stage as a backend would, for comparison with the reference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from app.asr.backend import HOTWORD_FILTER, filtered_rows
from app.asr.model import ParaformerNetwork
from app.asr.timing import token_times

SPECIAL = (0, 1, 2)


@torch.inference_mode()
def recognise(
    network: ParaformerNetwork, features: NDArray[np.float32], words: Sequence[Sequence[int]] | None
) -> tuple[list[int], NDArray[np.float64], NDArray[np.float64]]:
    """One segment (frames, width) -> ids, times (tokens, 2) in seconds, and each id's margin over the second best."""
    hidden, acoustic, counts, alphas = network.encode(torch.from_numpy(features)[None])
    if int(counts[0]) == 0:
        return [], np.zeros((0, 2)), np.zeros(0)
    ids, state = network.decode(hidden, None, acoustic, None)
    logits = network.decoder.output_layer(state)
    if words:
        listed = [*map(list, words), [1]]
        lengths = torch.tensor([len(word) for word in listed])
        padded = torch.zeros(len(listed), int(lengths.max()), dtype=torch.long)
        for row, word in zip(padded, listed, strict=True):
            row[: len(word)] = torch.tensor(word)
        rows = network.encode_hotwords(padded, lengths)[None]
        if rows.shape[1] > HOTWORD_FILTER:
            scores = network.bias_hidden(state, None, rows)[1]
            rows = rows[:, torch.from_numpy(filtered_rows(scores[0].numpy()))]
        sides = [network.bias_hidden(stream, None, rows)[0] for stream in (acoustic, state)]
        biased = network.bias_ids(*sides)
        chosen = biased != network.shape.no_bias_id
        logits = torch.where(chosen[..., None], network.hotword_output_layer(sides[0] + sides[1]), logits)
        ids = torch.where(chosen, biased, ids)
    best = logits[0].topk(2, dim=1).values
    keep = [index for index, token in enumerate(ids[0].tolist()) if token not in SPECIAL]
    tokens = [int(ids[0, index]) for index in keep]
    if network.shape.predictor.upsample:
        fine, step = network.predictor.fine_alphas(hidden, None)[0].numpy(), 0.02
    else:
        fine, step = alphas[0].numpy(), 0.06
    times = np.stack(token_times(fine, len(tokens), step_seconds=step), axis=1).astype(np.float64)
    return tokens, times, (best[:, 0] - best[:, 1]).numpy()[keep]

"""Does this backend compute what it should? The pack's golden clip, recognised and compared.

Here: the check and its verdict. A pack carries a clip and the tokens that fp32 gives for it; a device or precision that
gives others must not be used. What follows from a failure is opening.py's decision.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.asr.audio import AudioReader
from app.asr.backend import Backend
from app.asr.errors import AsrError, DeviceLostError, DeviceMemoryError
from app.asr.pack import GOLDEN, Pack


@dataclass(frozen=True)
class Verdict:
    """Result of a self-check: `reason` is a clause for people, `seconds` what it took."""

    passed: bool
    reason: str
    seconds: float


def golden_samples(pack: Pack) -> NDArray[np.float32]:
    """The golden clip, 16 kHz mono (n,)."""
    with AudioReader(pack.path(GOLDEN)) as reader:
        return np.concatenate(list(reader.blocks()))


def self_check(backend: Backend, pack: Pack) -> Verdict:
    """Recognises the golden clip, alone and beside a shorter copy of itself, and compares the tokens.

    int8 and half-stored packs may differ from fp32 by rounding alone; they must give what they gave when packed.

    Raises:
        DeviceMemoryError, DeviceLostError: the clip could not be run at all.
    """
    started = time.perf_counter()
    golden = pack.manifest.golden
    allowed = {golden.tokens, golden.packed_tokens}
    prepared = backend.prepare(golden_samples(pack))
    try:
        [alone] = backend.recognise([prepared], None)
        beside = backend.recognise([prepared[: len(prepared) // 2], prepared], None)[1]
    except (DeviceMemoryError, DeviceLostError):
        raise
    except AsrError as error:
        return Verdict(False, error.problem, time.perf_counter() - started)
    found = [tuple(int(token) for token in result.ids) for result in (alone, beside)]
    seconds = time.perf_counter() - started
    if not np.isfinite([*alone.starts, *alone.ends]).all():
        return Verdict(False, "times are not finite", seconds)
    if found[0] not in allowed:
        return Verdict(False, _difference(found[0], golden.tokens), seconds)
    if found[1] != found[0]:
        return Verdict(False, "the clip gives other tokens beside another segment than alone", seconds)
    return Verdict(True, f"all {len(found[0])} tokens of the golden clip are right", seconds)


def _difference(found: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    if len(found) != len(wanted):
        return f"the golden clip gives {len(found)} tokens, it has {len(wanted)}"
    wrong = sum(mine != theirs for mine, theirs in zip(found, wanted, strict=True))
    return f"{wrong} of {len(wanted)} tokens of the golden clip are wrong"

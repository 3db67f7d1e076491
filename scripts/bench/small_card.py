"""Runs a program as if the GPU had less memory than it has: 2 GiB of a card with 140, say.

torch's allocator gets no more than such a card would leave it beside CUDA's own context, and `mem_get_info` tells
what such a card would tell. With --unannounced it goes on telling of the whole card: then predictions are wrong, and
allocations fail that nobody expected.

    python -m scripts.bench.small_card GIB [--unannounced] -m MODULE [ARGUMENT ...]

Not here: a limit on other programs, or on memory that libraries take past torch's allocator.
"""

from __future__ import annotations

import runpy
import sys
from typing import Any

GIB = 1 << 30
# A context is no larger; what else is in use when the program begins belongs to others.
LARGEST_CONTEXT_BYTES = 700 << 20


def allocator_bytes(card: int, free: int, total: int) -> int:
    """What is left to the allocator on a card of `card` bytes, when `free` of `total` are free on the real one."""
    return max(0, card - min(total - free, LARGEST_CONTEXT_BYTES))


def shrink(card: int, *, unannounced: bool = False) -> None:
    """From torch's first look at the free memory on, this process has a card of `card` bytes.

    Nothing touches the device before: the program may still choose how its allocator works.
    """
    import torch

    ask = torch.cuda.mem_get_info
    allowed: dict[str, int] = {}

    def told(device: Any = None) -> tuple[int, int]:
        free, total = ask(device)
        if not allowed:
            allowed["bytes"] = allocator_bytes(card, free, total)
            torch.cuda.set_per_process_memory_fraction(min(1.0, allowed["bytes"] / total), device)
        if unannounced:
            return free, total
        return max(0, min(free, allowed["bytes"] - torch.cuda.memory_reserved(device))), card

    torch.cuda.mem_get_info = told


def main(arguments: list[str]) -> int:
    size, *rest = arguments
    unannounced = rest[0] == "--unannounced"
    mark, module, *its_own = rest[1:] if unannounced else rest
    if mark != "-m":
        print(__doc__, file=sys.stderr)
        return 1
    shrink(int(float(size) * GIB), unannounced=unannounced)
    sys.argv = [module, *its_own]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

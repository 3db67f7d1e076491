"""Waiting for something that another thread or process does, without a time that decides the test."""

from __future__ import annotations

import time
from collections.abc import Callable

_PATIENCE = 60.0  # seconds; only a test that fails anyway waits so long


def wait_for(condition: Callable[[], object], what: str, patience: float = _PATIENCE) -> None:
    """Returns when the condition holds; fails, saying `what` did not come."""
    give_up = time.monotonic() + patience
    while not condition():
        if time.monotonic() > give_up:
            raise AssertionError(f"{what} did not come in {patience:g} s")
        time.sleep(0.02)

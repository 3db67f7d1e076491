"""What every test gets: an environment without the user's settings, and no network.

Fakes of one module live beside its tests; larger ones are in tests/fakes.
"""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest

FOREIGN = ("ASR_", "FUNASR_", "HF_", "MODELSCOPE_", "OMP_", "MKL_", "ORT_", "CUDA_")
FOREIGN_NAMES = {"COLUMNS", "NO_COLOR", "FORCE_COLOR", "XDG_CACHE_HOME", "LC_ALL", "LANG", "TZ"}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of the person at the keyboard must not decide a test."""
    for name in list(os.environ):
        if name.startswith(FOREIGN) or name in FOREIGN_NAMES or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that reaches for the network fails, and says where it wanted to go."""
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        local = self.family == socket.AF_UNIX or str(address[0]) in {"127.0.0.1", "::1", "localhost"}
        if not local:
            pytest.fail(f"a test tried to connect to {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)

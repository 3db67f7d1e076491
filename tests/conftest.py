"""What every test gets: an environment without the user's settings, and no network.

Fakes of one module live beside its tests; larger ones are in tests/fakes.
"""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

FOREIGN = ("ASR_", "FUNASR_", "HF_", "MODELSCOPE_", "OMP_", "MKL_", "ORT_", "CUDA_", "CUBLAS_", "PYTORCH_")
FOREIGN_NAMES = {"COLUMNS", "NO_COLOR", "FORCE_COLOR", "XDG_CACHE_HOME", "LC_ALL", "LANG", "TZ"}


@pytest.fixture(scope="session")
def cache_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where measurements of this host are kept while tests run: not where the user's are."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """A shell's background jobs ignore Ctrl-C, and so do their children; tests of Ctrl-C then wait for ever."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, cache_directory: Path) -> None:
    """Settings of the person at the keyboard must not decide a test."""
    for name in list(os.environ):
        if name.startswith(FOREIGN) or name in FOREIGN_NAMES or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("ASR_CACHE_DIR", str(cache_directory))


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

"""Loaded by schemathesis: some of the random requests get a real model name and a real recording.

Without them nearly all would end at the first check of a form, and nothing behind it would be tried.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import schemathesis

_RECORDING = Path(os.environ["FUZZ_RECORDING"]).read_bytes()
_CHANCE = random.Random(0)
# Of the requests with a form: how many get a model that is served, and how many a file that is one.
_WITH_MODEL, _WITH_FILE = 0.9, 0.3


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Makes a generated form more of a request; what is not a form stays as it is."""
    del context
    if not isinstance(body, dict):
        return body
    if "model" in body and _CHANCE.random() < _WITH_MODEL:
        body["model"] = "whisper-1"
    if "file" in body and _CHANCE.random() < _WITH_FILE:
        cut = len(_RECORDING) if _CHANCE.random() < 0.5 else _CHANCE.randrange(len(_RECORDING))
        body["file"] = _RECORDING[:cut]
    return body

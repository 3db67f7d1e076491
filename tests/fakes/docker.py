"""A fake `docker` command: answers what a test laid out, and notes what it was asked.

Beside it lies answers.json: a list of [words, exit code, output, errors]. The first whose words the command line begins
with answers; words after a star may stand anywhere. What was asked is appended to asked.txt, a line each.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

NAMES = (
    "ASR_IMAGE",
    "ASR_MODEL",
    "ASR_PRECISION",
    "GPU",
    "MEMORY_LIMIT",
    "MEMORY_SWAP_LIMIT",
    "MODELS_DIR",
    "PORT",
)


def main() -> int:
    """Answer one command."""
    here = Path(__file__).resolve().parent
    asked = " ".join(sys.argv[1:])
    said = " ".join(f"{name}={os.environ[name]}" for name in NAMES if name in os.environ)
    with (here / "asked.txt").open("a", encoding="utf-8") as file:
        file.write(f"{asked} | {said}\n")
    for words, code, output, errors in json.loads((here / "answers.json").read_text(encoding="utf-8")):
        if asked.startswith(words) or (words.startswith("*") and words[1:] in asked):
            print(output, end="")
            print(errors, end="", file=sys.stderr)
            return int(code)
    return 0


if __name__ == "__main__":
    sys.exit(main())

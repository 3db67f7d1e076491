"""Fake commands below a made-up root: each answers by its arguments, fails, floods, or hangs.

They stand in for nvidia-smi, modinfo and docker; what they say was written down from those programs' documentation and
from reports of their users, not recorded.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

_SCRIPT = """#!{python} -IS
import json, sys, time
asked = " ".join(sys.argv[1:])
for pattern, answer in json.loads({answers!r}):
    if pattern in asked:
        time.sleep(answer["seconds"])
        sys.stderr.write(answer["complaint"])
        sys.stdout.write(answer["output"])
        sys.exit(answer["status"])
sys.stderr.write("unknown option: " + asked)
sys.exit(2)
"""


@dataclass(frozen=True)
class Answer:
    """What a command does for arguments that contain a pattern."""

    output: str = ""
    status: int = 0
    complaint: str = ""
    seconds: float = 0.0


def lay_command(root: Path, name: str, answers: dict[str, Answer], folder: str = "usr/bin") -> None:
    """Puts a command below `root`; the first pattern found in its arguments answers."""
    path = root / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = json.dumps([[pattern, asdict(answer)] for pattern, answer in answers.items()])
    path.write_text(_SCRIPT.format(python=sys.executable, answers=rows), encoding="utf-8")
    path.chmod(0o755)


def lay_file(root: Path, path: str, text: str | bytes) -> None:
    """Puts a file below `root`."""
    place = root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(text if isinstance(text, bytes) else text.encode())

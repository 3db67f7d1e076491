"""What the tests ran of the parts that must be tested well: fails where fewer than 90 % of lines or branches were.

    python -m coverage json -o build/coverage.json && python3 scripts/check_coverage.py build/coverage.json

Lives here: the parts and their limit. Not here: what is measured, and what is left out of it (pyproject.toml).
`coverage report --fail-under` looks at lines and branches added up, and lines hide branches. Standard library only.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PARTS = ("app/asr/", "monitoring/", "scripts/")
LEAST = 90.0  # per cent


@dataclass(frozen=True)
class Share:
    """How many of the lines or branches of a part were run."""

    part: str
    kind: str
    ran: int
    there: int

    @property
    def percent(self) -> float:
        """0 where there is nothing: a part that was not measured is no part that is tested."""
        return 100.0 * self.ran / self.there if self.there else 0.0


def shares(files: Mapping[str, Mapping[str, Any]]) -> list[Share]:
    """Lines and branches of each part, from the `files` of coverage's JSON."""
    found = []
    for part in PARTS:
        summaries = [file["summary"] for name, file in files.items() if name.startswith(part)]
        for kind, ran, there in (
            ("lines", "covered_lines", "num_statements"),
            ("branches", "covered_branches", "num_branches"),
        ):
            counts = (sum(one[name] for one in summaries) for name in (ran, there))
            found.append(Share(part, kind, *counts))
    return found


def main(arguments: list[str]) -> int:
    files = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))["files"]
    found = shares(files)
    for share in found:
        print(f"{share.part:<12} {share.kind:<8} {share.percent:5.1f} % ({share.ran} of {share.there})")
    low = [share for share in found if share.percent < LEAST]
    for share in low:
        print(
            f"{share.part}: {share.percent:.1f} % of its {share.kind} were run, {LEAST:g} % must be.\n"
            "  what to do: write tests for what the report above lists, or delete what nothing uses.",
            file=sys.stderr,
        )
    return 1 if low else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

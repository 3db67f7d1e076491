"""`python -m monitoring.dashboards [--check]`: writes the dashboards, or says whether the files are fresh."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from monitoring.dashboards.fleet import fleet
from monitoring.dashboards.host import host
from monitoring.dashboards.out_of_memory import out_of_memory
from monitoring.dashboards.panels import number_panels
from monitoring.dashboards.runbook import runbook
from monitoring.dashboards.service import service

FOLDER = Path(__file__).resolve().parents[1] / "grafana" / "dashboards"
DASHBOARDS = {
    "fleet": fleet,
    "host": host,
    "service": service,
    "out-of-memory": out_of_memory,
    "runbook": runbook,
}


def rendered() -> dict[str, str]:
    """Text of every file, by its name."""
    return {
        f"{name}.json": json.dumps(
            number_panels(make().build()), cls=JSONEncoder, indent=1, ensure_ascii=False, sort_keys=True
        )
        + "\n"
        for name, make in DASHBOARDS.items()
    }


def main(arguments: Sequence[str]) -> int:
    """Exit code: 0 done or fresh, 1 not fresh, or not understood."""
    if list(arguments) not in ([], ["--check"]):
        sys.stderr.write("usage: python -m monitoring.dashboards [--check]\n")
        return 1
    there = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    wanted = rendered()
    if arguments:
        stale = sorted(name for name in {*there, *wanted} if there.get(name) != wanted.get(name))
        if stale:
            sys.stderr.write(f"Not what the code would write: {', '.join(stale)}. Type: make dashboards\n")
        return 1 if stale else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in {*there} - {*wanted}:
        (FOLDER / name).unlink()
    for name, text in wanted.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

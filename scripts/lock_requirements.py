"""Rewrite requirements/*.txt from requirements/*.in: complete, exact pins for every Python we support.

Lives here: how the lock files are made. Does not live here: what is wanted (requirements/*.in) and how an
environment is set up from the locks (scripts/make_venv.sh).

cpu, service, page, cuda, exporter, pack, train and dev are resolved together, so that they fit into one environment.
bench stands alone, because funasr-onnx needs an old numpy, fuzz, because it is only a client, monitoring and ops,
because what makes the dashboards and what provisions a fleet need Python 3.11. torch is left out: make_venv.sh installs
its CPU build by itself.
Needs uv (`python3 -m pip install uv`) and a network: a maintainer's tool, not part of any set-up.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "requirements"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
TOGETHER = ("cpu", "service", "page", "cuda", "exporter", "pack", "train", "dev")
# Each in an environment of its own. The numpy of funasr-onnx has no build for Python 3.13, and grafana-foundation-sdk
# needs Python 3.11, as Ansible does.
ALONE = {"bench": PYTHONS[:3], "fuzz": PYTHONS, "monitoring": PYTHONS[1:], "ops": PYTHONS[1:]}
LEFT_OUT = re.compile(r"(torch|triton|nvidia-(?!ml-py).*|cuda-.*)==")


def resolve(purposes: tuple[str, ...], python: str, constraint: str = "") -> list[str]:
    """Return the pins of `purposes` for one Python version, as sorted lines `name==version`."""
    command = ["uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python-version", python]
    command += ["--python-platform", "x86_64-manylinux_2_28", "--constraint", "-"]
    command += [str(FOLDER / f"{purpose}.in") for purpose in purposes]
    done = subprocess.run(command, input=constraint, check=True, text=True, stdout=subprocess.PIPE)
    return [line for line in done.stdout.splitlines() if not LEFT_OUT.match(line)]


def merge(pins: dict[str, list[str]]) -> str:
    """Write lists of pins by Python version as one list, with markers only where versions differ."""
    versions: dict[str, list[str]] = {}
    for python, lines in pins.items():
        for line in lines:
            versions.setdefault(line, []).append(python)
    rows = []
    for line in sorted(versions):
        pythons = versions[line]
        marker = " or ".join(f'python_version == "{python}"' for python in pythons)
        rows.append(line if len(pythons) == len(pins) else f"{line} ; {marker}")
    return "\n".join(rows) + "\n"


def write(purpose: str, pins: dict[str, list[str]]) -> None:
    head = f"# Made by scripts/lock_requirements.py from {purpose}.in. Complete: install it with --no-deps.\n"
    (FOLDER / f"{purpose}.txt").write_text(head + merge(pins), encoding="utf-8")


def main() -> int:
    constraints = {python: "\n".join(resolve(TOGETHER, python)) for python in PYTHONS}
    for purpose in TOGETHER:
        write(purpose, {python: resolve((purpose,), python, constraints[python]) for python in PYTHONS})
    for purpose, pythons in ALONE.items():
        write(purpose, {python: resolve((purpose,), python) for python in pythons})
    return 0


if __name__ == "__main__":
    sys.exit(main())

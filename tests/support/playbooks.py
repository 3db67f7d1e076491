"""What lies in ansible/, for tests: its Python files as modules, its YAML as data, and playbooks run on this machine.

Ansible itself is in .venv-ops; the files that run on hosts need nothing and are imported here as they are.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
ANSIBLE = ROOT / "ansible"
ROLES = sorted(path for path in (ANSIBLE / "roles").iterdir() if path.is_dir())
PLAYBOOK = ROOT / ".venv-ops" / "bin" / "ansible-playbook"


def module(path: str) -> ModuleType:
    """A Python file below ansible/, which is no package."""
    spec = importlib.util.spec_from_file_location(f"of_{Path(path).stem}", ANSIBLE / path)
    if spec is None or spec.loader is None:
        raise AssertionError(f"{path} is no Python file")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def data(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def run(playbook: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A playbook with the project's settings, and fleet.yml before the inventories in `arguments`."""
    return subprocess.run(
        [PLAYBOOK, "--inventory", ANSIBLE / "fleet.yml", *arguments, playbook],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ANSIBLE / "ansible.cfg"), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def play(plays: list[dict[str, Any]], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs plays from a file beside the playbooks, where roles and filters are found."""
    path = ANSIBLE / f".test-{os.getpid()}.yml"
    path.write_text(yaml.safe_dump(plays, sort_keys=False), encoding="utf-8")
    try:
        return run(path, *arguments)
    finally:
        path.unlink()

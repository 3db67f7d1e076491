"""docs/architecture.md names the environments and files that there are."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_every_environment_is_told_and_no_other() -> None:
    script = (ROOT / "scripts" / "make_venv.sh").read_text(encoding="utf-8")
    made = set(re.findall(r"\) venv=(\.venv[\w-]*)", script))
    assert made and made == set(re.findall(r"^\| `(\.venv[\w-]*)` \|", PAGE, re.MULTILINE))


def test_files_that_are_named_exist() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = listed.splitlines()
    named = set(re.findall(r"`([\w/]+\.(?:py|sh|json|yml|md|hcl))`", PAGE))
    assert named and not [
        name for name in named if not any(f"/{file}".endswith(f"/{name}") for file in files)
    ]

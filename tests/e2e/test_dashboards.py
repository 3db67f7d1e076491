"""The dashboards in the repository are what their code writes. Needs .venv-monitoring, which it sets up."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.monitoring import DASHBOARDS, ROOT

PYTHON = ROOT / ".venv-monitoring" / "bin" / "python"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is needed, so that a file of it can be spoiled."""
    made = [str(ROOT / "scripts" / "make_venv.sh"), "monitoring"]
    done = subprocess.run(made, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "monitoring", folder / "monitoring")
    (folder / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "runbook.md", folder / "docs")
    return folder


def check(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(PYTHON), "-m", "monitoring.dashboards", "--check"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_files_are_fresh(copy: Path) -> None:
    done = check(copy)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_changed_panel_and_a_changed_runbook_are_seen(copy: Path) -> None:
    path = copy / "monitoring" / "grafana" / "dashboards" / "fleet.json"
    made = json.loads(path.read_text(encoding="utf-8"))
    made["title"] = "by hand"
    path.write_text(json.dumps(made), encoding="utf-8")
    page = copy / "docs" / "runbook.md"
    page.write_text(page.read_text(encoding="utf-8").replace("**Do** ", "**Do** not ", 1), encoding="utf-8")
    done = check(copy)
    assert done.returncode == 1
    assert done.stderr == "Not what the code would write: fleet.json, runbook.json. Type: make dashboards\n"


def test_writing_makes_them_fresh_and_removes_what_is_gone(copy: Path) -> None:
    stray = copy / "monitoring" / "grafana" / "dashboards" / "old.json"
    stray.write_text("{}", encoding="utf-8")
    subprocess.run([PYTHON, "-m", "monitoring.dashboards"], cwd=copy, check=True)
    assert check(copy).returncode == 0
    assert not stray.exists()
    assert {path.name for path in stray.parent.glob("*.json")} == {
        path.name for path in DASHBOARDS.glob("*.json")
    }

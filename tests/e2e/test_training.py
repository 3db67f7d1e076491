"""The script that made the demo model still runs, from synthesis to report, with hardly any training."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("espeakng_loader", reason="the synthesiser is not installed")
pytest.importorskip("funasr", reason="FunASR is not installed")

ROOT = Path(__file__).resolve().parents[2]


def test_every_stage_of_the_training_runs(tmp_path: Path) -> None:
    output, report = tmp_path / "demo", tmp_path / "report.json"
    command = [sys.executable, "-m", "scripts.train_demo_model", "--smoke", "--threads", "1"]
    done = subprocess.run(
        [*command, "--output", str(output), "--report", str(report)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert {path.name for path in output.iterdir()} >= {"model.pt", "config.yaml", "tokens.json", "am.mvn"}
    told = json.loads(report.read_text(encoding="utf-8"))
    assert told["scores"]["plain, no hot words"]["utterances"] == 2
    # Every stage leaves its weights behind, so that a run that was stopped can go on.
    assert len(list((tmp_path / "demo-work").glob("*.pt"))) >= 6

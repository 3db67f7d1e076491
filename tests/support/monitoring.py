"""Prometheus and Alertmanager for tests, and what the files of monitoring/ say.

The programs are those of Debian's packages (scripts/install_prometheus.sh).
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring.exporter.names import METRICS

ROOT = Path(__file__).resolve().parents[2]
ALERTS = ROOT / "monitoring" / "alerts"
ALERT_TESTS = ROOT / "tests" / "monitoring" / "alerts"
DASHBOARDS = ROOT / "monitoring" / "grafana" / "dashboards"
_CANNOT = 3  # exit code of the script below


@cache
def program(name: str) -> str:
    """Path of one of Prometheus's programs, which are installed where they are missing. Skips where they cannot be."""
    if shutil.which(name) is None:
        script = ROOT / "scripts" / "install_prometheus.sh"
        done = subprocess.run([script], capture_output=True, text=True, check=False)
        if done.returncode == _CANNOT:
            pytest.skip(done.stderr.strip())
        assert done.returncode == 0, done.stderr
    return str(shutil.which(name))


def promtool(*arguments: str | Path) -> str:
    """Runs promtool; fails with what it said when it is not content."""
    done = subprocess.run([program("promtool"), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rules() -> list[dict[str, Any]]:
    """All rules of monitoring/alerts."""
    return [
        rule
        for path in sorted(ALERTS.glob("*.yml"))
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
    ]


def alerts() -> dict[str, dict[str, Any]]:
    """Alerts by name."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def recorded() -> dict[str, dict[str, Any]]:
    """Recording rules by the name of what they record."""
    return {rule["record"]: rule for rule in rules() if "record" in rule}


def metrics_in(expression: str) -> set[str]:
    """Names of the product's metrics in an expression of PromQL, those of recording rules included."""
    without_strings = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression)
    found = re.findall(
        r"(?<![\w:])(?:[a-z]+:)?asr_\w+(?::\w+)?|(?<![\w:])up\b|(?<![\w:])ALERTS\b", without_strings
    )
    return set(found)


def product_metrics() -> set[str]:
    """Names of the service's and the exporter's metrics."""
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")  # held to the code by a test of its own
    return set(re.findall(r"^\| `(asr_\w+)` \|", page, re.MULTILINE)) | set(METRICS)


def unknown(expressions: Iterable[str]) -> set[str]:
    """Names in expressions that are neither a metric nor recorded by a rule."""
    known = product_metrics() | set(recorded()) | {"up", "ALERTS"}
    used = {name for expression in expressions for name in metrics_in(expression)}
    return {name for name in used - known if re.sub(r"_(bucket|sum|count)$", "", name) not in known}

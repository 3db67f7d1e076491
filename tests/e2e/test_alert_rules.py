"""The rules by promtool: well-formed, firing when they must and silent when they must. Needs Debian's Prometheus."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.monitoring import ALERT_TESTS, ALERTS, ROOT, program, promtool

CONFIG = ROOT / "monitoring" / "prometheus" / "prometheus.yml"


def test_rules_and_configuration_are_well_formed() -> None:
    promtool("check", "rules", *sorted(ALERTS.glob("*.yml")))
    told = promtool("check", "config", CONFIG)
    assert f"{len(list(ALERTS.glob('*.yml')))} rule files found" in told
    alertmanager = ROOT / "monitoring" / "alertmanager" / "alertmanager.yml"
    subprocess.run([program("amtool"), "check-config", alertmanager], check=True, capture_output=True)


@pytest.mark.parametrize("test", sorted(path.name for path in ALERT_TESTS.glob("*.yml")))
def test_rules_fire_and_keep_silent(test: str, tmp_path: Path) -> None:
    """On a copy without texts: promtool compares these too, and a better wording must not break a test."""
    for path in ALERTS.glob("*.yml"):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        for group in content["groups"]:
            for rule in group["rules"]:
                rule.pop("annotations", None)
        (tmp_path / path.name).write_text(yaml.safe_dump(content), encoding="utf-8")
    copy = tmp_path / f"test_{test}"
    copy.write_text((ALERT_TESTS / test).read_text(encoding="utf-8"), encoding="utf-8")
    promtool("test", "rules", copy)

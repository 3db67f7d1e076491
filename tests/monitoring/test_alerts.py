"""Rules, their tests and the runbook fit together: nothing untested, nothing without a remedy, only names that exist.

Whether the rules fire is promtool's to say: tests/e2e/test_alert_rules.py.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

import pytest
import yaml

from app.asr.memory import CACHE_VARIABLE
from app.service.settings import PREFIX, Settings
from monitoring.exporter.names import NVML_ERRORS, THROTTLE_REASONS
from tests.support.monitoring import (
    ALERT_TESTS,
    ROOT,
    alerts,
    metrics_in,
    recorded,
    rules,
    unknown,
)

RUNBOOK = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
# What each remedy must keep saying, whatever its wording: the first thing a hand does.
CORRECTIONS = {
    "AsrContainerOomKill": "Raise the container's memory limit",
    "AsrHostOomKill": "journalctl -k",
    "AsrVramHeadroomLow": "nvidia-smi",
    "AsrDriverMismatch": "Reboot the host",
    "AsrNvmlFailing": "nvidia-smi",
    "AsrCanaryWrongText": "out of the gateway before anything else",
    "AsrSelfCheckFailed": "ASR_PRECISION=fp32",
    "AsrVariantDrift": "provision the host again",
    "AsrServiceDown": "docker compose logs",
    "AsrXidCritical": "reboot",
}


def checked() -> dict[str, set[bool]]:
    """Alerts of promtool's tests, with whether they were seen firing, and not firing."""
    seen: dict[str, set[bool]] = defaultdict(set)
    for part in promtool_tests():
        for check in part.get("alert_rule_test", []):
            seen[check["alertname"]].add(bool(check["exp_alerts"]))
    return seen


def promtool_tests() -> list[dict[str, Any]]:
    return [
        part
        for path in sorted(ALERT_TESTS.glob("*.yml"))
        for part in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]
    ]


@pytest.mark.parametrize("name", alerts())
def test_every_alert_is_seen_firing_and_not_firing(name: str) -> None:
    assert checked()[name] == {True, False}


def test_no_test_is_for_an_alert_that_is_gone() -> None:
    assert set(checked()) <= set(alerts())


def test_every_recorded_figure_is_computed_in_a_test() -> None:
    expressions = " ".join(
        check["expr"] for part in promtool_tests() for check in part.get("promql_expr_test", [])
    )
    figures = {name for name in recorded() if not name.startswith("threshold:")}
    assert figures == metrics_in(expressions) & figures


def test_names_are_used_once() -> None:
    names = [rule.get("alert") or rule["record"] for rule in rules()]
    assert len(names) == len(set(names))


def test_rules_use_only_metrics_that_there_are() -> None:
    assert not unknown(str(rule["expr"]) for rule in rules())


def test_every_limit_is_in_one_place_and_used() -> None:
    compared = {name for rule in alerts().values() for name in metrics_in(rule["expr"])}
    limits = {name for name in recorded() if name.startswith("threshold:")}
    assert limits == {name for name in compared if name.startswith("threshold:")}
    for name, rule in alerts().items():
        bare = re.search(r"[<>]=?\s*([\d.]+)", re.sub(r"\[[^]]*\]|\"[^\"]*\"", "", rule["expr"]))
        assert bare is None or float(bare[1]) in (0, 3600), f"{name} compares with a number of its own"


def test_values_of_labels_are_those_that_the_exporter_gives() -> None:
    whole = " ".join(str(rule["expr"]) for rule in rules())
    assert set(re.findall(r'error!?="(\w+)"', whole)) <= set(NVML_ERRORS)
    [pattern] = re.findall(r'reason=~"([^"]+)"', whole)
    assert {reason for reason in THROTTLE_REASONS if re.fullmatch(pattern, reason)} == {
        "sw_thermal_slowdown",
        "hw_thermal_slowdown",
        "hw_power_brake_slowdown",
    }


def test_critical_and_warning_xids_are_told_apart() -> None:
    def listed(name: str) -> set[str]:
        [found] = re.findall(r'xid=~?"([\d|]+)"', alerts()[name]["expr"])
        return set(found.split("|"))

    assert not listed("AsrXidCritical") & listed("AsrXidWarning")
    assert not (listed("AsrXidCritical") | listed("AsrXidWarning")) & {"13", "31", "43"}


@pytest.mark.parametrize(("name", "rule"), alerts().items())
def test_every_alert_says_what_to_do(name: str, rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    told = rule["annotations"]
    assert set(told) == {"summary", "remedy", "runbook"}
    assert told["runbook"] == f"docs/runbook.md#{name.lower()}"
    assert re.match(r"Asr[A-Z]", name)
    assert len(told["remedy"]) > 60 and told["remedy"].endswith(".")
    assert CORRECTIONS.get(name, "") in told["remedy"]


def test_the_remedies_that_are_held_belong_to_alerts() -> None:
    assert set(CORRECTIONS) <= set(alerts())


def test_the_runbook_has_a_section_for_each_alert_and_no_other() -> None:
    sections = re.findall(r"^### (\w+)$", RUNBOOK, re.MULTILINE)
    assert sorted(sections) == sorted(alerts())


@pytest.mark.parametrize("name", alerts())
def test_each_section_says_what_it_means_how_to_see_it_and_what_to_do(name: str) -> None:
    body = re.split(r"^#+ ", RUNBOOK.partition(f"### {name}\n")[2], flags=re.MULTILINE)[0]
    assert re.findall(r"^\*\*(\w+)\*\*", body, re.MULTILINE) == ["Means", "See", "Do"]


def test_the_runbook_names_metrics_and_settings_that_there_are() -> None:
    assert not unknown(re.findall(r"`([^`]+)`", RUNBOOK))
    told = RUNBOOK + " ".join(rule["annotations"]["remedy"] for rule in alerts().values())
    settings = {PREFIX + name.upper() for name in Settings.model_fields} | {CACHE_VARIABLE}
    assert set(re.findall(r"ASR_[A-Z_]+", told)) <= settings

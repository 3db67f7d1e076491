"""The dashboards as Grafana gets them: complete, of metrics that exist, linked to sections that exist.

Whether each query gives data is seen in tests/e2e/test_monitoring.py, and whether the files are what the code writes in
tests/e2e/test_dashboards.py.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from tests.support.monitoring import DASHBOARDS, ROOT, alerts, recorded, unknown

MADE = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(DASHBOARDS.glob("*.json"))}
PANELS = [(name, panel) for name, made in MADE.items() for panel in made["panels"] if panel["type"] != "row"]
DRAWN = [(name, panel) for name, panel in PANELS if panel["type"] != "text"]


def named(panels: list[tuple[str, dict[str, Any]]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("name", "panel"), panels, ids=[f"{name}: {panel['title']}" for name, panel in panels]
    )


def expressions(panel: dict[str, Any]) -> list[str]:
    return [target["expr"] for target in panel["targets"]]


def test_there_are_the_dashboards_that_the_documents_name() -> None:
    assert set(MADE) == {"fleet", "host", "service", "out-of-memory", "runbook"}
    assert len({made["uid"] for made in MADE.values()}) == len(MADE)
    for made in MADE.values():
        numbers = [panel["id"] for panel in made["panels"]]
        assert numbers == list(range(1, len(numbers) + 1))
        assert not made["editable"] and made["description"]


@named(PANELS)
def test_every_panel_says_what_it_shows(name: str, panel: dict[str, Any]) -> None:
    assert panel["title"] and panel["description"]


@named(DRAWN)
def test_every_drawn_panel_has_a_unit_the_chosen_source_and_known_metrics(
    name: str, panel: dict[str, Any]
) -> None:
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert not unknown(expressions(panel))
    references = [target["refId"] for target in panel["targets"]]
    assert references == [chr(ord("A") + place) for place in range(len(references))]


@named(DRAWN)
def test_what_a_dashboard_lets_choose_is_what_its_queries_use(name: str, panel: dict[str, Any]) -> None:
    variables = {variable["name"] for variable in MADE[name]["templating"]["list"]}
    for expression in expressions(panel):
        used = set(re.findall(r"\$(?!__)\{?(\w+)", expression))
        assert used <= variables
        if "instance" in variables and not expression.startswith("threshold:"):
            assert "instance" in used, "a panel that shows all hosts on a page of one"
        assert not re.search(r"rate\([^)]*\[\d+[sm]\]", expression), (
            "use $__rate_interval, or a recorded figure"
        )


@named(DRAWN)
def test_links_lead_to_the_right_section(name: str, panel: dict[str, Any]) -> None:
    titles = {section["id"]: section["title"] for section in MADE["runbook"]["panels"]}
    for link in panel["links"]:
        number = re.fullmatch(r"/d/asr-runbook\?viewPanel=(\d+)", link["url"])
        assert number is not None
        assert link["title"] == f"{titles[int(number[1])]}: what to do"
        assert titles[int(number[1])] in alerts()


def test_every_alert_has_its_section_inside_grafana_without_dead_links() -> None:
    sections = {panel["title"]: panel["options"]["content"] for panel in MADE["runbook"]["panels"]}
    assert set(alerts()) < set(sections)
    assert not [title for title, text in sections.items() if re.search(r"\]\((?!https?:)", text)]


def test_every_limit_is_drawn_where_its_figure_is() -> None:
    drawn = {expression for _, panel in DRAWN for expression in expressions(panel)}
    not_drawn = {
        "threshold:asr_audio_seconds:min",
        "threshold:asr_vram_plan_ratio:max",
    }  # no figure of their own
    assert {name for name in recorded() if name.startswith("threshold:")} - drawn == not_drawn


def test_grafana_is_told_where_the_files_are() -> None:
    folder = ROOT / "monitoring" / "grafana" / "provisioning"
    [provider] = yaml.safe_load((folder / "dashboards" / "dashboards.yml").read_text("utf-8"))["providers"]
    assert provider["type"] == "file" and provider["allowUiUpdates"] is False
    [source] = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text("utf-8"))["datasources"]
    assert source["type"] == "prometheus" and source["isDefault"] and source["uid"]
    scraped = yaml.safe_load((ROOT / "monitoring" / "prometheus" / "prometheus.yml").read_text("utf-8"))
    assert source["jsonData"]["timeInterval"] == scraped["global"]["scrape_interval"]

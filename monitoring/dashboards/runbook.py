"""The runbook inside Grafana: docs/runbook.md as a dashboard of text panels, so that a link from a panel ends at its
section, also on a network without any other page.

Here: reading the sections, and links to them. The text itself is docs/runbook.md's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import text
from grafana_foundation_sdk.models import dashboard
from grafana_foundation_sdk.models.text import TextMode

PAGE = Path(__file__).resolve().parents[2] / "docs" / "runbook.md"
UID = "asr-runbook"


@cache
def sections() -> Mapping[str, str]:
    """What to do, by alert, in the page's order; under the empty name what comes before the first one."""
    page = PAGE.read_text(encoding="utf-8")
    parts = re.split(r"^#{2,3} +(.+)$", page, flags=re.MULTILINE)
    found = {"": re.sub(r"^# .*\n", "", parts[0]).strip()}
    found.update(
        {name: body.strip() for name, body in zip(parts[1::2], parts[2::2], strict=True) if body.strip()}
    )
    return found


def links(alerts: Iterable[str]) -> list[builders.DashboardLink]:
    """Links to the sections of alerts.

    Raises:
        KeyError: the runbook has no such section.
    """
    places = {name: place for place, name in enumerate(sections(), start=1)}
    return [
        builders.DashboardLink(f"{alert}: what to do")
        .type(dashboard.DashboardLinkType.LINK)
        .url(f"/d/{UID}?viewPanel={places[alert]}")
        for alert in alerts
    ]


def runbook() -> builders.Dashboard:
    """The dashboard; a panel a section, numbered in the page's order."""
    made = builders.Dashboard("ASR runbook").uid(UID).tags(["asr"]).readonly()
    made.description("What each alert means, how to see it, what to do. The text is docs/runbook.md.")
    for name, body in sections().items():
        panel = (
            text.Panel().title(name or "How to use this").mode(TextMode.MARKDOWN).content(_for_grafana(body))
        )
        panel.description("From docs/runbook.md")
        made.with_panel(panel.span(24 if not name else 12).height(6 if not name else 7))
    return made


def _for_grafana(body: str) -> str:
    """Links between files of this repository lead nowhere there; their words stay."""
    return re.sub(r"\[([^\]]+)\]\((?!https?:)[^)]*\)", r"\1", body)

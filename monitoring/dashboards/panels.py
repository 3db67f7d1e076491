"""Building blocks of the dashboards: a panel in one call, alike on all of them.

Here: what every panel carries (data source, description, unit, links to the runbook, the limit as a dashed line), and
the variables of a dashboard. Which figures are shown is told in fleet.py, host.py, service.py and out_of_memory.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from monitoring.dashboards import runbook

SOURCE = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")
TAG = "asr"
LIMIT = "limit"  # the legend of every limit, by which it gets its looks
_REFERENCES = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"  # Grafana's names of a panel's queries
# The host or hosts chosen at the top of a dashboard.
HOSTS = 'instance=~"$instance"'


@dataclass(frozen=True)
class Graph:
    """Lines over time.

    Attributes:
        title, text: what is seen; why it matters, or how to read it.
        unit: one of Grafana's names of units.
        series: expressions, each with the legend of its lines.
        limit: a series of thresholds.yml, drawn dashed.
        alerts: those that watch these figures; each becomes a link to its section of the runbook.
        width: of 24.
    """

    title: str
    text: str
    unit: str
    series: Sequence[tuple[str, str]]
    limit: str | None = None
    alerts: Sequence[str] = ()
    width: int = 12
    stacked: bool = False
    bars: bool = False
    most: float | None = None


@dataclass(frozen=True)
class Figure:
    """One number now, or a name where `legend` gives one. `steps` colour it: (from this value on, colour), the first
    without a value."""

    title: str
    text: str
    unit: str
    expression: str
    steps: Sequence[tuple[float | None, str]] = ((None, "text"),)
    alerts: Sequence[str] = ()
    width: int = 4
    legend: str = ""


@dataclass(frozen=True)
class Table:
    """Rows now.

    Attributes:
        columns: expressions by heading; one without a heading is there for its labels only.
        key: the label by which rows of the columns are joined.
        labels: those of the first column that are shown.
        units: of columns, by heading.
        link: where a click on the key leads.
    """

    title: str
    text: str
    columns: Mapping[str, str]
    key: str = "instance"
    labels: Sequence[str] = ()
    units: Mapping[str, str] | None = None
    link: str | None = None
    alerts: Sequence[str] = ()
    width: int = 24
    height: int = 8


def graph(told: Graph) -> timeseries.Panel:
    """The panel for a Graph."""
    panel = (
        timeseries.Panel()
        .title(told.title)
        .description(told.text)
        .datasource(SOURCE)
        .unit(told.unit)
        .min(0)
        .span(told.width)
        .height(8)
        .line_width(2)
        .fill_opacity(30 if told.stacked else 80 if told.bars else 8)
        .show_points(common.VisibilityMode.NEVER)
        .legend(common_builders.VizLegendOptions().show_legend(True).placement(common.LegendPlacement.BOTTOM))
        .tooltip(common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI))
        .links(runbook.links(told.alerts))
    )
    if told.bars:
        panel.draw_style(common.GraphDrawStyle.BARS)
    if told.stacked:
        panel.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
    if told.most is not None:
        panel.max(told.most)
    limits = [(told.limit, LIMIT)] if told.limit is not None else []
    for place, (expression, legend) in enumerate([*told.series, *limits]):
        query = prometheus.Dataquery().expr(expression).legend_format(legend).range()
        panel.with_target(query.ref_id(_REFERENCES[place]))
    if limits:
        panel.override_by_name(
            LIMIT,
            [
                dashboard.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": "red"}),
                dashboard.DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [8, 8]}),
                dashboard.DynamicConfigValue("custom.fillOpacity", 0),
                dashboard.DynamicConfigValue("custom.stacking", {"mode": "none"}),
            ],
        )
    return panel


def figure(told: Figure) -> stat.Panel:
    """The panel for a Figure."""
    steps = [dashboard.Threshold(value=value, color=color) for value, color in told.steps]
    query = prometheus.Dataquery().expr(told.expression).legend_format(told.legend).ref_id("A").instant()
    shown = common.BigValueTextMode.NAME if told.legend else common.BigValueTextMode.AUTO
    return (
        stat.Panel()
        .title(told.title)
        .description(told.text)
        .datasource(SOURCE)
        .unit(told.unit)
        .span(told.width)
        .height(4)
        .graph_mode(common.BigValueGraphMode.NONE)
        .text_mode(shown)
        .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(builders.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(steps))
        .links(runbook.links(told.alerts))
        .with_target(query)
    )


def rows(told: Table) -> table.Panel:
    """The panel for a Table."""
    panel = (
        table.Panel()
        .title(told.title)
        .description(told.text)
        .datasource(SOURCE)
        .unit("short")
        .span(told.width)
        .height(told.height)
        .links(runbook.links(told.alerts))
    )
    renamed = {}
    for place, (heading, expression) in enumerate(told.columns.items()):
        ref = _REFERENCES[place]
        query = prometheus.Dataquery().expr(expression).ref_id(ref).instant().format(PromQueryFormat.TABLE)
        panel.with_target(query)
        if heading:
            renamed[f"Value #{ref}" if len(told.columns) > 1 else "Value"] = heading
    kept = "|".join([told.key, *told.labels, *renamed])
    if len(told.columns) > 1:
        joining = {"byField": told.key, "mode": "outer"}
        panel.with_transformation(dashboard.DataTransformerConfig(id_val="joinByField", options=joining))
    panel.with_transformation(
        dashboard.DataTransformerConfig(
            id_val="filterFieldsByName", options={"include": {"pattern": f"^({kept})$"}}
        )
    )
    order = {name: place for place, name in enumerate([told.key, *told.labels, *renamed])}
    options = {"excludeByName": {}, "indexByName": order, "renameByName": renamed}
    panel.with_transformation(dashboard.DataTransformerConfig(id_val="organize", options=options))
    if told.link is not None:
        panel.override_by_name(
            told.key, [dashboard.DynamicConfigValue("links", [{"title": "Open", "url": told.link}])]
        )
    for heading, unit in (told.units or {}).items():
        panel.override_by_name(heading, [dashboard.DynamicConfigValue("unit", unit)])
    return panel


def new_dashboard(title: str, uid: str, description: str) -> builders.Dashboard:
    """An empty dashboard with what all of them have: data source to choose, links to the others, no editing."""
    to_others = (
        builders.DashboardLink("Dashboards")
        .type(dashboard.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .as_dropdown(True)
        .include_vars(True)
        .keep_time(True)
    )
    return (
        builders.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .readonly()
        .timezone("browser")
        .time("now-6h", "now")
        .refresh("30s")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .link(to_others)
        .with_variable(builders.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )


def hosts_variable(*, several: bool) -> builders.QueryVariable:
    """The choice of a host, or of several or all."""
    chosen = (
        builders.QueryVariable("instance")
        .label("Host")
        .datasource(SOURCE)
        .query('label_values(up{job="asr"}, instance)')
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
    )
    if several:
        everything = dashboard.VariableOption(text="All", value="$__all")
        chosen.multi(True).include_all(True).all_value(".+").current(everything)
    return chosen


def row(title: str) -> builders.Row:
    """A heading."""
    return builders.Row(title)


def number_panels(made: dashboard.Dashboard) -> dashboard.Dashboard:
    """Gives every panel a number of its own, in the order of the page."""
    for number, panel in enumerate(made.panels or [], start=1):
        panel.id_val = number
    return made

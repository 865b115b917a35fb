"""Reads the template's Grafana files: dashboards, data sources and the queries in them."""

import json
import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.format_dashboards import DASHBOARDS
from tests.support.template import TEMPLATE

GRAFANA = TEMPLATE / "observability" / "grafana"
DATASOURCES = GRAFANA / "datasources" / "datasources.yml"
PROVIDERS = GRAFANA / "dashboards" / "dashboards.yml"
each_dashboard = pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)

LANGUAGES = {"prometheus": "promql", "loki": "logql", "tempo": "traceql"}

Json = dict[str, Any]

# Metric -> all its labels. tests/stack/programs/test_promql.py and tests/stack/programs/test_traceql.py compare
# these tables with what real Prometheus has.
_TARGET = {"job", "instance"}  # Prometheus adds them to what it scrapes
_SPAN = {"service", "span_name", "span_kind", "status_code", "__metrics_gen_instance"}
_CALL = {"client", "server", "connection_type", "__metrics_gen_instance"}
_REQUEST = {"method", "endpoint", *_TARGET}
BURN_WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d", "30d")

SCRAPED: Mapping[str, Set[str]] = {
    "up": _TARGET,
    "http_requests_total": {"status", *_REQUEST},
    "http_request_duration_seconds_bucket": {"le", *_REQUEST},
    "http_request_duration_seconds_count": _REQUEST,
    "http_request_duration_seconds_sum": _REQUEST,
    "active_requests": _TARGET,
    "process_cpu_seconds_total": _TARGET,
    "process_resident_memory_bytes": _TARGET,
}
# By the rules in prometheus/rules/slo.yml.
RECORDED: Mapping[str, Set[str]] = {
    "slo:objective:ratio": {"slo"},
    "endpoint:http_requests:rate5m": {"job", "endpoint"},
    "endpoint:slo_errors:rate5m": {"job", "endpoint", "slo"},
    **{f"job:slo_errors:ratio_rate{window}": {"job", "slo"} for window in BURN_WINDOWS},
    **{f"job:slo_burn_rate:ratio_rate{window}": {"job", "slo"} for window in BURN_WINDOWS},
}
# By Tempo, from spans. Grafana itself draws the service graph from those named so.
SERVICE_GRAPH = {
    "traces_service_graph_request_total": _CALL,
    "traces_service_graph_request_failed_total": _CALL,
    "traces_service_graph_request_server_seconds_sum": _CALL,
    "traces_service_graph_request_server_seconds_bucket": {"le", *_CALL},
}
GENERATED: Mapping[str, Set[str]] = {
    "traces_spanmetrics_calls_total": _SPAN,
    "traces_spanmetrics_latency_bucket": {"le", *_SPAN},
    **SERVICE_GRAPH,
}
METRICS = {**SCRAPED, **RECORDED, **GENERATED}
# What Promtail makes of a line.
LOG_LABELS = {"service", "container", "stream", "project", "level"}
LOG_METADATA = {"trace_id", "span_id"}

# What Grafana puts in place of its own variables.
VALUES = {
    "__auto": "20s",
    "__rate_interval": "20s",
    "__range": "15m",
    "__trace.traceId": "0af7651916cd43dd8448eb211c80319c",
}
_VARIABLE = re.compile(r"\$(?:\{([a-zA-Z_][\w.]*)(?::\w+)?\}|([a-zA-Z_]\w*))")


@dataclass(frozen=True)
class Query:
    """A query of a panel, a variable or a link between data sources, as it stands in its file."""

    name: str  # where it is
    language: str
    text: str
    legend: str = ""
    instant: bool = False
    exemplar: bool = False
    interval: str = ""  # between two points at least
    variables: Mapping[str, str] = field(default_factory=dict)  # that stand there -> usual value

    @property
    def from_spans(self) -> bool:
        """Tell whether it reads metrics that Tempo makes."""
        return any(metric in self.text for metric in GENERATED)

    @property
    def is_quotient(self) -> bool:
        """Tell whether it would be NaN without requests, 0 / 0, if it had no guard."""
        return " / " in self.text or "histogram_quantile" in self.text

    def rendered(self, **values: str) -> str:
        """Return the query as the data source gets it; ``values`` replace the usual ones.

        Raises:
            KeyError: the query has a variable that does not exist where it stands.
        """
        known = {**VALUES, **self.variables, **values}
        return _VARIABLE.sub(lambda match: known[match[1] or match[2]], self.text)


def each_query(found: list[Query]) -> pytest.MarkDecorator:
    """Return a decorator that runs a test for each of these queries."""
    assert found
    return pytest.mark.parametrize("query", found, ids=lambda query: query.name)


def load(path: Path) -> Json:
    """Return the dashboard in a file."""
    dashboard: Json = json.loads(path.read_text(encoding="utf-8"))
    return dashboard


def datasources() -> list[Json]:
    """Return the provisioned data sources, with their links as Grafana reads them."""
    text = DATASOURCES.read_text(encoding="utf-8")
    sources: list[Json] = yaml.safe_load(text)["datasources"]
    return sources


def all_panels(dashboard: Json) -> list[Json]:
    """Return the panels of a dashboard, rows too, also those inside a collapsed row."""
    top = dashboard["panels"]
    return [*top, *(panel for row in top for panel in row.get("panels", []))]


def panels(dashboard: Json) -> list[Json]:
    """Return the panels that show something."""
    return [panel for panel in all_panels(dashboard) if panel["type"] != "row"]


def variables(dashboard: Json) -> dict[str, str]:
    """Return the dashboard's variables with the value that selects everything, else the usual."""
    return {
        variable["name"]: variable.get("allValue", variable["current"]["value"])
        for variable in dashboard["templating"]["list"]
    }


def queries() -> list[Query]:
    """Return every query in the files."""
    found = [query for path in DASHBOARDS for query in _dashboard_queries(load(path))]
    return [*found, *_link_queries()]


def _dashboard_queries(dashboard: Json) -> Iterator[Query]:
    uid, known = dashboard["uid"], variables(dashboard)
    for variable in dashboard["templating"]["list"]:
        if variable.get("datasource", {}).get("type") == "prometheus":
            # label_values(selector, label): the selector is a query of its own.
            text = re.sub(r"^label_values\((.+),\s*\w+\)$", r"\1", variable["query"]["query"])
            name = f"{uid} / ${variable['name']}"
            yield Query(name, "promql", text, instant=True, variables=known)
    for panel in panels(dashboard):
        for target in panel["targets"]:
            name = f"{uid} / {panel['title']} ({panel['type']}) {target['refId']}"
            if target.get("queryType") == "serviceMap":
                for metric in SERVICE_GRAPH:
                    text = f"rate({metric}{target['serviceMapQuery']}[$__range])"
                    yield Query(f"{name} {metric}", "promql", text, instant=True)
                continue
            yield Query(
                name,
                LANGUAGES[target["datasource"]["type"]],
                target.get("expr") or target["query"],
                target.get("legendFormat", ""),
                target.get("instant", False),
                target.get("exemplar", False),
                target.get("interval", ""),
                known,
            )


def _link_queries() -> Iterator[Query]:
    """Yield the queries that lead from a span to its logs and metrics."""
    for source in datasources():
        settings = source["jsonData"]
        if link := settings.get("tracesToLogsV2"):
            yield _link_query("tracesToLogsV2", "logql", link, link["query"], "backend")
        if link := settings.get("tracesToMetrics"):
            for each in link["queries"]:
                name = f"tracesToMetrics {each['name']}"
                yield _link_query(name, "promql", link, each["query"], ".+")


def _link_query(name: str, language: str, link: Json, text: str, value: str) -> Query:
    """Return a query in which ``$__tags`` stands for the link's labels, each of this value."""
    tags = ", ".join(f'{tag["value"]}=~"{value}"' for tag in link["tags"])
    return Query(f"datasources / {name}", language, unescaped(text), variables={"__tags": tags})


def unescaped(text: str) -> str:
    """Return a value of a provisioning file as Grafana keeps it: there, ``$$`` stands for ``$``."""
    return text.replace("$$", "$")


def strings(value: object) -> Iterator[str]:
    """Yield every string inside a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


def objects(value: object) -> Iterator[Json]:
    """Yield every object inside a JSON value."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from objects(item)


def tables(**target: str) -> list[Json]:
    """Return the tables whose first query has these settings."""
    return [
        panel
        for path in DASHBOARDS
        for panel in panels(load(path))
        if panel["type"] == "table" and panel["targets"][0].items() >= target.items()
    ]


def renamed(table: Json) -> dict[str, str]:
    """Return the new names of a table's columns."""
    (organize,) = (step for step in table["transformations"] if step["id"] == "organize")
    names: dict[str, str] = organize["options"]["renameByName"]
    return names

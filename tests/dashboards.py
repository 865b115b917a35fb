"""Reads the template's Grafana files: dashboards, data sources and the queries in them.

Run as a program it rewrites every dashboard in the one format that the tests accept, which also
turns what Grafana exports into a readable file.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

TEMPLATE = Path(__file__).resolve().parents[1] / "{{cookiecutter.project_slug}}"
GRAFANA = TEMPLATE / "observability" / "grafana"
DATASOURCES = GRAFANA / "datasources" / "datasources.yml"
PROVIDERS = GRAFANA / "dashboards" / "dashboards.yml"
DASHBOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))

LANGUAGES = {"prometheus": "promql", "loki": "logql", "tempo": "traceql"}
LINE_LENGTH = 100

Json = dict[str, Any]

# Metric -> its own labels. Prometheus adds TARGET_LABELS to every series that it scrapes.
# tests/test_dashboard_queries.py compares this table with a real scrape.
TARGET_LABELS = frozenset({"job", "instance"})
METRICS: Mapping[str, frozenset[str]] = {
    "up": frozenset(),
    "http_requests_total": frozenset({"method", "endpoint", "status"}),
    "http_request_duration_seconds_bucket": frozenset({"method", "endpoint", "le"}),
    "http_request_duration_seconds_count": frozenset({"method", "endpoint"}),
    "http_request_duration_seconds_sum": frozenset({"method", "endpoint"}),
    "active_requests": frozenset(),
    "process_cpu_seconds_total": frozenset(),
    "process_resident_memory_bytes": frozenset(),
}

# What Grafana puts in place of its own variables; those of a dashboard select everything.
VALUES = {
    "__rate_interval": "20s",
    "__range": "15m",
    "__tags": 'method="GET"',
    "__trace.traceId": "0af7651916cd43dd8448eb211c80319c",
}
ALL = ".*"
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

    def rendered(self, **values: str) -> str:
        """Return the query as the data source gets it; ``values`` replace the usual ones.

        Raises:
            KeyError: the query has a variable that does not exist where it stands.
        """
        known = {**VALUES, **dict.fromkeys(self._dashboard_variables(), ALL), **values}
        return _VARIABLE.sub(lambda match: known[match[1] or match[2]], self.text)

    def _dashboard_variables(self) -> list[str]:
        uid = self.name.partition(" / ")[0]
        return [name for path in DASHBOARDS if path.stem == uid for name in variables(load(path))]


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


def variables(dashboard: Json) -> list[str]:
    """Return the names of the dashboard's variables."""
    return [variable["name"] for variable in dashboard["templating"]["list"]]


def queries() -> list[Query]:
    """Return every query in the files."""
    found = [query for path in DASHBOARDS for query in _dashboard_queries(load(path))]
    return [*found, *_link_queries()]


def _dashboard_queries(dashboard: Json) -> Iterator[Query]:
    uid = dashboard["uid"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            # label_values(selector, label): the selector is a query of its own.
            text = re.sub(r"^label_values\((.+),\s*\w+\)$", r"\1", variable["query"]["query"])
            yield Query(f"{uid} / ${variable['name']}", "promql", text, instant=True)
    for panel in panels(dashboard):
        for target in panel["targets"]:
            yield Query(
                f"{uid} / {panel['title']} ({panel['type']}) {target['refId']}",
                LANGUAGES[target["datasource"]["type"]],
                target.get("expr") or target["query"],
                target.get("legendFormat", ""),
                target.get("instant", False),
                target.get("exemplar", False),
            )


def _link_queries() -> Iterator[Query]:
    """Yield the queries that lead from a span to its logs and metrics."""
    for source in datasources():
        settings = source["jsonData"]
        if link := settings.get("tracesToLogsV2"):
            yield Query("datasources / tracesToLogsV2", "logql", unescaped(link["query"]))
        for link in settings.get("tracesToMetrics", {}).get("queries", []):
            name = f"datasources / tracesToMetrics {link['name']}"
            yield Query(name, "promql", unescaped(link["query"]))


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


def formatted(value: object, indent: str = "", taken: int = 0) -> str:
    """Return JSON in which what fits on a line is on one line, indented by two spaces.

    Args:
        value: What to write.
        indent: Blanks at the start of the lines around it.
        taken: Characters that its first line already has.
    """
    line = json.dumps(value, ensure_ascii=False)
    if len(line) + taken < LINE_LENGTH or not isinstance(value, dict | list) or not value:
        return line
    inner = indent + "  "
    if isinstance(value, list):
        parts = [formatted(item, inner, len(inner)) for item in value]
    else:
        keys = ((f"{json.dumps(key)}: ", item) for key, item in value.items())
        parts = [key + formatted(item, inner, len(inner + key)) for key, item in keys]
    opening, closing = "[]" if isinstance(value, list) else "{}"
    return f"{opening}\n{inner}" + f",\n{inner}".join(parts) + f"\n{indent}{closing}"


if __name__ == "__main__":
    for file in DASHBOARDS:
        file.write_text(formatted(load(file)) + "\n", encoding="utf-8")

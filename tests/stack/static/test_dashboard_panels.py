"""Panels of the dashboards: what they show without data, and their tables."""

import json
import re
from pathlib import Path

from tests.support.dashboards import GENERATED, Json, each_dashboard, load, panels, renamed, tables

# --- Empty panels ------------------------------------------------------------------------------

# How Grafana 13.2 uses fieldConfig.defaults.noValue if a query returns nothing. A stat shows it like
# a value, in the color of the lowest threshold, unless a mapping of null has a color.
SHOWN_AS_VALUE = {"stat"}
SHOWN_AS_MESSAGE = {"heatmap", "logs", "table", "timeseries"}
IGNORED = {"nodeGraph"}

NEUTRAL = {
    "type": "special",
    "options": {"match": "null+nan", "result": {"color": "text", "index": 0}},
}
# Matches every column.
ALL_COLUMNS = {"id": "byRegexp", "options": ".*"}


def text_when_empty(panel: Json) -> str:
    """Return the text that a panel shows while its query returns nothing."""
    queries = json.dumps(panel["targets"])
    if panel["title"].startswith(("Failed", "Failing")):
        return "No failed requests"
    if panel["datasource"]["type"] == "tempo" or any(metric in queries for metric in GENERATED):
        return "No traces yet"
    if panel["datasource"]["type"] == "loki":
        return "No log lines yet"
    # `http_requests_total`, or a rule such as `job:slo_burn_rate:ratio_rate1h`
    if re.search(r"http_request|(job|endpoint):", queries):
        return "No requests yet"
    return "No metrics yet"


@each_dashboard
def test_empty_panels_show_the_text_for_their_data(path: Path) -> None:
    for panel in panels(load(path)):
        assert panel["type"] in SHOWN_AS_VALUE | SHOWN_AS_MESSAGE | IGNORED, (
            "add its type to one of the sets"
        )
        expected = None if panel["type"] in IGNORED else text_when_empty(panel)
        assert panel["fieldConfig"]["defaults"].get("noValue") == expected, panel["title"]


@each_dashboard
def test_empty_panels_have_a_neutral_color_and_an_ordinary_text_size(path: Path) -> None:
    for panel in panels(load(path)):
        mappings = panel["fieldConfig"]["defaults"].get("mappings", [])
        assert mappings == ([NEUTRAL] if panel["type"] in SHOWN_AS_VALUE else []), panel["title"]
        # Grafana would enlarge a single text to fill a panel that is wide enough for several values.
        several = panel["type"] in SHOWN_AS_VALUE and len(panel["targets"]) > 1
        size = panel["options"].get("text", {}).get("valueSize")
        assert size == (32 if several else None), panel["title"]


@each_dashboard
def test_text_of_an_empty_table_does_not_appear_in_empty_cells(path: Path) -> None:
    """A null cell shows noValue, too, with the links of its column. The last override wins."""
    for panel in panels(load(path)):
        if panel["type"] != "table":
            continue
        overrides = panel["fieldConfig"]["overrides"]
        matchers = [ALL_COLUMNS]
        if panel["datasource"]["type"] == "tempo":
            matchers.append(ALL_COLUMNS | {"scope": "nested"})  # the spans of a trace
        blank = [{"id": "noValue", "value": ""}]
        assert overrides[: len(matchers)] == [
            {"matcher": matcher, "properties": blank} for matcher in matchers
        ], panel["title"]
        texts = {
            property["value"]
            for override in overrides
            for property in override["properties"]
            if property["id"] == "noValue"
        }
        assert panel["fieldConfig"]["defaults"]["noValue"] not in texts


def test_trace_without_a_duration_is_shown_as_less_than_a_millisecond() -> None:
    """Tempo truncates durations to milliseconds, and omits a 0."""
    (table,) = tables(tableType="traces")
    duration = {"matcher": {"id": "byName", "options": "Duration"}}
    override = duration | {"properties": [{"id": "noValue", "value": "<1 ms"}]}
    assert override in table["fieldConfig"]["overrides"]


# --- Tables ------------------------------------------------------------------------------------


def test_tables_of_log_lines_show_the_newest_first() -> None:
    """Loki returns each stream separately. Grafana has two names for some columns."""
    for table in tables(queryType="range"):
        assert table["options"]["sortBy"] == [{"displayName": "Time", "desc": True}]
        assert renamed(table) == {"timestamp": "Time", "Line": "Request", "body": "Request"}


@each_dashboard
def test_stats_and_tables_do_not_abbreviate_numbers(path: Path) -> None:
    """The unit short of Grafana abbreviates: 19 K."""
    shown = [panel for panel in panels(load(path)) if panel["type"] in {"stat", "table"}]
    assert [panel["title"] for panel in shown if "short" in units(panel)] == []


def units(panel: Json) -> set[str]:
    """Return the units of a panel, including those of its overrides."""
    config = panel["fieldConfig"]
    properties = [each for override in config["overrides"] for each in override["properties"]]
    found = {each["value"] for each in properties if each["id"] == "unit"}
    return found | {config["defaults"].get("unit", "")}


def test_tables_hide_only_columns_that_their_links_use() -> None:
    """Grafana 13.2 hides a column with custom.hideFrom.viz; links can still use it."""
    hidden = {}
    for table in tables(format="table"):
        hidden[table["title"]] = {
            override["matcher"]["options"]
            for override in table["fieldConfig"]["overrides"]
            if {"id": "custom.hideFrom.viz", "value": True} in override["properties"]
        }
        # `${__data.fields.Endpoint:percentencode}`
        linked = set(re.findall(r"\$\{__data\.fields\.(\w+)", json.dumps(table)))
        assert hidden[table["title"]] == linked
        shown = set(renamed(table).values()) - hidden[table["title"]]
        assert len(shown & {"Route", "Endpoint"}) == 1, (
            "a table has either routes (method and endpoint) or endpoints"
        )
    assert [title for title, columns in hidden.items() if columns] == [
        "Slowest routes",
        "Failing routes",
    ]

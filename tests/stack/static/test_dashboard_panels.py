"""Panels of Grafana's dashboards: what they show without data, and their tables."""

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
    """Return what a panel says until its query returns something."""
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
def test_empty_panels_use_the_same_words_for_the_same_thing(path: Path) -> None:
    for panel in panels(load(path)):
        assert panel["type"] in SHOWN_AS_VALUE | SHOWN_AS_MESSAGE | IGNORED, "decide what it says"
        expected = None if panel["type"] in IGNORED else text_when_empty(panel)
        assert panel["fieldConfig"]["defaults"].get("noValue") == expected, panel["title"]


@each_dashboard
def test_empty_panels_have_a_neutral_color_and_an_ordinary_text_size(path: Path) -> None:
    for panel in panels(load(path)):
        mappings = panel["fieldConfig"]["defaults"].get("mappings", [])
        assert mappings == ([NEUTRAL] if panel["type"] in SHOWN_AS_VALUE else []), panel["title"]
        # A panel of several values is wide, and Grafana would enlarge a single text to fill it.
        several = panel["type"] in SHOWN_AS_VALUE and len(panel["targets"]) > 1
        size = panel["options"].get("text", {}).get("valueSize")
        assert size == (32 if several else None), panel["title"]


@each_dashboard
def test_text_of_an_empty_table_does_not_appear_in_empty_cells(path: Path) -> None:
    """A null cell shows noValue, too, with the links of its column. Later overrides win."""
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


def test_trace_without_a_duration_took_less_than_a_millisecond() -> None:
    """Tempo counts whole milliseconds, and leaves out a 0."""
    (table,) = tables(tableType="traces")
    duration = {"matcher": {"id": "byName", "options": "Duration"}}
    override = duration | {"properties": [{"id": "noValue", "value": "<1 ms"}]}
    assert override in table["fieldConfig"]["overrides"]


# --- Tables ------------------------------------------------------------------------------------


def test_tables_of_log_lines_show_the_newest_first() -> None:
    """Loki returns each stream on its own. Grafana has two names for the column of the time."""
    for table in tables(queryType="range"):
        assert table["options"]["sortBy"] == [{"displayName": "Time", "desc": True}]
        assert renamed(table) == {"timestamp": "Time", "Line": "Request", "body": "Request"}


@each_dashboard
def test_counts_are_exact_where_they_are_shown_as_numbers(path: Path) -> None:
    """Grafana abbreviates with the unit short: 19 K."""
    shown = [panel for panel in panels(load(path)) if panel["type"] in {"stat", "table"}]
    assert [panel["title"] for panel in shown if "short" in units(panel)] == []


def units(panel: Json) -> set[str]:
    """Return the units of a panel, those of overrides too."""
    config = panel["fieldConfig"]
    properties = [each for override in config["overrides"] for each in override["properties"]]
    found = {each["value"] for each in properties if each["id"] == "unit"}
    return found | {config["defaults"].get("unit", "")}


def test_tables_hide_only_columns_that_their_links_need() -> None:
    """Grafana 13.2 hides a column by custom.hideFrom.viz; links can still read it."""
    hidden = {}
    for table in tables(format="table"):
        hidden[table["title"]] = {
            override["matcher"]["options"]
            for override in table["fieldConfig"]["overrides"]
            if {"id": "custom.hideFrom.viz", "value": True} in override["properties"]
        }
        # `${__data.fields.Endpoint:percentencode}`
        needed = set(re.findall(r"\$\{__data\.fields\.(\w+)", json.dumps(table)))
        assert hidden[table["title"]] == needed
        shown = set(renamed(table).values()) - hidden[table["title"]]
        assert len(shown & {"Route", "Endpoint"}) == 1, "a route is its method and its endpoint"
    assert [title for title, columns in hidden.items() if columns] == [
        "Slowest routes",
        "Failing routes",
    ]

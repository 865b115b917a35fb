"""The Grafana files are consistent: shape, layout, links, and queries in their own grammar."""

import json
import re
import shutil
import subprocess
from itertools import combinations
from pathlib import Path

import jsonschema
import promql_parser
import pytest
import yaml

from tests.dashboards import (
    DASHBOARDS,
    DATASOURCES,
    GRAFANA,
    METRICS,
    PROVIDERS,
    TARGET_LABELS,
    Json,
    Query,
    all_panels,
    datasources,
    formatted,
    load,
    objects,
    panels,
    queries,
    strings,
)
from tests.running import unavailable

TESTS = Path(__file__).resolve().parent
GRAMMARS = TESTS / "grammars"
COLUMNS = 24
# The objectives that the panels' thresholds show: at most 0.5 % errors, and 500 ms.
OBJECTIVES = {"percentunit": 0.005, "s": 0.5}
# What a range selector may cover: what Grafana chooses for the zoom, or all the time shown.
WINDOWS = {"$__rate_interval", "$__range"}

PROMQL = [query for query in queries() if query.language == "promql"]

each_dashboard = pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
each_expression = pytest.mark.parametrize("query", PROMQL, ids=lambda query: query.name)


def test_the_dashboards_are_found() -> None:
    assert [path.stem for path in DASHBOARDS] == ["backend-service"]


# --- Shape and layout --------------------------------------------------------------------------


@each_dashboard
def test_dashboard_has_the_shape_that_grafana_reads(path: Path) -> None:
    schema = json.loads((TESTS / "dashboard.schema.json").read_text(encoding="utf-8"))
    errors = jsonschema.Draft202012Validator(schema).iter_errors(load(path))
    assert [f"{error.json_path}: {error.message}" for error in errors] == []


@each_dashboard
def test_dashboard_is_written_in_the_one_format(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text == formatted(load(path)) + "\n", "run: python -m tests.dashboards"


@each_dashboard
def test_uid_is_the_file_name_and_ids_and_titles_are_unique(path: Path) -> None:
    dashboard = load(path)
    assert dashboard["uid"] == path.stem
    ids = [panel["id"] for panel in all_panels(dashboard)]
    assert len(ids) == len(set(ids))
    kinds_and_titles = [(panel["type"], panel["title"]) for panel in all_panels(dashboard)]
    assert len(kinds_and_titles) == len(set(kinds_and_titles))


@each_dashboard
def test_panels_lie_inside_the_grid_and_do_not_overlap(path: Path) -> None:
    panels = {panel["title"]: panel["gridPos"] for panel in load(path)["panels"]}
    outside = [title for title, box in panels.items() if box["x"] + box["w"] > COLUMNS]
    assert outside == []
    overlapping = [
        (one, other)
        for (one, a), (other, b) in combinations(panels.items(), 2)
        if a["x"] < b["x"] + b["w"]
        and b["x"] < a["x"] + a["w"]
        and a["y"] < b["y"] + b["h"]
        and b["y"] < a["y"] + a["h"]
    ]
    assert overlapping == []


@each_dashboard
def test_rows_of_panels_leave_no_gap(path: Path) -> None:
    boxes = [panel["gridPos"] for panel in load(path)["panels"]]
    cells = {
        (x, y)
        for box in boxes
        for x in range(box["x"], box["x"] + box["w"])
        for y in range(box["y"], box["y"] + box["h"])
    }
    height = max(box["y"] + box["h"] for box in boxes)
    assert len(cells) == COLUMNS * height


@each_dashboard
def test_thresholds_are_the_objectives(path: Path) -> None:
    wrong = [
        (panel["title"], unit, value)
        for panel in panels(load(path))
        for unit, value in _thresholds(panel)
        if unit in OBJECTIVES and value != OBJECTIVES[unit]
    ]
    assert wrong == []


def _thresholds(panel: Json) -> list[tuple[str, float]]:
    """Return the unit and value of each threshold of a panel, overrides included."""
    config = panel["fieldConfig"]
    overrides = [{p["id"]: p["value"] for p in o["properties"]} for o in config["overrides"]]
    return [
        (field.get("unit", ""), step["value"])
        for field in [config["defaults"], *overrides]
        for step in field.get("thresholds", {}).get("steps", [])
        if step["value"] is not None
    ]


# --- Links -------------------------------------------------------------------------------------


def test_data_sources_cannot_be_changed_and_have_their_service_as_uid_and_host() -> None:
    found = [(source["uid"], source["type"], source["url"]) for source in datasources()]
    assert found == [
        ("prometheus", "prometheus", "http://prometheus:9090"),
        ("loki", "loki", "http://loki:3100"),
        ("tempo", "tempo", "http://tempo:3200"),
    ]
    assert [source["name"] for source in datasources() if source["editable"]] == []
    assert [source["uid"] for source in datasources() if source.get("isDefault")] == ["prometheus"]


def test_every_data_source_that_is_named_exists() -> None:
    known = {(source["type"], source["uid"]) for source in datasources()}
    used = {
        (item["datasource"]["type"], item["datasource"]["uid"])
        for path in DASHBOARDS
        for item in objects(load(path))
        if "datasource" in item
    }
    assert used <= known
    linked = {item["datasourceUid"] for item in objects(datasources()) if "datasourceUid" in item}
    assert linked == {uid for _, uid in known}, "metric, trace and log lead to each other"


def test_every_dashboard_that_is_linked_exists() -> None:
    linked = {
        uid
        for path in DASHBOARDS
        for text in strings(load(path))
        for uid in re.findall(r"/d/([\w-]+)", text)
    }
    assert linked <= {path.stem for path in DASHBOARDS}


def test_provisioning_files_leave_no_dollar_sign_to_the_environment() -> None:
    for path in (DATASOURCES, PROVIDERS):
        values = strings(yaml.safe_load(path.read_text(encoding="utf-8")))
        assert [text for text in values if "$" in text.replace("$$", "")] == []


def test_dashboards_are_loaded_from_their_folder_and_read_only() -> None:
    (provider,) = yaml.safe_load(PROVIDERS.read_text(encoding="utf-8"))["providers"]
    assert provider["type"] == "file"
    assert provider["allowUiUpdates"] is False
    folder = PROVIDERS.parent.relative_to(GRAFANA)
    assert provider["options"]["path"] == f"/etc/grafana/provisioning/{folder}"


def test_rate_windows_are_reckoned_from_the_scrape_interval() -> None:
    text = (GRAFANA.parent / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")
    (prometheus,) = (source for source in datasources() if source["uid"] == "prometheus")
    interval = yaml.safe_load(text)["global"]["scrape_interval"]
    assert prometheus["jsonData"]["timeInterval"] == interval


# --- Queries -----------------------------------------------------------------------------------


@each_expression
def test_expression_parses(query: Query) -> None:
    promql_parser.parse(query.rendered())


@each_expression
def test_expression_uses_only_metrics_and_labels_that_exist(query: Query) -> None:
    nodes = _nodes(query)
    selectors = [node for node in nodes if isinstance(node, promql_parser.VectorSelector)]
    assert {selector.name for selector in selectors} <= METRICS.keys()
    for selector in selectors:
        matched = {matcher.name for matcher in selector.matchers.matchers}
        assert matched <= METRICS[str(selector.name)] | TARGET_LABELS
        assert "job" in matched, "other jobs have metrics of the same name"
    labels = TARGET_LABELS.union(*(METRICS[str(selector.name)] for selector in selectors))
    made = {call.args[1].val for call in _calls(nodes, "label_replace")}
    grouped = {
        label
        for node in nodes
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier
        for label in node.modifier.labels
    }
    in_legend = set(re.findall(r"\{\{(\w+)\}\}", query.legend))
    assert grouped <= labels | made
    assert in_legend <= (grouped or labels)


@each_expression
def test_quantiles_are_taken_of_a_sum_by_le(query: Query) -> None:
    for call in _calls(_nodes(query), "histogram_quantile"):
        aggregate = call.args[1]
        assert isinstance(aggregate, promql_parser.AggregateExpr)
        assert str(aggregate.op) == "sum"
        assert aggregate.modifier
        assert aggregate.modifier.type == promql_parser.AggModifierType.By
        assert "le" in aggregate.modifier.labels


@each_expression
def test_windows_follow_the_zoom(query: Query) -> None:
    assert set(re.findall(r"\[([^]]*)\]", query.text)) <= WINDOWS


def _nodes(query: Query) -> list[promql_parser.Expr]:
    found: list[promql_parser.Expr] = []
    promql_parser.walk(promql_parser.parse(query.rendered()), found.append)
    return found


def _calls(nodes: list[promql_parser.Expr], function: str) -> list[promql_parser.Call]:
    calls = [node for node in nodes if isinstance(node, promql_parser.Call)]
    return [call for call in calls if call.func.name == function]


def test_latency_panel_asks_for_exemplars_once() -> None:
    # Each query would draw the same dots again.
    with_exemplars = [query.name for query in queries() if query.exemplar]
    assert with_exemplars == ["backend-service / Latency (timeseries) C"]


@pytest.fixture(scope="session")
def parse_queries() -> Path:
    """Return the program that parses queries with the grammars of Grafana's editors."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            unavailable(f"{program} is missing, which runs the grammars of LogQL and TraceQL")
    installed = GRAMMARS / "node_modules" / ".package-lock.json"
    lock = GRAMMARS / "package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run(command, cwd=GRAMMARS, check=True)
    return GRAMMARS / "parse.mjs"


def syntax_errors(parse_queries: Path, found: list[Query]) -> str:
    """Return one line for each syntax error."""
    asked = json.dumps(
        [{"name": q.name, "language": q.language, "text": q.rendered()} for q in found]
    )
    node: list[str | Path] = ["node", parse_queries]
    answer = subprocess.run(node, input=asked, capture_output=True, text=True, check=False)
    assert not answer.stderr
    assert (answer.returncode == 0) == (answer.stdout == "")
    return answer.stdout


@pytest.mark.parametrize("language", ["promql", "logql", "traceql"])
def test_queries_parse_with_the_grammars_of_grafanas_editors(
    parse_queries: Path, language: str
) -> None:
    found = [query for query in queries() if query.language == language]
    assert found
    assert syntax_errors(parse_queries, found) == ""


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("promql", "sum(rate(up[1m])"),
        ("logql", "{service=backend}"),
        ("traceql", '{ name = "x" && }'),
    ],
)
def test_grammars_refuse_a_broken_query(parse_queries: Path, language: str, text: str) -> None:
    assert "broken: " in syntax_errors(parse_queries, [Query("broken", language, text)])

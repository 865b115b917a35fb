"""The queries of the Grafana files: syntax, names that exist, and rules for correct results."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import promql_parser
import pytest

from tests.support.dashboards import LOG_LABELS, METRICS, SCRAPED, Query, queries
from tests.support.prerequisites import unavailable
from tests.support.template import DATA

GRAMMARS = DATA / "grammars"
# Allowed range selectors: windows that Grafana chooses for the zoom level, or the whole time range.
WINDOWS = {"$__rate_interval", "$__range", "$__auto"}
TEMPO_INTERVAL = "15s"  # Tempo's default interval for writing span metrics

QUERIES = queries()
PROMQL = [query for query in QUERIES if query.language == "promql"]
QUANTILES = [query for query in PROMQL if "histogram_quantile" in query.text]
LOGQL = [query for query in QUERIES if query.language == "logql"]


def test_promql_queries_parse() -> None:
    broken = []
    for query in PROMQL:
        try:
            promql_parser.parse(query.rendered())
        except ValueError as error:
            broken.append(f"{query.name}: {error}")
    assert broken == []


def test_promql_queries_use_only_metrics_and_labels_that_exist() -> None:
    assert {query.name: wrong for query in PROMQL if (wrong := unknown_names(query))} == {}


def unknown_names(query: Query) -> list[str]:
    """Return the metrics and labels of a query that do not exist, each with a description."""
    nodes = _nodes(query)
    selectors = [node for node in nodes if isinstance(node, promql_parser.VectorSelector)]
    wrong = [f"metric {s.name}" for s in selectors if s.name not in METRICS]
    if wrong:
        return wrong
    for selector in selectors:
        matched = {matcher.name for matcher in selector.matchers.matchers}
        wrong += [
            f"label {each} of {selector.name}" for each in matched - METRICS[str(selector.name)]
        ]
        if selector.name in SCRAPED and "job" not in matched:
            wrong.append(f"{selector.name} without job: other jobs have metrics of the same name")
    labels: set[str] = set().union(*(METRICS[str(selector.name)] for selector in selectors))
    created = {call.args[1].val for call in _calls(nodes, "label_replace")}
    grouped = {
        label
        for node in nodes
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier
        for label in node.modifier.labels
    }
    # {{instance}}
    in_legend = set(re.findall(r"\{\{(\w+)\}\}", query.legend))
    wrong += [f"grouped by {label}" for label in grouped - labels - created]
    wrong += [f"{{{{{label}}}}} in the legend" for label in in_legend - (grouped or labels)]
    return wrong


def test_unknown_metric_label_group_or_legend_is_found() -> None:
    up = "sum by (job) (up{job=~'.+'})"
    assert unknown_names(Query("", "promql", up, "{{job}}")) == []
    for wrong in ("upp", "up{job=~'.+', pod='a'}", "up", "sum by (pod) (up{job=~'.+'})"):
        assert unknown_names(Query("", "promql", wrong)), wrong
    assert unknown_names(Query("", "promql", up, "{{pod}}"))


def test_quantiles_are_calculated_from_a_sum_by_le() -> None:
    assert QUANTILES
    assert [query.name for query in QUANTILES if not all(map(is_sum_by_le, buckets(query)))] == []


def buckets(query: Query) -> list[promql_parser.Expr]:
    """Return the second argument of each call of ``histogram_quantile``."""
    calls = _calls(_nodes(query), "histogram_quantile")
    assert calls, query.name
    return [call.args[1] for call in calls]


def is_sum_by_le(expression: promql_parser.Expr) -> bool:
    """Return whether an expression is ``sum by (..., le, ...) (...)``."""
    return (
        isinstance(expression, promql_parser.AggregateExpr)
        and str(expression.op) == "sum"
        and expression.modifier is not None
        and expression.modifier.type == promql_parser.AggModifierType.By
        and "le" in expression.modifier.labels
    )


def test_range_selectors_follow_the_zoom_level() -> None:
    # `[5m]` or `[$__rate_interval]`
    windows = {q.name: set(re.findall(r"\[(\$[^]]*|\w+)\]", q.text)) for q in [*PROMQL, *LOGQL]}
    assert any(windows.values())
    assert {name: found for name, found in windows.items() if not found <= WINDOWS} == {}


def test_rates_of_span_metrics_have_two_samples_in_their_window() -> None:
    def expected(query: Query) -> str:
        is_rate = query.from_spans and "$__rate_interval" in query.text
        return TEMPO_INTERVAL if is_rate else ""

    assert {q.name: q.interval for q in PROMQL if q.interval != expected(q)} == {}


def test_log_queries_select_streams_by_labels_that_promtail_sets() -> None:
    assert LOGQL
    for query in LOGQL:
        # {service=~"backend"} | json
        (selector,) = re.findall(r"^[^{|]*\{([^}]*)\}", query.rendered())
        assert set(re.findall(r"(\w+)\s*[=!]", selector)) <= LOG_LABELS, query.name


def test_log_queries_contain_user_input_unchanged() -> None:
    """Grafana escapes quotes with backslashes; in backquotes, these would be part of the text."""
    for query in LOGQL:
        # `(?i)${search:raw}`
        raw = re.findall(r"`\(\?i\)\$\{\w+:raw\}`", query.text)
        assert re.findall(r"`[^`]*`", query.text) == raw, query.name


def _nodes(query: Query) -> list[promql_parser.Expr]:
    found: list[promql_parser.Expr] = []
    promql_parser.walk(promql_parser.parse(query.rendered()), found.append)
    return found


def _calls(nodes: list[promql_parser.Expr], function: str) -> list[promql_parser.Call]:
    calls = [node for node in nodes if isinstance(node, promql_parser.Call)]
    return [call for call in calls if call.func.name == function]


def test_each_latency_panel_queries_exemplars_once() -> None:
    # Each further query would draw the same exemplars again.
    with_exemplars = [query.name for query in QUERIES if query.exemplar]
    assert with_exemplars == [
        "backend-service / Latency (timeseries) C",
        "trace-explorer / Latency of requests (heatmap) A",
    ]


@pytest.fixture(scope="session")
def parse_queries() -> Path:
    """Return the program that parses queries with the grammars of Grafana's editors."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            unavailable(f"the program {program} is missing")
    installed = GRAMMARS / "node_modules" / ".package-lock.json"
    lock = GRAMMARS / "package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run(command, cwd=GRAMMARS, check=True)
    return GRAMMARS / "parse.mjs"


def syntax_errors(parse_queries: Path, found: list[Query]) -> str:
    """Return one line for each syntax error."""
    stdin = json.dumps(
        [{"name": q.name, "language": q.language, "text": q.rendered()} for q in found]
    )
    node: list[str | Path] = ["node", parse_queries]
    done = subprocess.run(node, input=stdin, capture_output=True, text=True, check=False)
    assert not done.stderr
    assert (done.returncode == 0) == (done.stdout == "")
    return done.stdout


@pytest.mark.parametrize("language", ["promql", "logql", "traceql"])
def test_queries_parse_with_the_grammars_of_grafanas_editors(
    parse_queries: Path, language: str
) -> None:
    found = [query for query in QUERIES if query.language == language]
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
def test_grammars_reject_an_invalid_query(parse_queries: Path, language: str, text: str) -> None:
    assert "broken: " in syntax_errors(parse_queries, [Query("broken", language, text)])

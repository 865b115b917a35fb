"""The queries of the Grafana files: grammar, names that exist, and what makes an answer right."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import promql_parser
import pytest

from tests.support.dashboards import LOG_LABELS, METRICS, SCRAPED, Query, each_query, queries
from tests.support.prerequisites import unavailable
from tests.support.template import DATA

GRAMMARS = DATA / "grammars"
# What a range selector may cover: what Grafana chooses for the zoom, or all the time shown.
WINDOWS = {"$__rate_interval", "$__range", "$__auto"}
TEMPO_WRITES_EVERY = "15s"  # metrics made of spans, by default

QUERIES = queries()
PROMQL = [query for query in QUERIES if query.language == "promql"]
QUANTILES = [query for query in PROMQL if "histogram_quantile" in query.text]
LOGQL = [query for query in QUERIES if query.language == "logql"]

each_expression = each_query(PROMQL)
each_log_query = each_query(LOGQL)


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
        assert matched <= METRICS[str(selector.name)]
        if selector.name in SCRAPED:
            assert "job" in matched, "other jobs have metrics of the same name"
    labels: set[str] = set().union(*(METRICS[str(selector.name)] for selector in selectors))
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


@each_query(QUANTILES)
def test_quantiles_are_taken_of_a_sum_by_le(query: Query) -> None:
    calls = _calls(_nodes(query), "histogram_quantile")
    assert calls
    for call in calls:
        aggregate = call.args[1]
        assert isinstance(aggregate, promql_parser.AggregateExpr)
        assert str(aggregate.op) == "sum"
        assert aggregate.modifier
        assert aggregate.modifier.type == promql_parser.AggModifierType.By
        assert "le" in aggregate.modifier.labels


@each_query([*PROMQL, *LOGQL])
def test_windows_follow_the_zoom(query: Query) -> None:
    assert set(re.findall(r"\[(\$[^]]*|\w+)\]", query.text)) <= WINDOWS


@each_expression
def test_rates_of_what_tempo_writes_have_two_points_in_their_window(query: Query) -> None:
    of_a_moment = query.from_spans and "$__rate_interval" in query.text
    assert query.interval == (TEMPO_WRITES_EVERY if of_a_moment else "")


@each_log_query
def test_streams_are_chosen_by_labels_that_promtail_sets(query: Query) -> None:
    (selector,) = re.findall(r"^[^{|]*\{([^}]*)\}", query.rendered())
    assert set(re.findall(r"(\w+)\s*[=!]", selector)) <= LOG_LABELS


@each_log_query
def test_what_is_typed_stands_in_a_log_query_as_it_is(query: Query) -> None:
    """Grafana puts backslashes before quotes, which within backquotes are part of the text."""
    assert re.findall(r"`[^`]*`", query.text) == re.findall(r"`\(\?i\)\$\{\w+:raw\}`", query.text)


def _nodes(query: Query) -> list[promql_parser.Expr]:
    found: list[promql_parser.Expr] = []
    promql_parser.walk(promql_parser.parse(query.rendered()), found.append)
    return found


def _calls(nodes: list[promql_parser.Expr], function: str) -> list[promql_parser.Call]:
    calls = [node for node in nodes if isinstance(node, promql_parser.Call)]
    return [call for call in calls if call.func.name == function]


def test_latency_panels_ask_for_exemplars_once() -> None:
    # Each query would draw the same dots again.
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
def test_grammars_refuse_a_broken_query(parse_queries: Path, language: str, text: str) -> None:
    assert "broken: " in syntax_errors(parse_queries, [Query("broken", language, text)])

"""The running overlay: one request in each store, health checks, access, and persistence.

A test is skipped if the image of a service that it requires is missing.
"""

import json
import re
import subprocess
import time
import uuid
from dataclasses import dataclass

import pytest
import requests

from scripts.engine import CORE
from tests.support.backend import HEALTH, ITEMS, OPENMETRICS
from tests.support.compose_stack import FRESH_SECONDS, Stack, running_stack
from tests.support.prometheus import exposed
from tests.support.template import Bake
from tests.support.waiting import wait_until

JOBS = [
    *("backend", "prometheus", "alertmanager", "node-exporter"),
    *("loki", "promtail", "tempo", "grafana"),
]
SERVICES = [*JOBS, "docker-proxy"]
# Hop of obs-check -> the services that it requires besides backend and prometheus.
HOPS = {
    "prometheus": [],
    "exemplar": [],
    "tempo": ["tempo"],
    "loki": ["loki", "promtail", "docker-proxy"],
    "grafana": ["grafana", "loki", "tempo"],
}


@dataclass
class TracedRequest:
    """A request that created an item.

    Attributes:
        name: The name of the item.
        trace_id: The trace id of the request.
    """

    name: str
    trace_id: str


@pytest.fixture(scope="module")
def traced_request(stack: Stack) -> TracedRequest:
    created = TracedRequest(f"item {uuid.uuid4()}", uuid.uuid4().hex)
    response = requests.post(
        stack.url("backend") + ITEMS,
        json={"name": created.name},
        headers={"traceparent": f"00-{created.trace_id}-{'1' * 16}-01"},
        timeout=10,
    )
    assert response.status_code == 201
    return created


def created_items(stack: Stack) -> float:
    query = (
        f'sum(http_requests_total{{job="backend",endpoint="{ITEMS}",method="POST",status="201"}})'
    )
    return sum(stack.query(query).values())


@pytest.mark.parametrize("service", SERVICES)
def test_service_is_healthy(stack: Stack, service: str) -> None:
    stack.require(service)
    assert stack.health(service) == "healthy"


def test_request_is_counted_in_prometheus_within_six_seconds(stack: Stack) -> None:
    assert requests.get(stack.url("backend") + ITEMS, timeout=10).ok
    sent = time.time()
    selector = f'http_requests_total{{endpoint="{ITEMS}",method="GET",status="200"}}'
    labels = {"endpoint": ITEMS, "method": "GET", "status": "200"}
    (counted,) = exposed(stack.url("backend"), "http_requests_total", **labels)

    def scraped() -> float:
        found = stack.get("prometheus", "/api/v1/query", query=f"{selector}[1m]")
        samples = [sample for series in found["data"]["result"] for sample in series["values"]]
        return min((at for at, value in samples if float(value) == counted), default=0.0)

    assert wait_until(scraped, "the request to be counted", timeout=FRESH_SECONDS) - sent < 6


def test_exemplar_of_the_request_is_exposed_and_stored(
    stack: Stack, traced_request: TracedRequest
) -> None:
    metrics = requests.get(stack.url("backend") + "/metrics", headers=OPENMETRICS, timeout=10).text
    assert re.search(rf'_bucket{{.*}} \S+ # {{.*trace_id="{traced_request.trace_id}"}}', metrics)

    def exemplars() -> bool:
        query = {"query": "http_request_duration_seconds_bucket", "start": f"{time.time() - 600}"}
        return traced_request.trace_id in str(
            stack.get("prometheus", "/api/v1/query_exemplars", **query, end=f"{time.time()}")
        )

    wait_until(exemplars, "the exemplar in Prometheus", timeout=FRESH_SECONDS)


def test_trace_is_found_in_tempo_by_id_and_by_search(
    stack: Stack, traced_request: TracedRequest
) -> None:
    stack.require("tempo")
    wait_until(
        lambda: stack.span_names(traced_request.trace_id) == [f"POST {ITEMS}"],
        "the trace in Tempo",
        timeout=FRESH_SECONDS,
    )
    query = f'{{resource.service.name="backend" && name="POST {ITEMS}"}} with (most_recent=true)'
    wait_until(
        lambda: (
            traced_request.trace_id.lstrip("0") in str(stack.get("tempo", "/api/search", q=query))
        ),
        "the trace in Tempo's search",
        timeout=FRESH_SECONDS,
    )


def test_trace_contains_the_end_of_a_long_traceback(stack: Stack) -> None:
    stack.require("tempo")
    trace_id = uuid.uuid4().hex
    headers = {"traceparent": f"00-{trace_id}-{'1' * 16}-01"}
    url = stack.url("backend") + "/api/v1/demo/fail"
    assert requests.get(url, headers=headers, timeout=10).status_code == 500
    (span,) = wait_until(lambda: stack.spans(trace_id), "the trace", timeout=FRESH_SECONDS)
    (event,) = span["events"]
    found = {each["key"]: each["value"]["stringValue"] for each in event["attributes"]}
    assert len(found["exception.stacktrace"]) > 2048  # Tempo's default, in bytes
    assert found["exception.stacktrace"].endswith("RuntimeError: This error is part of the demo\n")
    assert "attributes truncated" not in stack.run("logs", "tempo").stdout


def test_log_line_is_in_loki_with_its_trace_id(stack: Stack, traced_request: TracedRequest) -> None:
    stack.require("loki", "promtail", "docker-proxy")
    query = f'{{service="backend"}} | trace_id="{traced_request.trace_id}"'
    (line,) = wait_until(lambda: stack.lines(query), "the log line in Loki", timeout=FRESH_SECONDS)
    assert json.loads(line)["message"] == f"POST {ITEMS} 201"


def test_log_lines_have_exactly_the_documented_labels(
    stack: Stack, traced_request: TracedRequest
) -> None:
    stack.require("loki", "promtail", "docker-proxy")
    labels = {"service", "container", "stream", "project", "level"}
    series = wait_until(
        lambda: stack.get("loki", "/loki/api/v1/series", **{"match[]": '{service="backend"}'})[
            "data"
        ],
        "log lines of the backend in Loki",
    )
    assert {frozenset(each) for each in series} == {frozenset(labels)}
    assert {each["project"] for each in series} == {stack.project}
    assert {each["container"] for each in series} == {f"{stack.project}-backend-1"}


def test_promtail_reads_only_this_project_and_not_its_own_log(stack: Stack) -> None:
    stack.require("loki", "promtail", "docker-proxy")

    def services() -> set[str]:
        return set(
            stack.get("loki", "/loki/api/v1/label/service/values", since="1h").get("data", [])
        )

    wait_until(lambda: {"backend", "prometheus"} <= services(), "log lines in Loki")
    assert not services() & {"promtail", "docker-proxy"}
    projects = stack.get("loki", "/loki/api/v1/label/project/values", since="1h")["data"]
    assert projects == [stack.project]


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("GET /_ping", 200),
        ("GET /containers/json", 200),
        ("GET /networks", 200),
        ("GET /info", 403),
        ("GET /v1.44/containers/../info", 403),
        (f"GET /v1.44/containers/{'0' * 64}/archive", 403),
        ("POST /v1.44/containers/create", 403),
        (f"POST /v1.44/containers/{'0' * 64}/exec", 403),
        (f"DELETE /v1.44/containers/{'0' * 64}", 403),
    ],
)
def test_docker_proxy_allows_only_the_requests_of_promtail(
    stack: Stack, request_line: str, status: int
) -> None:
    stack.require("docker-proxy")
    script = (
        "import http.client, sys; c = http.client.HTTPConnection('docker-proxy', 2375, timeout=5);"
        "c.request(*sys.argv[1].split()); print(c.getresponse().status)"
    )
    network = f"{stack.project}_docker-api"
    image = "e2e-service-backend:observability"
    command = ["docker", "run", "--rm", f"--network={network}", image, "python", "-c", script]
    done = subprocess.run([*command, request_line], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(status)


@pytest.mark.parametrize("job", JOBS)
def test_prometheus_scrapes_each_service(stack: Stack, job: str) -> None:
    stack.require(job)
    up = f'up{{job="{job}"}}'
    wait_until(lambda: list(stack.query(up).values()) == [1.0], up, timeout=FRESH_SECONDS)


def test_anonymous_users_of_grafana_can_view_and_not_change(stack: Stack) -> None:
    stack.require("grafana")
    dashboard = stack.get("grafana", "/api/dashboards/uid/backend-service")
    assert dashboard["dashboard"]["title"] == "Backend Service"
    # Grafana 13 serves a copy of the dashboard file as the home page.
    home = stack.get("grafana", "/api/dashboards/home")["redirectUri"]
    assert home.startswith("/d/default-home-dashboard/")
    for path in ("/api/admin/settings", "/api/users", "/api/org/users"):
        assert requests.get(stack.url("grafana") + path, timeout=10).status_code in (401, 403)
    created = requests.post(stack.url("grafana") + "/api/datasources", json={}, timeout=10)
    assert created.status_code in (401, 403)
    signed_in = requests.get(stack.url("grafana") + "/api/org", auth=("admin", "admin"), timeout=10)
    assert signed_in.status_code == 401


@pytest.mark.parametrize("hop", HOPS)
def test_obs_check_follows_a_request(stack: Stack, hop: str) -> None:
    stack.require(*HOPS[hop])
    command = ["run", "--rm", "--no-deps", "obs-check", "python", "/check/obs_check.py", hop]
    done = stack.run(*command, check=False)
    assert done.returncode == 0, done.stdout
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        ["ok", "backend"],
        ["ok", hop],
    ]


def test_obs_check_reports_an_unreachable_prometheus(stack: Stack) -> None:
    stack.run("stop", "prometheus")
    try:
        command = ["run", "--rm", "--no-deps", "obs-check", "python", "/check/obs_check.py"]
        done = stack.run(*command, "prometheus", check=False)
    finally:
        stack.run("start", "prometheus")
        stack.wait_for_health("healthy", ["prometheus"])
    assert done.returncode == 1
    assert "FAIL  prometheus" in done.stdout
    assert "no response from http://prometheus:9090" in done.stdout
    assert "likely cause: it is not running" in done.stdout


def test_health_checks_fail_while_the_programs_hang(stack: Stack) -> None:
    # In these two, the main process only starts the process that responds, and waits for it.
    parents = [service for service in ("backend", "docker-proxy") if service in stack.services]
    others = [service for service in stack.services if service not in parents]

    def signal(name: str) -> list[str]:
        """Send a signal to all services, and return the errors of failed commands."""
        commands = [["kill", f"--signal={name}", service] for service in others]
        commands += [["exec", "-T", each, "sh", "-c", f"kill -{name} -1"] for each in parents]
        done = [stack.run(*command, check=False) for command in commands]
        return [each.stderr for each in done if each.returncode]

    try:
        assert signal("STOP") == []
        stack.wait_for_health("unhealthy", stack.services)
    finally:
        failed = signal("CONT")
        stack.wait_for_health("healthy", stack.services)
    assert failed == []


def test_data_survives_down_and_up(stack: Stack, traced_request: TracedRequest) -> None:
    counted = wait_until(lambda: created_items(stack), "the request in Prometheus")
    stack.run("down")
    stack.compose.start()
    items = requests.get(stack.url("backend") + ITEMS, timeout=10).json()
    assert traced_request.name in [item["name"] for item in items]
    labels = f'endpoint="{ITEMS}",method="POST",status="201"'
    past = f"sum(max_over_time(http_requests_total{{{labels}}}[1h]))"
    assert list(stack.query(past).values()) == [counted]
    if "tempo" in stack.services:
        wait_until(
            lambda: stack.span_names(traced_request.trace_id) == [f"POST {ITEMS}"],
            "the old trace in Tempo",
        )
    if {"loki", "promtail", "docker-proxy"} <= set(stack.services):
        query = f'{{service="backend"}} | trace_id="{traced_request.trace_id}"'
        assert len(wait_until(lambda: stack.lines(query), "the old log line in Loki")) == 1


def test_core_runs_without_the_overlay(bake: Bake) -> None:
    project = bake(project_slug="e2e-service", include_observability="no")
    with running_stack(project, CORE) as core:
        assert core.services == ["backend"]
        assert core.get("backend", HEALTH) == {"status": "ok"}
        assert requests.get(core.url("backend") + "/metrics", timeout=10).status_code == 404

"""Rules and alerts in the running overlay: real metrics of all programs, and a real alert."""

import json
import re

import pytest
import requests

from tests.support.backend import ITEMS
from tests.support.compose_stack import FRESH_SECONDS, Stack
from tests.support.waiting import wait_until

# Metric that an alert looks at -> the services that it takes.
METRICS = {
    "trace_spans_total": [],
    "tempo_distributor_spans_received_total": ["tempo"],
    "promtail_docker_target_entries_total": ["promtail", "docker-proxy"],
    "promtail_dropped_entries_total": ["promtail", "docker-proxy", "loki"],
    "node_filesystem_avail_bytes": ["node-exporter"],
    "node_filesystem_size_bytes": ["node-exporter"],
}
STEPS = ["plan", "bad requests", "firing", "alertmanager", "good requests", "clearing", "cleared"]
ALERT_TEST = ["obs-check", "python", "/check/alert_test.py"]


def test_every_rule_is_evaluated_without_an_error(stack: Stack) -> None:
    def evaluated() -> bool:
        groups = stack.get("prometheus", "/api/v1/rules")["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        assert len(rules) > 30
        assert {(rule["health"], rule.get("lastError")) for rule in rules} == {("ok", None)}
        return True

    wait_until(evaluated, "every rule to be evaluated", timeout=90)  # the slowest is once a minute


def test_prometheus_sends_alerts_to_alertmanager(stack: Stack) -> None:
    stack.need("alertmanager")
    found = stack.get("prometheus", "/api/v1/alertmanagers")["data"]
    assert [each["url"] for each in found["activeAlertmanagers"]] == [
        "http://alertmanager:9093/api/v2/alerts"
    ]


@pytest.mark.parametrize("metric", METRICS)
def test_a_metric_that_an_alert_looks_at_exists(stack: Stack, metric: str) -> None:
    stack.need(*METRICS[metric])
    assert requests.get(stack.url("backend") + ITEMS, timeout=10).ok
    wait_until(lambda: stack.query(metric), metric, timeout=FRESH_SECONDS)


def test_the_disk_of_every_volume_is_watched(stack: Stack) -> None:
    stack.need("node-exporter")
    volumes = stack.run("config", "--volumes").stdout.split()
    watched = {f"/volumes/{name}" for name in volumes}

    def seen() -> set[str]:
        series = map(json.loads, stack.query("node_filesystem_avail_bytes"))
        return {each["mountpoint"] for each in series}

    wait_until(lambda: seen() == watched, f"{watched}", timeout=FRESH_SECONDS)


def test_every_request_has_a_span_that_reaches_tempo(stack: Stack) -> None:
    """The alert SpanExportFailing compares these two."""
    stack.need("tempo")
    for _ in range(20):
        assert requests.get(stack.url("backend") + ITEMS, timeout=10).ok

    def counted_alike() -> bool:
        made, received = (
            sum(stack.query(f"sum({metric})").values())
            for metric in ("trace_spans_total", "tempo_distributor_spans_received_total")
        )
        assert made == received >= 20
        return True

    wait_until(counted_alike, "as many spans in Tempo as were made", timeout=2 * FRESH_SECONDS)


def test_the_alert_test_raises_an_alert_and_clears_it(stack: Stack) -> None:
    stack.need("alertmanager")
    done = stack.run("run", "--rm", "--no-deps", *ALERT_TEST, check=False)
    assert done.returncode == 0, done.stdout
    assert re.findall(r"(?m)^ok    (.+?) +\d+\.\d\d s  ", done.stdout) == STEPS
    assert "BackendErrorBudgetBurn1h is firing" in done.stdout
    assert "it has the alert, and sends no notification" in done.stdout


def test_the_alert_test_says_what_is_missing(stack: Stack) -> None:
    elsewhere = "--env=OBS_CHECK_PROMETHEUS=http://127.0.0.1:1"
    done = stack.run("run", "--rm", "--no-deps", elsewhere, *ALERT_TEST, check=False)
    assert done.returncode == 1
    assert re.findall(r"(?m)^(?:ok|FAIL)  ", done.stdout) == ["FAIL  "]
    assert "no response from http://127.0.0.1:1/api/v1/alerts" in done.stdout

"""Rules and alerts of the running overlay: the metrics they require, and a real alert."""

import json
import re

import pytest
import requests

from tests.support.backend import ITEMS
from tests.support.compose_stack import FRESH_SECONDS, Stack
from tests.support.waiting import wait_until

# Metric of an alert -> the services that it requires besides backend and prometheus.
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


def test_every_rule_is_evaluated_without_errors(stack: Stack) -> None:
    def evaluated() -> bool:
        groups = stack.get("prometheus", "/api/v1/rules")["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        assert len(rules) > 30
        assert {(rule["health"], rule.get("lastError")) for rule in rules} == {("ok", None)}
        return True

    wait_until(evaluated, "every rule to be evaluated", timeout=90)  # some only once a minute


def test_prometheus_sends_alerts_to_alertmanager(stack: Stack) -> None:
    stack.require("alertmanager")
    found = stack.get("prometheus", "/api/v1/alertmanagers")["data"]
    assert [each["url"] for each in found["activeAlertmanagers"]] == [
        "http://alertmanager:9093/api/v2/alerts"
    ]


@pytest.mark.parametrize("metric", METRICS)
def test_metric_of_an_alert_exists(stack: Stack, metric: str) -> None:
    stack.require(*METRICS[metric])
    assert requests.get(stack.url("backend") + ITEMS, timeout=10).ok
    wait_until(lambda: stack.query(metric), metric, timeout=FRESH_SECONDS)


def test_disk_of_every_volume_is_monitored(stack: Stack) -> None:
    stack.require("node-exporter")
    volumes = stack.run("config", "--volumes").stdout.split()
    expected = {f"/volumes/{name}" for name in volumes}

    def mountpoints() -> set[str]:
        series = map(json.loads, stack.query("node_filesystem_avail_bytes"))
        return {each["mountpoint"] for each in series}

    wait_until(lambda: mountpoints() == expected, f"{expected}", timeout=FRESH_SECONDS)


def test_tempo_receives_every_created_span(stack: Stack) -> None:
    """The alert SpanExportFailing compares the two metrics."""
    stack.require("tempo")
    for _ in range(20):
        assert requests.get(stack.url("backend") + ITEMS, timeout=10).ok

    def all_received() -> bool:
        created, received = (
            sum(stack.query(f"sum({metric})").values())
            for metric in ("trace_spans_total", "tempo_distributor_spans_received_total")
        )
        assert created == received >= 20
        return True

    wait_until(all_received, "all spans to be in Tempo", timeout=2 * FRESH_SECONDS)


def test_alert_test_fires_and_resolves_an_alert(stack: Stack) -> None:
    stack.require("alertmanager")
    done = stack.run("run", "--rm", "--no-deps", *ALERT_TEST, check=False)
    assert done.returncode == 0, done.stdout
    assert re.findall(r"(?m)^ok    (.+?) +\d+\.\d\d s  ", done.stdout) == STEPS
    assert "BackendErrorBudgetBurn1h is firing" in done.stdout
    assert "it has the alert, and sends no notification" in done.stdout


def test_alert_test_reports_an_unreachable_prometheus(stack: Stack) -> None:
    unreachable = "--env=OBS_CHECK_PROMETHEUS=http://127.0.0.1:1"
    done = stack.run("run", "--rm", "--no-deps", unreachable, *ALERT_TEST, check=False)
    assert done.returncode == 1
    assert re.findall(r"(?m)^(?:ok|FAIL)  ", done.stdout) == ["FAIL  "]
    assert "no response from http://127.0.0.1:1/api/v1/alerts" in done.stdout

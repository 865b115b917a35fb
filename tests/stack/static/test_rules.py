"""Recording rules and alerts: promtool's checks and tests, annotations, runbook and README."""

import json
import re
from pathlib import Path

import pytest

from tests.support.prometheus_rules import (
    ALERTS,
    FILES,
    GROUPS,
    TESTS,
    Rule,
    cases,
    parsed_cases,
    promtool,
)
from tests.support.rule_mutations import SECONDS
from tests.support.template import TEMPLATE

OBSERVABILITY = TEMPLATE / "observability"
ANNOTATIONS = {"summary", "description", "runbook_url", "dashboard_url"}


def test_promtool_accepts_the_rules() -> None:
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", *FILES)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", sorted(TESTS.glob("*.yml")), ids=lambda path: path.name)
def test_rules_pass_their_promtool_tests(path: Path) -> None:
    done = promtool("test", "rules", path)
    assert done.returncode == 0, done.stdout


def test_alerts_have_a_severity_and_all_annotations() -> None:
    for alert, rule in ALERTS.items():
        assert re.fullmatch("([A-Z][a-z0-9]+)+", alert)  # BackendErrorBudgetBurn1h
        assert rule["labels"] in ({"severity": "page"}, {"severity": "ticket"}), alert
        assert rule["for"], alert
        assert rule["annotations"].keys() == ANNOTATIONS, alert
        assert "{{" not in rule["annotations"]["summary"], alert
        assert "$value" in rule["annotations"]["description"], alert


def test_runbook_has_exactly_one_section_per_alert() -> None:
    text = (OBSERVABILITY / "runbook.md").read_text(encoding="utf-8")
    headings = re.findall(r"(?m)^## (.+)$", text)
    assert headings == list(ALERTS)
    for alert, rule in ALERTS.items():
        assert rule["annotations"]["runbook_url"] == f"observability/runbook.md#{alert.lower()}"


def test_readme_lists_every_alert_with_its_severity() -> None:
    text = (OBSERVABILITY / "README.md").read_text(encoding="utf-8")
    # | `BackendDown` | page | ...
    listed = re.findall(r"(?m)^\| `([A-Z]\w+)` \| (page|ticket) \|", text)
    assert listed == [(alert, rule["labels"]["severity"]) for alert, rule in ALERTS.items()]


def test_dashboard_of_each_alert_exists() -> None:
    dashboards = (OBSERVABILITY / "grafana" / "dashboards").glob("*.json")
    uids = {json.loads(path.read_text(encoding="utf-8"))["uid"] for path in dashboards}
    for alert, rule in ALERTS.items():
        page = rule["annotations"]["dashboard_url"].split("?")[0]
        assert page.removeprefix("{{ $externalLabels.grafana }}/d/") in uids, alert


def test_each_alert_has_cases_in_the_file_of_its_group() -> None:
    for group, path in GROUPS.items():
        (rules,) = [each["rules"] for each in FILES[path] if each["name"] == group]
        for alert in [rule["alert"] for rule in rules if "alert" in rule]:
            names = cases(TESTS / f"{group}.test.yml")
            assert any(name.startswith(f"{alert} ") for name in names), f"{alert} in {group}"


def test_each_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    found = [name for path in TESTS.glob("*.yml") for name in cases(path)]
    for alert in ALERTS:
        own = [name.removeprefix(f"{alert} ") for name in found if name.startswith(f"{alert} ")]
        assert any(name.startswith("fires ") for name in own), alert
        assert any(name.startswith("does not fire ") for name in own), alert


def seconds(duration: str) -> int:
    """Return a Prometheus duration in seconds."""
    # 1h30m
    parts = re.findall(r"(\d+)([smhd])", duration)
    return sum(int(number) * SECONDS[unit] for number, unit in parts)


def test_each_alert_has_a_case_that_fires_and_then_resolves() -> None:
    def resolves(case: Rule, alert: str) -> bool:
        checks = [c for c in case.get("alert_rule_test", []) if c["alertname"] == alert]
        checks.sort(key=lambda check: seconds(check["eval_time"]))
        fires = [bool(check.get("exp_alerts")) for check in checks]
        return True in fires and not fires[-1]

    found = [case for path in TESTS.glob("*.yml") for case in parsed_cases(path)]
    never = [alert for alert in ALERTS if not any(resolves(case, alert) for case in found)]
    assert never == []


@pytest.mark.parametrize(
    "case",
    [
        "No alert fires when counters reset, in the same instance or in a new one",
        "No alert fires when everything is up, disks have free space, and no request was received",
        "Only BackendDown fires without any metrics",
    ],
)
def test_shared_case_covers_all_alerts(case: str) -> None:
    found = [each for path in TESTS.glob("*.yml") for each in parsed_cases(path)]
    (shared,) = (each for each in found if each["name"] == case)
    assert any("(ALERTS" in check["expr"] for check in shared["promql_expr_test"])

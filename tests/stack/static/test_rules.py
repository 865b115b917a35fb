"""The recording rules and alerts: promtool's checks and tests, and whether a change is noticed."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml

from tests.support.prerequisites import unavailable
from tests.support.rule_mutations import SECONDS, Rule, mutated_groups
from tests.support.template import DATA, ROOT, TEMPLATE

OBSERVABILITY = TEMPLATE / "observability"
RULES = OBSERVABILITY / "prometheus" / "rules"
TESTS = DATA / "rules"
ANNOTATIONS = {"summary", "description", "runbook_url", "dashboard_url"}
# As many promtools at the same time; they do nothing but compute.
PROGRAMS = 2

FILES: dict[Path, list[Rule]] = {  # with their groups
    path: yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    for path in sorted(RULES.glob("*.yml"))
}
GROUPS = {group["name"]: path for path, groups in FILES.items() for group in groups}
ALERTS = {
    rule["alert"]: rule
    for groups in FILES.values()
    for group in groups
    for rule in group["rules"]
    if "alert" in rule
}
each_alert = pytest.mark.parametrize("alert", ALERTS)


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run promtool, its output read as one text."""
    if not shutil.which("promtool"):
        unavailable("the program promtool is missing")
    return subprocess.run(
        ["promtool", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


@cache
def parsed_cases(path: Path) -> list[Rule]:
    """Return the cases in a file of rule tests."""
    found: list[Rule] = yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]
    return found


def cases(path: Path) -> list[str]:
    """Return the names of the cases in a file of rule tests."""
    return [case["name"] for case in parsed_cases(path)]


def test_promtool_accepts_the_rules() -> None:
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", *FILES)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", sorted(TESTS.glob("*.yml")), ids=lambda path: path.name)
def test_rules_do_what_their_tests_say(path: Path) -> None:
    done = promtool("test", "rules", path)
    assert done.returncode == 0, done.stdout


@each_alert
def test_alert_says_what_happened_and_where_to_look(alert: str) -> None:
    rule = ALERTS[alert]
    assert re.fullmatch("([A-Z][a-z0-9]+)+", alert)
    assert rule["labels"] == {"severity": rule["labels"]["severity"]}
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["for"]
    assert rule["annotations"].keys() == ANNOTATIONS
    assert "{{" not in rule["annotations"]["summary"]
    assert "$value" in rule["annotations"]["description"]


def test_the_runbook_has_one_section_for_each_alert_and_no_other() -> None:
    text = (OBSERVABILITY / "runbook.md").read_text(encoding="utf-8")
    headings = re.findall(r"(?m)^## (.+)$", text)
    assert headings == list(ALERTS)
    for alert, rule in ALERTS.items():
        assert rule["annotations"]["runbook_url"] == f"observability/runbook.md#{alert.lower()}"


def test_the_readme_lists_every_alert_with_its_severity() -> None:
    text = (OBSERVABILITY / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"(?m)^\| `([A-Z]\w+)` \| (page|ticket) \|", text)
    assert listed == [(alert, rule["labels"]["severity"]) for alert, rule in ALERTS.items()]


@each_alert
def test_the_dashboard_of_an_alert_exists(alert: str) -> None:
    dashboards = (OBSERVABILITY / "grafana" / "dashboards").glob("*.json")
    uids = {json.loads(path.read_text(encoding="utf-8"))["uid"] for path in dashboards}
    link = ALERTS[alert]["annotations"]["dashboard_url"]
    page = link.split("?")[0]
    assert page.removeprefix("{{ $externalLabels.grafana }}/d/") in uids


@each_alert
def test_alert_has_a_case_where_it_fires_and_one_where_it_does_not(alert: str) -> None:
    found = [name for path in TESTS.glob("*.yml") for name in cases(path)]
    own = [name.removeprefix(f"{alert} ") for name in found if name.startswith(f"{alert} ")]
    assert any(name.startswith("fires ") for name in own)
    assert any(name.startswith("does not fire ") for name in own)


def seconds(duration: str) -> int:
    """Return a duration of Prometheus in seconds."""
    parts = re.findall(r"(\d+)([smhd])", duration)
    return sum(int(number) * SECONDS[unit] for number, unit in parts)


@each_alert
def test_alert_has_a_case_where_it_fires_and_then_ends(alert: str) -> None:
    def ends(case: Rule) -> bool:
        checks = [c for c in case.get("alert_rule_test", []) if c["alertname"] == alert]
        checks.sort(key=lambda check: seconds(check["eval_time"]))
        fires = [bool(check.get("exp_alerts")) for check in checks]
        return True in fires and not fires[-1]

    assert any(ends(case) for path in TESTS.glob("*.yml") for case in parsed_cases(path))


@pytest.mark.parametrize(
    "case",
    [
        "No alert fires when the counters start again from 0, in the same instance or in a new one",
        "No alert fires when everything is up, has never had a request, and has free disks",
        "Without any metric BackendDown fires, and nothing else",
    ],
)
def test_no_alert_is_left_out_of_a_shared_case(case: str) -> None:
    found = [each for path in TESTS.glob("*.yml") for each in parsed_cases(path)]
    (shared,) = (each for each in found if each["name"] == case)
    assert any("(ALERTS" in check["expr"] for check in shared["promql_expr_test"])


# --- Do the tests notice a change? -------------------------------------------------------------


def is_noticed(group: str, mutation: tuple[str, list[Rule]]) -> bool:
    """Tell whether the tests of a group fail with its rules changed."""
    name, groups = mutation
    test = TESTS / f"{group}.test.yml"
    own = [case for case in cases(test) if case.split()[0] == name.split(":")[0]] or cases(test)
    with TemporaryDirectory() as folder:
        # Where the tests look for the rules.
        copy, path = (Path(folder, each.relative_to(ROOT)) for each in (test, GROUPS[group]))
        for each in (copy, path):
            each.parent.mkdir(parents=True)
        shutil.copy(test, copy)
        path.write_text(json.dumps({"groups": groups}), encoding="utf-8")
        # The first case alone notices most changes.
        for some in filter(None, (own[:1], own[1:])):
            done = promtool("test", "rules", *(f"--run=^{re.escape(case)}$" for case in some), copy)
            if done.returncode:
                assert "got:" in done.stdout, f"{name} is no rule: {done.stdout}"
                return True
    return False


def mutations(group: str) -> Iterator[tuple[str, list[Rule]]]:
    """Return every change to a group, with the groups that its tests need."""
    groups = FILES[GROUPS[group]]
    alerts = "alert" in groups[0]["rules"][0]
    needed = [each for each in groups if each["name"] == group] if alerts else groups
    return mutated_groups(needed, group)


@pytest.mark.parametrize("group", GROUPS)
def test_a_changed_rule_is_noticed(group: str) -> None:
    changes = list(mutations(group))
    assert len(changes) > 10
    with ThreadPoolExecutor(PROGRAMS) as pool:
        noticed = list(pool.map(partial(is_noticed, group), changes))
    assert [name for (name, _), seen in zip(changes, noticed, strict=True) if not seen] == []

"""The recording rules and alerts on real Prometheus, compared with the requests that the test sent."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.backend import ITEMS
from tests.support.observed_service import TOLERANCE, Observed, observed_service
from tests.support.prometheus import rules
from tests.support.waiting import wait_until

ROUNDS = 15
GOOD = 4  # requests per round
FAILING, SLOW = "/extra/raise", "/extra/slow"
BAD_RATIO = 1 / (GOOD + 2)  # ratio of failing requests, and the same of slow requests
BUDGETS = {"availability": 0.005, "latency": 0.05}
WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d", "30d")

each_slo = pytest.mark.parametrize("slo", BUDGETS)
each_window = pytest.mark.parametrize("window", WINDOWS)


@pytest.fixture(scope="module")
def observed(yes_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    """Return a service with a constant ratio of good, failing and slow requests."""
    with observed_service(yes_project, tmp_path_factory.mktemp("rules")) as service:
        for _ in range(ROUNDS):
            for _ in range(GOOD):
                service.request(ITEMS, ("GET", ITEMS, 200))
            service.request(FAILING, ("GET", FAILING, 500))
            service.request(SLOW, ("GET", SLOW, 200), seconds=0.6)
        service.wait_until_scraped()
        service.prometheus.wait_for_scrapes(5)  # rules are evaluated up to a second later
        yield service


def by_endpoint(counted: Counter[tuple[str, str, int]]) -> dict[str, int]:
    """Return the number of requests of each endpoint."""
    numbers: Counter[str] = Counter()
    for (_, endpoint, _), number in counted.items():
        numbers[endpoint] += number
    return dict(numbers)


def values(observed: Observed, expression: str, label: str) -> dict[str, float]:
    """Return the current value of each series of an expression, by one of its labels."""
    found = observed.prometheus.series(expression)
    return {series["metric"][label]: float(series["value"][1]) for series in found}


def test_every_rule_is_evaluated_without_errors(observed: Observed) -> None:
    expected = {group["name"]: len(group["rules"]) for group in rules()["groups"]}

    def evaluated() -> bool:
        groups = observed.prometheus.get("rules")["groups"]
        assert {group["name"]: len(group["rules"]) for group in groups} == expected
        states = [(rule["health"], rule.get("lastError")) for g in groups for rule in g["rules"]]
        assert set(states) == {("ok", None)}
        return True

    wait_until(evaluated, "every rule to be evaluated")


def test_request_rates_are_those_of_the_requests(observed: Observed) -> None:
    sent = by_endpoint(observed.counted)
    found = values(observed, "300 * endpoint:http_requests:rate5m", "endpoint")
    assert found == pytest.approx(sent, rel=TOLERANCE)
    assert sum(found.values()) == pytest.approx(observed.counted.total(), rel=TOLERANCE)


def test_bad_requests_are_recorded_by_endpoint(observed: Observed) -> None:
    failing, slow = (
        values(observed, f'endpoint:slo_errors:ratio_rate5m{{slo="{slo}"}}', "endpoint")
        for slo in BUDGETS
    )
    assert failing == {ITEMS: 0, FAILING: pytest.approx(1), SLOW: 0}
    # The ratio is of two metrics, and one more request can be slow by chance.
    assert slow == pytest.approx({ITEMS: 0, FAILING: 0, SLOW: 1}, abs=0.1)


@each_window
def test_recorded_ratio_is_that_of_the_requests(observed: Observed, window: str) -> None:
    found = values(observed, f"job:slo_errors:ratio_rate{window}", "slo")
    assert found == pytest.approx(dict.fromkeys(BUDGETS, BAD_RATIO), rel=TOLERANCE)


@each_window
@each_slo
def test_burn_rate_is_the_ratio_divided_by_the_budget(
    observed: Observed, window: str, slo: str
) -> None:
    found = values(observed, f"job:slo_burn_rate:ratio_rate{window}", "slo")
    assert found[slo] == pytest.approx(BAD_RATIO / BUDGETS[slo], rel=TOLERANCE)


def test_only_the_expected_alert_is_raised(observed: Observed) -> None:
    """16.7 % is more than 7.2 % of failing, and less than 72 % of slow requests."""
    raised = values(observed, 'ALERTS{alertname="BackendErrorBudgetBurn1h"}', "slo")
    assert raised == {"availability": 1}
    without_tempo = 'ALERTS{alertname!~"BackendErrorBudgetBurn.*|SpanExportFailing"}'
    others = values(observed, without_tempo, "alertname")
    assert others == {}

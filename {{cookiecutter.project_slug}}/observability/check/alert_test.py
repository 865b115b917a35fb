"""Raise one alert with real requests, and check that it fires and clears: ``make obs-alert-test``.

The alert is BackendErrorBudgetBurn1h for the latency objective. Slow requests raise it: their body
arrives late, as from a slow client. The body is invalid, so the backend rejects it and stores nothing.
The number of slow requests depends on the traffic of the last hour, up to a limit. Enough good requests
follow to prevent other alerts. All of these requests count for the objective.

Runs in the container of obs_check.py. Prints one line per step. Exit code 0 if all steps pass, else 1.
"""

import http.client
import math
import sys
import urllib.parse
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any

from obs_check import PATH, URLS, Hop, Missing, get, passes

ALERT = "BackendErrorBudgetBurn1h"
NOTIFIED = "sum(alertmanager_notifications_total)"
FAILED = "sum(alertmanager_notifications_failed_total)"
# The requests of job:slo_requests:rate1h, without its delay.
REQUESTS = """sum(
  increase(http_requests_total{job="backend",endpoint!="unmatched"}[1h])
  or increase(http_requests_total{job="backend",status!="404"}[1h])
)"""
THRESHOLD = 14.4
SLOW_SECONDS = 1.0  # the objective is 0.5; the service measures less than the client
AT_LEAST = 40  # slow requests, on an idle service
AT_MOST = 3000
SLOW_AT_ONCE = 40
GOOD_AT_ONCE = 4  # more would make them slow
SENDING_SECONDS = 60.0  # limit for all good requests
# Twice the time of two scrapes, two evaluations and the minute in which the alert is pending.
FIRING_SECONDS = 240.0
NOTIFIED_SECONDS = 120.0  # includes group_wait of Alertmanager


@dataclass
class Plan:
    """Number of requests of each kind.

    Attributes:
        slow: Requests that raise the alert.
        good: Requests after which no error budget alert fires.
        notified: Notifications that Alertmanager had sent before.
        failed: Notifications that had failed before.
    """

    slow: int = 0
    good: int = 0
    notified: float = 0.0
    failed: float = 0.0


def number(query: str) -> float:
    """Return the value of a query with one result, 0 if it has none."""
    result = get("prometheus", "/api/v1/query", query=query)["data"]["result"]
    return float(result[0]["value"][1]) if result else 0.0


def state() -> str:
    """Return the alert's state in Prometheus: ``inactive``, ``pending`` or ``firing``."""
    alerts = get("prometheus", "/api/v1/alerts")["data"]["alerts"]
    states = [each["state"] for each in alerts if _is_ours(each["labels"])]
    return str(states[0]) if states else "inactive"


def _is_ours(labels: dict[str, str]) -> bool:
    return labels["alertname"] == ALERT and labels["slo"] == "latency"  # every such alert has it


def plan(counts: Plan) -> str:
    """Calculate the numbers of requests."""
    if (now := state()) != "inactive":
        raise Missing(f"{ALERT} is already {now}")
    allowed = 1 - number('slo:objective:ratio{slo="latency"}')
    share = THRESHOLD * allowed + 0.04  # of slow requests, just above the threshold
    if share >= 1:
        raise Missing(f"an objective of {1 - allowed:g}, which is too low for this alert")
    requests = number(REQUESTS)
    slow = requests * number('job:slo_errors:ratio_rate1h{job="backend",slo="latency"}')
    counts.slow = max(AT_LEAST, math.ceil((share * requests - slow) / (1 - share)))
    all_slow, all_requests = slow + counts.slow, requests + counts.slow
    counts.good = max(counts.slow, math.ceil(all_slow / (0.9 * allowed) - all_requests))
    counts.notified, counts.failed = number(NOTIFIED), number(FAILED)
    if counts.slow > AT_MOST:
        raise Missing(
            f"{requests:.0f} requests in the last hour, which require {counts.slow} slow requests; "
            f"the maximum is {AT_MOST}"
        )
    return f"{counts.slow} slow requests required; {requests:.0f} requests in the last hour"


def send_slow() -> None:
    """Send one slow request, which the backend rejects."""
    _expect(4, "POST", b"{}", SLOW_SECONDS)


def send_good() -> None:
    """Send one request that the backend answers immediately."""
    _expect(2, "GET", b"", 0)


def _expect(status_class: int, method: str, body: bytes, body_after: float) -> None:
    address = urllib.parse.urlsplit(URLS["backend"]).netloc
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.putrequest(method, PATH)
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders()
        sleep(body_after)
        connection.send(body)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise Missing(f"no response to {method} {PATH}: {error}") from error
    finally:
        connection.close()
    if status // 100 != status_class:
        raise Missing(f"HTTP {status} for {method} {PATH}, expected {status_class}xx")


def send(
    how_many: int, at_once: int, send_one: Callable[[], Any], seconds: float = math.inf
) -> int:
    """Send requests in parallel until the time is over; return how many were sent."""
    deadline = monotonic() + seconds
    turns = iter(range(how_many))  # shared by all threads

    def work() -> int:
        sent = 0
        for _ in turns:
            if monotonic() > deadline:
                break
            send_one()
            sent += 1
        return sent

    with ThreadPoolExecutor(at_once) as pool:
        return sum(each.result() for each in [pool.submit(work) for _ in range(at_once)])


def bad_requests(counts: Plan) -> str:
    """Send the slow requests."""
    send(counts.slow, SLOW_AT_ONCE, send_slow)
    return f"{counts.slow} requests took more than {SLOW_SECONDS} s each"


def good_requests(counts: Plan) -> str:
    """Send the good requests."""
    sent = send(counts.good, GOOD_AT_ONCE, send_good, SENDING_SECONDS)
    more = "" if sent == counts.good else f"; {counts.good - sent} too few: other alerts may fire"
    return f"{sent} requests were answered{more}"


def wait_for_state(wanted: str) -> str:
    """Check that the alert is in this state."""
    rate = number('job:slo_burn_rate:ratio_rate5m{job="backend",slo="latency"}')
    found = state()
    words = f"{ALERT} is {found}; the burn rate over 5 minutes is {rate:.1f}"
    if found != wanted:
        raise Missing(words)
    return words


def find_in_alertmanager(counts: Plan) -> str:
    """Find the alert in Alertmanager, and its notification if a webhook is configured."""
    alerts = get("alertmanager", "/api/v2/alerts", filter=f"alertname={ALERT}")
    ours = [each for each in alerts if _is_ours(each["labels"])]
    if not ours:
        raise Missing("no such alert")
    if ours[0]["receivers"][0]["name"] == "silent":
        return "it has the alert, and sends no notification: ALERT_WEBHOOK_URL is not set"
    if number(FAILED) > counts.failed:
        raise Missing("it failed to send a notification")
    if number(NOTIFIED) <= counts.notified:
        raise Missing("it has not sent a notification yet; it first waits for group_wait")
    return "it has the alert and has sent a notification"


def find_nothing_in_alertmanager() -> str:
    """Check that Alertmanager no longer has the alert."""
    if any(_is_ours(each["labels"]) for each in get("alertmanager", "/api/v2/alerts")):
        raise Missing("it still has the alert")
    return "it no longer has the alert"


def steps_of(counts: Plan) -> list[Hop]:
    """Return the steps in order."""
    log = "make obs-logs"
    return [
        Hop(
            "plan",
            lambda: plan(counts),
            f"{ALERT} is inactive, and there were few enough requests in the last hour",
            "real traffic, or an earlier run: try again in an hour",
            seconds=20,  # for the first evaluation of the rules
        ),
        Hop(
            "bad requests",
            lambda: bad_requests(counts),
            f"the backend rejects POST {PATH} with a late, invalid body",
            f"an error in its log: {log}; or the API lacks this route: set OBS_CHECK_PATH in .env",
            seconds=0,
        ),
        Hop(
            "firing",
            lambda: wait_for_state("firing"),
            f"{ALERT} fires in Prometheus",
            "other requests during the test, or an error on Prometheus' page /rules",
            seconds=FIRING_SECONDS,
        ),
        Hop(
            "alertmanager",
            lambda: find_in_alertmanager(counts),
            "Alertmanager has the alert, and notifies ALERT_WEBHOOK_URL if it is set",
            f"Prometheus cannot reach it, or it cannot reach ALERT_WEBHOOK_URL: {log}",
            seconds=NOTIFIED_SECONDS,
        ),
        Hop(
            "good requests",
            lambda: good_requests(counts),
            f"the backend answers GET {PATH}",
            f"an error in its log: {log}",
            seconds=0,
        ),
        Hop(
            "clearing",
            lambda: wait_for_state("inactive"),
            f"{ALERT} is inactive in Prometheus",
            "other slow requests; the alert clears 5 minutes after the last one",
            seconds=FIRING_SECONDS,
        ),
        Hop(
            "cleared",
            find_nothing_in_alertmanager,
            "Alertmanager has no such alert",
            f"Prometheus cannot reach it: {log}",
            seconds=NOTIFIED_SECONDS,
        ),
    ]


def main() -> int:
    """Run the steps until one fails; return the exit code."""
    print(f"Raising {ALERT}. This takes 2 to 4 minutes.", flush=True)
    return 0 if all(passes(step) for step in steps_of(Plan())) else 1


if __name__ == "__main__":
    sys.exit(main())

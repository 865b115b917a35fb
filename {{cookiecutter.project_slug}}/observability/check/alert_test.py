"""Raises one alert for real and shows that it fires and clears: ``make obs-alert-test``.

The alert is BackendErrorBudgetBurn1h for the latency objective, and what raises it are requests that
are bad for it, made as a slow client makes them: the body comes late. The body is not valid, so the
backend refuses it and stores nothing. How many are needed depends on the requests of the last hour;
there is a limit. They count against the objective like all others, and so do the good requests that
follow, as many as it takes for no other alert to come of it.

Runs in the container of obs_check.py. Prints one line per step. Exit code 0 if every step holds, else 1.
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
# Those of job:slo_requests:rate1h, which is a little behind.
REQUESTS = """sum(
  increase(http_requests_total{job="backend",endpoint!="unmatched"}[1h])
  or increase(http_requests_total{job="backend",status!="404"}[1h])
)"""
THRESHOLD = 14.4
SLOW_SECONDS = 1.0  # the objective says 0.5, and the service does not see all of it
AT_LEAST = 40  # slow requests; a round number of them on an idle service
AT_MOST = 3000
SLOW_AT_ONCE = 40
GOOD_AT_ONCE = 4  # or they would be slow themselves
SENDING_SECONDS = 60.0  # at most, for the good requests
# Two scrapes, two evaluations, the minute for which the alert is pending, and as much again.
FIRING_SECONDS = 240.0
NOTIFIED_SECONDS = 120.0  # Alertmanager waits a while for more of the kind


@dataclass
class Plan:
    """How many requests of each kind there are.

    Attributes:
        slow: That raise the alert.
        good: After which no alert on the error budget has a reason.
        notified: Notifications that Alertmanager had sent before.
        failed: Notifications that it could not send before.
    """

    slow: int = 0
    good: int = 0
    notified: float = 0.0
    failed: float = 0.0


def number(query: str) -> float:
    """Return the one number that Prometheus gives, 0 if it gives nothing."""
    result = get("prometheus", "/api/v1/query", query=query)["data"]["result"]
    return float(result[0]["value"][1]) if result else 0.0


def state() -> str:
    """Return the alert's state in Prometheus: ``inactive``, ``pending`` or ``firing``."""
    alerts = get("prometheus", "/api/v1/alerts")["data"]["alerts"]
    states = [each["state"] for each in alerts if _is_ours(each["labels"])]
    return str(states[0]) if states else "inactive"


def _is_ours(labels: dict[str, str]) -> bool:
    return labels["alertname"] == ALERT and labels["slo"] == "latency"  # all of them have one


def plan(counts: Plan) -> str:
    """Find out how many requests it takes."""
    if (now := state()) != "inactive":
        raise Missing(f"{ALERT} is {now} already")
    allowed = 1 - number('slo:objective:ratio{slo="latency"}')
    share = THRESHOLD * allowed + 0.04  # of slow ones; a little more than it takes
    if share >= 1:
        raise Missing(f"an objective of {1 - allowed:g}, which cannot be missed by so much")
    requests = number(REQUESTS)
    slow = requests * number('job:slo_errors:ratio_rate1h{job="backend",slo="latency"}')
    counts.slow = max(AT_LEAST, math.ceil((share * requests - slow) / (1 - share)))
    all_slow, all_requests = slow + counts.slow, requests + counts.slow
    counts.good = max(counts.slow, math.ceil(all_slow / (0.9 * allowed) - all_requests))
    counts.notified, counts.failed = number(NOTIFIED), number(FAILED)
    if counts.slow > AT_MOST:
        raise Missing(
            f"{requests:.0f} requests in the last hour: {counts.slow} slow ones would be needed, "
            f"which is more than {AT_MOST}"
        )
    return f"it takes {counts.slow} slow requests, {requests:.0f} were made in the last hour"


def send_slow() -> None:
    """Make one request that takes too long, and that the backend refuses."""
    _expect(4, "POST", b"{}", SLOW_SECONDS)


def send_good() -> None:
    """Make one request that the backend answers at once."""
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
        raise Missing(f"no answer to {method} {PATH}: {error}") from error
    finally:
        connection.close()
    if status // 100 != status_class:
        raise Missing(f"HTTP {status} to {method} {PATH}, not {status_class}xx")


def send(
    how_many: int, at_once: int, send_one: Callable[[], Any], seconds: float = math.inf
) -> int:
    """Make requests, some of them at the same time, until the time is over; return how many."""
    deadline = monotonic() + seconds
    turns = iter(range(how_many))  # shared by all

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
    """Make the slow requests."""
    send(counts.slow, SLOW_AT_ONCE, send_slow)
    return f"{counts.slow} requests took more than {SLOW_SECONDS} s each"


def good_requests(counts: Plan) -> str:
    """Make the good requests."""
    sent = send(counts.good, GOOD_AT_ONCE, send_good, SENDING_SECONDS)
    more = "" if sent == counts.good else f"; {counts.good - sent} too few: other alerts may follow"
    return f"{sent} requests were answered{more}"


def wait_for_state(wanted: str) -> str:
    """Find the alert in a state."""
    rate = number('job:slo_burn_rate:ratio_rate5m{job="backend",slo="latency"}')
    found = state()
    words = (
        f"{ALERT} is {found}; over 5 minutes the budget burns {rate:.1f} times as fast as allowed"
    )
    if found != wanted:
        raise Missing(words)
    return words


def find_in_alertmanager(counts: Plan) -> str:
    """Find the alert in Alertmanager, and the notification if it sends any."""
    alerts = get("alertmanager", "/api/v2/alerts", filter=f"alertname={ALERT}")
    ours = [each for each in alerts if _is_ours(each["labels"])]
    if not ours:
        raise Missing("no such alert")
    if ours[0]["receivers"][0]["name"] == "silent":
        return "it has the alert and tells nobody, for ALERT_WEBHOOK_URL is not set"
    if number(FAILED) > counts.failed:
        raise Missing("it could not send a notification")
    if number(NOTIFIED) <= counts.notified:
        raise Missing("it has sent no notification yet; it waits for group_wait in its settings")
    return "it has the alert and has sent a notification"


def find_nothing_in_alertmanager() -> str:
    """Find that Alertmanager knows of no such alert any more."""
    if any(_is_ours(each["labels"]) for each in get("alertmanager", "/api/v2/alerts")):
        raise Missing("it still has the alert")
    return "it has no such alert any more"


def steps_of(counts: Plan) -> list[Hop]:
    """Return the steps in their order."""
    log = "make obs-logs"
    return [
        Hop(
            "plan",
            lambda: plan(counts),
            f"{ALERT} is inactive, and few enough requests were made in the last hour",
            "real traffic, or an earlier run: try again in an hour",
            seconds=20,  # the rules have to be evaluated once
        ),
        Hop(
            "bad requests",
            lambda: bad_requests(counts),
            f"the backend answers POST {PATH} with a body that comes late",
            f"an error is in its log: {log}; or the API lost that route: set OBS_CHECK_PATH in .env",
            seconds=0,
        ),
        Hop(
            "firing",
            lambda: wait_for_state("firing"),
            f"{ALERT} fires in Prometheus",
            "other requests came in meanwhile, or Prometheus' page /rules shows an error",
            seconds=FIRING_SECONDS,
        ),
        Hop(
            "alertmanager",
            lambda: find_in_alertmanager(counts),
            "Alertmanager has the alert, and sends it on if it is told to",
            f"Prometheus does not reach it, or it does not reach ALERT_WEBHOOK_URL: {log}",
            seconds=NOTIFIED_SECONDS,
        ),
        Hop(
            "good requests",
            lambda: good_requests(counts),
            f"the backend answers GET {PATH}",
            f"an error is in its log: {log}",
            seconds=0,
        ),
        Hop(
            "clearing",
            lambda: wait_for_state("inactive"),
            f"{ALERT} is inactive in Prometheus",
            "slow requests came in meanwhile; it ends 5 minutes after the last of them",
            seconds=FIRING_SECONDS,
        ),
        Hop(
            "cleared",
            find_nothing_in_alertmanager,
            "Alertmanager has no such alert",
            f"Prometheus does not reach it: {log}",
            seconds=NOTIFIED_SECONDS,
        ),
    ]


def main() -> int:
    """Take the steps until one fails; return the exit code."""
    print(f"Raises {ALERT}. Takes 2 to 4 minutes.", flush=True)
    return 0 if all(passes(step) for step in steps_of(Plan())) else 1


if __name__ == "__main__":
    sys.exit(main())

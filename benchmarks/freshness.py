"""The running stack: time until a request is visible, start-up time, idle memory and CPU usage."""

import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import requests

from tests.support.backend import API, ITEMS
from tests.support.compose_stack import Stack, running_stack
from tests.support.percentile import percentile

ROUNDS = 20
TIMEOUT_SECONDS = 30.0
POLL_SECONDS = 0.02
SCRAPE_SECONDS = 5.0
STARTS = 3
IDLE_SECONDS = 60.0
HEALTH_CHECKS = 10
ITEM = f"{API}/items/{{item_id}}"

Probe = Callable[[], bool]


def measure(project: Path) -> dict[str, Any]:
    """Start the services whose images are available, and measure them."""
    with running_stack(project) as stack:
        delays: dict[str, list[float]] = {}
        probe = FreshnessProbe(stack)
        for _ in range(ROUNDS):
            # So that requests are spread evenly between two scrapes.
            time.sleep(random.uniform(0, SCRAPE_SECONDS))  # noqa: S311
            for name, seconds in probe.measure().items():
                delays.setdefault(name, []).append(seconds)
        found: dict[str, Any] = {
            "missing": sorted(stack.missing),
            "median_s": {name: statistics.median(each) for name, each in delays.items()},
            "p95_s": {name: percentile(each, 95) for name, each in delays.items()},
            "idle": idle(stack),
        }
        seconds = statistics.median(start(stack) for _ in range(STARTS))
        # The goal is for the complete stack.
        return found | {"partial_start_s" if stack.missing else "start_s": seconds}


class FreshnessProbe:
    """Measures the time until a request is visible in each store that runs."""

    def __init__(self, stack: Stack) -> None:
        # Cached, because asking Docker for a port takes longer than some of the delays.
        self._urls: dict[str, str] = {
            service: stack.url(service)
            for service in ("backend", "prometheus", "loki", "tempo")
            if service in stack.services
        }
        self._session = requests.Session()

    def measure(self) -> dict[str, float]:
        """Make a request, and return the seconds until it is visible in each store."""
        before = self._counted()
        response = self._session.get(f"{self._urls['backend']}{ITEMS}/1", timeout=10)
        responded = time.monotonic()
        trace_id = response.headers["x-trace-id"]
        waiting: dict[str, Probe] = {"metric": lambda: self._counted() > before}
        if "loki" in self._urls:
            waiting["log"] = lambda: trace_id in str(self._log_entries(trace_id))
        if "tempo" in self._urls:
            waiting["trace by ID"] = lambda: self._trace(trace_id)
            # Tempo's search omits leading zeros of a trace ID.
            waiting["trace by search"] = lambda: trace_id.lstrip("0") in str(self._search())
        seconds = {}
        while waiting:
            for name, probe in list(waiting.items()):
                if probe():
                    seconds[name] = time.monotonic() - responded
                    del waiting[name]
            if time.monotonic() - responded > TIMEOUT_SECONDS:
                raise TimeoutError(f"not found after {TIMEOUT_SECONDS:g} s: {sorted(waiting)}")
            time.sleep(POLL_SECONDS)
        return seconds

    def _get(self, service: str, path: str, **parameters: str) -> requests.Response:
        return self._session.get(self._urls[service] + path, params=parameters, timeout=10)

    def _counted(self) -> float:
        query = f'sum(http_requests_total{{job="backend",endpoint="{ITEM}"}})'
        result = self._get("prometheus", "/api/v1/query", query=query).json()["data"]["result"]
        return float(result[0]["value"][1]) if result else 0.0

    def _log_entries(self, trace_id: str) -> Any:
        query = f'{{service="backend"}} | trace_id="{trace_id}"'
        return self._get("loki", "/loki/api/v1/query_range", query=query, since="5m").json()

    def _trace(self, trace_id: str) -> bool:
        # For an unknown ID, Tempo returns a trace without spans.
        return "spanId" in self._get("tempo", f"/api/v2/traces/{trace_id}").text

    def _search(self) -> Any:
        return self._get("tempo", "/api/search", q=f'{{name="GET {ITEM}"}}', limit="100").json()


def idle(stack: Stack) -> dict[str, dict[str, float]]:
    """Return the memory in megabytes and the CPU usage in percent of one core of each idle service.

    The CPU usage includes the health checks, for each of which Docker starts a process.
    """
    label = f"com.docker.compose.project={stack.project}"
    client = docker.from_env()
    containers = {
        each.labels["com.docker.compose.service"]: each
        for each in client.containers.list(filters={"label": label})
    }
    time.sleep(IDLE_SECONDS / 2)
    before = {name: _usage(container) for name, container in containers.items()}
    time.sleep(IDLE_SECONDS)
    after = {name: _usage(container) for name, container in containers.items()}
    return {
        name: {
            "memory_mb": after[name][1] / 1e6,
            "cpu_percent": (after[name][0] - before[name][0]) / IDLE_SECONDS * 100,
            "health_checks_percent": _health_checks(container) * 100,
        }
        for name, container in containers.items()
    }


def _health_checks(container: Any) -> float:
    """Return the CPU usage of a container's health checks, as a fraction of one core."""
    check = container.attrs["Config"]["Healthcheck"]
    before = _usage(container)[0]
    for _ in range(HEALTH_CHECKS):
        container.exec_run(check["Test"][1:])
    seconds = (_usage(container)[0] - before) / HEALTH_CHECKS
    return float(seconds / (check["Interval"] / 1e9))


def _usage(container: Any) -> tuple[float, int]:
    """Return the CPU seconds, and the bytes of memory as ``docker stats`` counts them."""
    stats = container.stats(stream=False, one_shot=True)
    memory = stats["memory_stats"]
    details = memory["stats"]  # cgroup version 1 or 2
    cache = details.get("total_inactive_file", details.get("inactive_file", 0))
    return stats["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9, memory["usage"] - cache


def start(stack: Stack) -> float:
    """Return the seconds of ``up --wait``, when images and volumes exist, but no containers."""
    stack.run("down")
    started = time.monotonic()
    stack.run("up", "--detach", "--wait", *stack.services)
    return time.monotonic() - started

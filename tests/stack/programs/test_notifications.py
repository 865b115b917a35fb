"""Notifications of alerts: real Alertmanager with the overlay's command, and a webhook receiver."""

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from scripts.engine import OVERLAY, configuration
from tests.support.ports import free_port
from tests.support.prerequisites import require_docker, require_image
from tests.support.processes import Running, start_process, stop
from tests.support.prometheus import exposed
from tests.support.waiting import wait_until

Json = dict[str, Any]
Labels = dict[str, str]

PAGE = {"alertname": "Burn", "severity": "page", "project": "p", "job": "backend", "slo": "latency"}
TICKET = PAGE | {"alertname": "SlowBurn", "severity": "ticket"}
OTHER = TICKET | {"slo": "availability"}


@dataclass
class Receiver:
    """A webhook receiver, to which ALERT_WEBHOOK_URL points."""

    url: str = ""
    status: int = 200  # of its responses
    notifications: list[Json] = field(default_factory=list)

    def received(self) -> list[tuple[str, list[str]]]:
        """Return each notification's status, and the name and objective of its alerts."""
        return [
            (each["status"], sorted(" ".join(name_of(alert)) for alert in each["alerts"]))
            for each in self.notifications
        ]


def name_of(alert: Json) -> tuple[str, str]:
    """Return an alert's name and objective."""
    return alert["labels"]["alertname"], alert["labels"]["slo"]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Run a receiver on a free loopback port."""
    running = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            running.notifications.append(json.loads(body))
            self.send_response(running.status)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    running.url = f"http://127.0.0.1:{server.server_port}/alerts?token=a&b={{}}"
    try:
        yield running
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class Alertmanager:
    """The HTTP API of a running Alertmanager."""

    url: str
    running: Running

    def send_alerts(self, *alerts: Labels, resolved: bool = False) -> None:
        """Send firing or resolved alerts, as Prometheus does."""
        now = datetime.now(UTC)
        # group_wait applies only to alerts that have just started.
        firing = {"startsAt": now, "endsAt": now + timedelta(hours=1)}
        times = {"endsAt": now} if resolved else firing
        formatted = {name: time.isoformat() for name, time in times.items()}
        body = [{"labels": labels, **formatted} for labels in alerts]
        requests.post(f"{self.url}/api/v2/alerts", json=body, timeout=10).raise_for_status()

    def alerts(self) -> list[Json]:
        """Return all alerts that are not resolved."""
        found: list[Json] = requests.get(f"{self.url}/api/v2/alerts", timeout=10).json()
        return found

    def values(self, metric: str, **labels: str) -> list[float]:
        """Return the values of a metric; labels select samples."""
        return exposed(self.url, metric, **labels)


def service_of(project: Path, name: str = "alertmanager") -> dict[str, Any]:
    """Return a service of the overlay. Skip the test if its image is missing."""
    require_docker()
    service: dict[str, Any] = configuration(project, OVERLAY)["services"][name]
    require_image(service["image"])
    return service


@contextmanager
def alertmanager(project: Path, folder: Path, webhook: str) -> Iterator[Alertmanager]:
    """Run the overlay's Alertmanager on the host network, with all group intervals set to a second.

    Args:
        project: The generated project.
        folder: An empty folder for its configuration.
        webhook: The value of ALERT_WEBHOOK_URL.
    """
    service = service_of(project)
    copy = shutil.copytree(project / "observability" / "alertmanager", folder / "alertmanager")
    config = copy / "alertmanager.yml"
    # group_wait: 30s
    text, replaced = re.subn(r"(group_(?:wait|interval)): \w+", r"\1: 1s", config.read_text())
    assert replaced == 2
    config.write_text(text)
    address = f"127.0.0.1:{free_port()}"
    command = ["docker", "run", "--rm", "--network=host", "--read-only", "--cap-drop=ALL"]
    command += ["--tmpfs=/tmp", f"--volume={copy}:/etc/alertmanager:ro"]
    command += [f"--env=ALERT_WEBHOOK_URL={webhook}", f"--entrypoint={service['entrypoint'][0]}"]
    command += [service["image"], *service["entrypoint"][1:], *service["command"]]
    with start_process([*command, f"--web.listen-address={address}"]) as running:
        url = f"http://{address}"
        running.wait_until(
            lambda: requests.get(f"{url}/-/ready", timeout=10).ok, "Alertmanager to be ready"
        )
        yield Alertmanager(url, running)


@pytest.fixture
def notifying(yes_project: Path, tmp_path: Path, receiver: Receiver) -> Iterator[Alertmanager]:
    with alertmanager(yes_project, tmp_path, receiver.url) as running:
        yield running


def test_amtool_accepts_the_configuration(yes_project: Path) -> None:
    volume = f"{yes_project}/observability/alertmanager:/etc/alertmanager:ro"
    command = ["docker", "run", "--rm", "--network=none", "--entrypoint=amtool"]
    command += [f"--volume={volume}", service_of(yes_project)["image"]]
    command += ["check-config", "/etc/alertmanager/alertmanager.yml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_with_the_same_name_are_grouped_in_one_notification(
    notifying: Alertmanager, receiver: Receiver
) -> None:
    notifying.send_alerts(PAGE, PAGE | {"slo": "availability"}, PAGE | {"alertname": "Another"})
    wait_until(lambda: len(receiver.notifications) == 2, "two notifications")
    assert sorted(receiver.received()) == [
        ("firing", ["Another latency"]),
        ("firing", ["Burn availability", "Burn latency"]),
    ]


def test_resolved_alert_is_notified(notifying: Alertmanager, receiver: Receiver) -> None:
    notifying.send_alerts(PAGE)
    wait_until(lambda: len(receiver.notifications) == 1, "the first notification")
    notifying.send_alerts(PAGE, resolved=True)
    wait_until(lambda: len(receiver.notifications) == 2, "the second notification")
    assert receiver.received() == [("firing", ["Burn latency"]), ("resolved", ["Burn latency"])]
    assert notifying.alerts() == []


def test_page_suppresses_the_ticket_for_the_same_problem(
    notifying: Alertmanager, receiver: Receiver
) -> None:
    notifying.send_alerts(PAGE)
    wait_until(lambda: len(receiver.notifications) == 1, "the page")
    notifying.send_alerts(TICKET, OTHER)
    wait_until(lambda: len(receiver.notifications) == 2, "the ticket for another objective")
    assert receiver.received()[1] == ("firing", ["SlowBurn availability"])
    states = {name_of(each): each["status"]["state"] for each in notifying.alerts()}
    assert states == {
        ("Burn", "latency"): "active",
        ("SlowBurn", "latency"): "suppressed",
        ("SlowBurn", "availability"): "active",
    }


def test_rejected_notification_is_counted(notifying: Alertmanager, receiver: Receiver) -> None:
    """The counter is 0 from the start, so the alert NotificationsFailing sees its first increase."""

    def failed() -> list[float]:
        labels = {"integration": "webhook", "reason": "clientError"}
        return notifying.values("alertmanager_notifications_failed_total", **labels)

    assert failed() == [0]
    receiver.status = 404
    notifying.send_alerts(PAGE)
    wait_until(lambda: failed() > [0], "the failure to be counted")


def test_nothing_is_sent_without_a_webhook_url(
    yes_project: Path, tmp_path: Path, notifying: Alertmanager, receiver: Receiver
) -> None:
    with alertmanager(yes_project, tmp_path / "silent", "") as silent:
        silent.send_alerts(PAGE)
        wait_until(lambda: len(silent.alerts()) == 1, "the alert")
        notifying.send_alerts(PAGE)  # later, with the same group_wait
        wait_until(lambda: receiver.notifications, "a notification of the other Alertmanager")
        for metric in ("notifications", "notification_requests", "notifications_failed"):
            assert sum(silent.values(f"alertmanager_{metric}_total")) == 0
        assert silent.alerts()[0]["receivers"] == [{"name": "silent"}]
        stop(silent.running.process)
        assert "level=WARN" not in silent.running.output()
        assert "level=ERROR" not in silent.running.output()
    assert sum(notifying.values("alertmanager_notifications_total")) == 1
    assert len(receiver.notifications) == 1


def test_alert_links_to_its_dashboard(
    yes_project: Path, tmp_path: Path, receiver: Receiver
) -> None:
    """The receiver replaces Alertmanager, and receives BackendDown from Prometheus."""
    service = service_of(yes_project, "prometheus")
    copy = shutil.copytree(yes_project / "observability" / "prometheus", tmp_path / "prometheus")
    config, rules = copy / "prometheus.yml", copy / "rules" / "alerts.yml"
    address = receiver.url.split("/")[2]
    text = config.read_text().replace("[alertmanager:9093]", f"[{address}]")
    # On the host network, the targets' names could be those of other hosts.
    config.write_text(text.split("scrape_configs:")[0])
    # for: 1m
    rules.write_text(re.sub(r"(for|interval): \w+", r"\1: 1s", rules.read_text()))
    command = ["docker", "run", "--rm", "--network=host", "--env=PROJECT=p"]
    command += ["--env=GRAFANA_URL=https://grafana.test", f"--volume={copy}:/etc/prometheus:ro"]
    command += [f"--entrypoint={service['entrypoint'][0]}", service["image"]]
    command += [*service["entrypoint"][1:], *service["command"]]
    with start_process([*command, f"--web.listen-address=127.0.0.1:{free_port()}"]) as running:
        running.wait_until(lambda: receiver.notifications, "an alert")
    sent: Any = receiver.notifications[0]  # a list of alerts, as Prometheus sends it
    alerts = {each["labels"]["alertname"]: each for each in sent}
    assert alerts["BackendDown"]["labels"].keys() == {"alertname", "severity", "job", "project"}
    link = alerts["BackendDown"]["annotations"]["dashboard_url"]
    assert link == "https://grafana.test/d/backend-service"

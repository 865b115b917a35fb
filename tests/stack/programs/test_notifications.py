"""Who is told of an alert: real Alertmanager, started as the overlay does, and a receiver of its messages."""

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
from tests.support.prerequisites import need_engine, need_image
from tests.support.processes import Running, start_process, stop
from tests.support.prometheus import exposed
from tests.support.waiting import wait_until

Message = dict[str, Any]
Labels = dict[str, str]

PAGE = {"alertname": "Burn", "severity": "page", "project": "p", "job": "backend", "slo": "latency"}
TICKET = PAGE | {"alertname": "SlowBurn", "severity": "ticket"}
OTHER = TICKET | {"slo": "availability"}


@dataclass
class Receiver:
    """What ALERT_WEBHOOK_URL stands for."""

    url: str = ""
    status: int = 200  # of its answers
    messages: list[Message] = field(default_factory=list)

    def seen(self) -> list[tuple[str, list[str]]]:
        """Return each message's status with the name and objective of its alerts."""
        return [
            (message["status"], sorted(" ".join(name_of(each)) for each in message["alerts"]))
            for message in self.messages
        ]


def name_of(alert: Message) -> tuple[str, str]:
    """Return an alert's name and objective."""
    return alert["labels"]["alertname"], alert["labels"]["slo"]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Run a receiver on a free loopback port."""
    receiving = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            receiving.messages.append(json.loads(body))
            self.send_response(receiving.status)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    receiving.url = f"http://127.0.0.1:{server.server_port}/alerts?token=a&b={{}}"
    try:
        yield receiving
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class Alertmanager:
    """The HTTP API of a running Alertmanager."""

    url: str
    running: Running

    def raise_alerts(self, *alerts: Labels, ended: bool = False) -> None:
        """Do as Prometheus does when alerts fire or end."""
        now = datetime.now(UTC)
        # It waits for more of a name only while the first of them is new.
        times = {"endsAt": now} if ended else {"startsAt": now, "endsAt": now + timedelta(hours=1)}
        lasts = {name: moment.isoformat() for name, moment in times.items()}
        body = [{"labels": labels, **lasts} for labels in alerts]
        requests.post(f"{self.url}/api/v2/alerts", json=body, timeout=10).raise_for_status()

    def active(self) -> list[Message]:
        """Return the alerts that it has."""
        found: list[Message] = requests.get(f"{self.url}/api/v2/alerts", timeout=10).json()
        return found

    def values(self, metric: str, **labels: str) -> list[float]:
        """Return the values of a metric where it has these labels."""
        return exposed(self.url, metric, **labels)


def service_of(project: Path, name: str = "alertmanager") -> dict[str, Any]:
    """Return a service of the overlay, whose image must be there."""
    need_engine()
    service: dict[str, Any] = configuration(project, OVERLAY)["services"][name]
    need_image(service["image"])
    return service


@contextmanager
def alertmanager(project: Path, folder: Path, webhook: str) -> Iterator[Alertmanager]:
    """Run the overlay's Alertmanager on this machine's network; it waits for a second, not for minutes.

    Args:
        project: The generated project.
        folder: An empty one.
        webhook: ALERT_WEBHOOK_URL.
    """
    service = service_of(project)
    copy = shutil.copytree(project / "observability" / "alertmanager", folder / "alertmanager")
    config = copy / "alertmanager.yml"
    hasty, waits = re.subn(r"(group_(?:wait|interval)): \w+", r"\1: 1s", config.read_text())
    assert waits == 2
    config.write_text(hasty)
    address = f"127.0.0.1:{free_port()}"
    command = ["docker", "run", "--rm", "--network=host", "--read-only", "--cap-drop=ALL"]
    command += ["--tmpfs=/tmp", f"--volume={copy}:/etc/alertmanager:ro"]
    command += [f"--env=ALERT_WEBHOOK_URL={webhook}", f"--entrypoint={service['entrypoint'][0]}"]
    command += [service["image"], *service["entrypoint"][1:], *service["command"]]
    with start_process([*command, f"--web.listen-address={address}"]) as running:
        url = f"http://{address}"
        running.wait_until(lambda: requests.get(f"{url}/-/ready", timeout=10).ok, "Alertmanager")
        yield Alertmanager(url, running)


@pytest.fixture
def telling(yes_project: Path, tmp_path: Path, receiver: Receiver) -> Iterator[Alertmanager]:
    with alertmanager(yes_project, tmp_path, receiver.url) as running:
        yield running


def test_amtool_accepts_the_configuration(yes_project: Path) -> None:
    volume = f"{yes_project}/observability/alertmanager:/etc/alertmanager:ro"
    command = ["docker", "run", "--rm", "--network=none", "--entrypoint=amtool"]
    command += [f"--volume={volume}", service_of(yes_project)["image"]]
    command += ["check-config", "/etc/alertmanager/alertmanager.yml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_of_one_name_come_in_one_message(telling: Alertmanager, receiver: Receiver) -> None:
    telling.raise_alerts(PAGE, PAGE | {"slo": "availability"}, PAGE | {"alertname": "Another"})
    wait_until(lambda: len(receiver.messages) == 2, "two messages")
    assert sorted(receiver.seen()) == [
        ("firing", ["Another latency"]),
        ("firing", ["Burn availability", "Burn latency"]),
    ]


def test_the_end_of_an_alert_is_told(telling: Alertmanager, receiver: Receiver) -> None:
    telling.raise_alerts(PAGE)
    wait_until(lambda: len(receiver.messages) == 1, "the first message")
    telling.raise_alerts(PAGE, ended=True)
    wait_until(lambda: len(receiver.messages) == 2, "the second message")
    assert receiver.seen() == [("firing", ["Burn latency"]), ("resolved", ["Burn latency"])]
    assert telling.active() == []


def test_who_was_paged_gets_no_ticket_about_the_same(
    telling: Alertmanager, receiver: Receiver
) -> None:
    telling.raise_alerts(PAGE)
    wait_until(lambda: len(receiver.messages) == 1, "the page")
    telling.raise_alerts(TICKET, OTHER)
    wait_until(lambda: len(receiver.messages) == 2, "the ticket about something else")
    assert receiver.seen()[1] == ("firing", ["SlowBurn availability"])
    states = {name_of(each): each["status"]["state"] for each in telling.active()}
    assert states == {
        ("Burn", "latency"): "active",
        ("SlowBurn", "latency"): "suppressed",
        ("SlowBurn", "availability"): "active",
    }


def test_a_message_that_is_refused_is_counted(telling: Alertmanager, receiver: Receiver) -> None:
    """The alert NotificationsFailing sees an increase of what was 0 from the start."""

    def failed() -> list[float]:
        labels = {"integration": "webhook", "reason": "clientError"}
        return telling.values("alertmanager_notifications_failed_total", **labels)

    assert failed() == [0]
    receiver.status = 404
    telling.raise_alerts(PAGE)
    wait_until(lambda: failed() > [0], "the count")


def test_it_is_silent_without_an_address(
    yes_project: Path, tmp_path: Path, telling: Alertmanager, receiver: Receiver
) -> None:
    with alertmanager(yes_project, tmp_path / "silent", "") as silent:
        silent.raise_alerts(PAGE)
        wait_until(lambda: len(silent.active()) == 1, "the alert")
        telling.raise_alerts(PAGE)  # with the same waiting time, and later
        wait_until(lambda: receiver.messages, "a message from the one that tells")
        for metric in ("notifications", "notification_requests", "notifications_failed"):
            assert sum(silent.values(f"alertmanager_{metric}_total")) == 0
        assert silent.active()[0]["receivers"] == [{"name": "silent"}]
        stop(silent.running.process)
        assert "level=WARN" not in silent.running.output()
        assert "level=ERROR" not in silent.running.output()
    assert sum(telling.values("alertmanager_notifications_total")) == 1
    assert len(receiver.messages) == 1


def test_a_notification_leads_to_the_dashboard(
    yes_project: Path, tmp_path: Path, receiver: Receiver
) -> None:
    """The receiver takes the place of Alertmanager, and gets what Prometheus says of BackendDown."""
    service = service_of(yes_project, "prometheus")
    copy = shutil.copytree(yes_project / "observability" / "prometheus", tmp_path / "prometheus")
    config, rules = copy / "prometheus.yml", copy / "rules" / "alerts.yml"
    address = receiver.url.split("/")[2]
    text = config.read_text().replace("[alertmanager:9093]", f"[{address}]")
    config.write_text(text.split("scrape_configs:")[0])  # outside, those names are somebody else's
    rules.write_text(re.sub(r"(for|interval): \w+", r"\1: 1s", rules.read_text()))
    command = ["docker", "run", "--rm", "--network=host", "--env=PROJECT=p"]
    command += ["--env=GRAFANA_URL=https://grafana.test", f"--volume={copy}:/etc/prometheus:ro"]
    command += [f"--entrypoint={service['entrypoint'][0]}", service["image"]]
    command += [*service["entrypoint"][1:], *service["command"]]
    with start_process([*command, f"--web.listen-address=127.0.0.1:{free_port()}"]) as running:
        running.wait_until(lambda: receiver.messages, "an alert")
    sent: Any = receiver.messages[0]  # a list of alerts, as Alertmanager gets it
    alerts = {each["labels"]["alertname"]: each for each in sent}
    assert alerts["BackendDown"]["labels"].keys() == {"alertname", "severity", "job", "project"}
    link = alerts["BackendDown"]["annotations"]["dashboard_url"]
    assert link == "https://grafana.test/d/backend-service"

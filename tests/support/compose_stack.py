"""The overlay's containers, as many of them as this machine has images for."""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from testcontainers.compose import DockerCompose

from scripts.engine import OVERLAY, split_services
from tests.support.ports import fixed_ports
from tests.support.prerequisites import need_engine, unavailable
from tests.support.waiting import wait_until

# Published by the overlay: service -> port inside its container.
PORTS = {
    "backend": 8000,
    "prometheus": 9090,
    "alertmanager": 9093,
    "loki": 3100,
    "tempo": 3200,
    "grafana": 3000,
}
PORT_VARIABLES = {
    "backend": "BACKEND_PORT",
    "grafana": "GRAFANA_PORT",
    "prometheus": "PROMETHEUS_PORT",
    "alertmanager": "ALERTMANAGER_PORT",
    "loki": "LOKI_PORT",
    "tempo": "TEMPO_HTTP_PORT",
}
OTLP_PORT_VARIABLES = ("TEMPO_OTLP_GRPC_PORT", "TEMPO_OTLP_HTTP_PORT")
FRESH_SECONDS = 15.0

Json = dict[str, Any]


@dataclass
class Stack:
    """A running Compose project.

    Attributes:
        services: Those that run.
        missing: Those that do not: service -> its image, which cannot be had.
        ports: Published ports that are known, because they were chosen: service -> port.
        patience: Seconds that a service may take to answer.
    """

    compose: DockerCompose
    project: str
    services: list[str]
    missing: dict[str, str] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    patience: float = 10.0

    def need(self, *services: str) -> None:
        """Skip the test when one of these services cannot run here."""
        for service in services:
            if service in self.missing:
                unavailable(f"the image {self.missing[service]} is missing")

    def run(
        self, *arguments: str, check: bool = True, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run ``docker compose`` with the project's files, and with more variables if there are any."""
        return subprocess.run(
            [*self.compose.compose_command_property, *arguments],
            cwd=self.compose.context,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            check=check,
            stdin=subprocess.DEVNULL,
        )

    def url(self, service: str) -> str:
        """Return the address of a service on this machine."""
        port = self.ports.get(service)
        port = port or self.compose.get_service_port(service, PORTS[service])
        return f"http://127.0.0.1:{port}"

    def get(self, service: str, path: str, **parameters: str) -> Any:
        """Return the JSON that a service answers; anything but success is an `OSError`."""
        url = self.url(service) + path
        answer = requests.get(url, params=parameters, timeout=self.patience)
        answer.raise_for_status()
        return answer.json()

    def query(self, promql: str) -> dict[str, float]:
        """Return what Prometheus answers now: each series' labels, as JSON, with its value."""
        result = self.get("prometheus", "/api/v1/query", query=promql)["data"]["result"]
        return {
            json.dumps(each["metric"], sort_keys=True): float(each["value"][1]) for each in result
        }

    def spans(self, trace_id: str) -> list[Json]:
        """Return the spans of a trace in Tempo, in the order in which they began."""
        trace = self.get("tempo", f"/api/v2/traces/{trace_id}").get("trace", {})
        scopes = [s for each in trace.get("resourceSpans", []) for s in each["scopeSpans"]]
        spans: list[Json] = [span for scope in scopes for span in scope["spans"]]
        return sorted(spans, key=lambda span: int(span["startTimeUnixNano"]))

    def span_names(self, trace_id: str) -> list[str]:
        """Return the names of a trace's spans."""
        return [span["name"] for span in self.spans(trace_id)]

    def streams(self, logql: str) -> list[Json]:
        """Return what Loki answers: labels and structured metadata, each with its lines."""
        parameters = {"query": logql, "since": "1h", "limit": "1000"}
        answer = self.get("loki", "/loki/api/v1/query_range", **parameters)
        streams: list[Json] = answer["data"]["result"]
        return streams

    def lines(self, logql: str) -> list[str]:
        """Return the lines that Loki answers."""
        return [line for stream in self.streams(logql) for _, line in stream["values"]]

    def health(self, service: str) -> str:
        """Return what the engine says of a service's health."""
        (container,) = json_lines(self.run("ps", "--all", "--format", "json", service).stdout)
        return str(container["Health"])

    def wait_for_health(self, wanted: str, services: list[str]) -> None:
        """Wait until every one of these services has this health."""

        def reached() -> bool:
            found = {service: self.health(service) for service in services}
            assert set(found.values()) == {wanted}, found
            return True

        wait_until(reached, f"{services} to be {wanted}", timeout=90)


def json_lines(text: str) -> list[Json]:
    """Return the objects in a text that has one on each line."""
    return [json.loads(line) for line in text.splitlines()]


@contextmanager
def running_stack(
    project: Path, files: list[str] = OVERLAY, *, keep_ports: bool = False
) -> Iterator[Stack]:
    """Start a generated project under a random name and on random ports; remove all of it at the end.

    Args:
        project: The generated project; its .env is changed.
        files: The Compose files.
        keep_ports: Whether a container has the same port after a restart.
    """
    need_engine()
    name = f"e2e-{secrets.token_hex(4)}"
    numbers = fixed_ports(len(PORT_VARIABLES)) if keep_ports else []
    ports = dict(zip(PORT_VARIABLES, numbers, strict=keep_ports))
    with (project / ".env").open("a", encoding="utf-8") as env:
        env.writelines(f"{PORT_VARIABLES[each]}={ports.get(each, 0)}\n" for each in PORT_VARIABLES)
        env.writelines(f"{variable}=0\n" for variable in OTLP_PORT_VARIABLES)
        env.write(f"COMPOSE_PROJECT_NAME={name}\n")
    present, missing = split_services(project, files)
    compose = DockerCompose(project, list(files), build=True, services=present)
    try:
        compose.start()
        yield Stack(compose, name, present, missing, ports)
    except BaseException:
        print(*compose.get_logs(), sep="\n", file=sys.stderr)
        raise
    finally:
        compose.services = None  # everything, with networks and volumes
        compose.stop()

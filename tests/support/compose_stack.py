"""Run the services of the overlay whose images are available."""

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
from tests.support.prerequisites import require_docker, unavailable
from tests.support.waiting import wait_until

# Service -> port inside its container.
PORTS = {
    "backend": 8000,
    "prometheus": 9090,
    "alertmanager": 9093,
    "loki": 3100,
    "tempo": 3200,
    "grafana": 3000,
}
# Service -> variable in .env for the port on the host.
PORT_VARIABLES = {
    "backend": "BACKEND_PORT",
    "grafana": "GRAFANA_PORT",
    "prometheus": "PROMETHEUS_PORT",
    "alertmanager": "ALERTMANAGER_PORT",
    "loki": "LOKI_PORT",
    "tempo": "TEMPO_HTTP_PORT",
}
OTLP_PORT_VARIABLES = ("TEMPO_OTLP_GRPC_PORT", "TEMPO_OTLP_HTTP_PORT")
FRESH_SECONDS = 15.0  # timeout until new telemetry can be queried

Json = dict[str, Any]


@dataclass
class Stack:
    """A running Compose project.

    Attributes:
        services: The running services.
        missing: Services that do not run, with their unavailable image.
        ports: Host ports that were chosen in advance: service -> port.
        timeout: Timeout of a request to a service, in seconds.
    """

    compose: DockerCompose
    project: str
    services: list[str]
    missing: dict[str, str] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    timeout: float = 10.0

    def require(self, *services: str) -> None:
        """Skip the test if the image of one of these services is unavailable."""
        for service in services:
            if service in self.missing:
                unavailable(f"the image {self.missing[service]} is missing")

    def run(
        self, *arguments: str, check: bool = True, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run ``docker compose`` with the project's files; ``env`` adds environment variables."""
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
        """Return the URL of a service on the host."""
        port = self.ports.get(service)
        port = port or self.compose.get_service_port(service, PORTS[service])
        return f"http://127.0.0.1:{port}"

    def get(self, service: str, path: str, **parameters: str) -> Any:
        """Return the JSON response of a service; an error status raises an `OSError`."""
        url = self.url(service) + path
        response = requests.get(url, params=parameters, timeout=self.timeout)
        response.raise_for_status()
        return response.json()

    def query(self, promql: str) -> dict[str, float]:
        """Return the result of an instant query: the labels of a series, as JSON -> its value."""
        result = self.get("prometheus", "/api/v1/query", query=promql)["data"]["result"]
        return {
            json.dumps(each["metric"], sort_keys=True): float(each["value"][1]) for each in result
        }

    def spans(self, trace_id: str) -> list[Json]:
        """Return the spans of a trace in Tempo, ordered by start time."""
        trace = self.get("tempo", f"/api/v2/traces/{trace_id}").get("trace", {})
        scopes = [s for each in trace.get("resourceSpans", []) for s in each["scopeSpans"]]
        spans: list[Json] = [span for scope in scopes for span in scope["spans"]]
        return sorted(spans, key=lambda span: int(span["startTimeUnixNano"]))

    def span_names(self, trace_id: str) -> list[str]:
        """Return the names of a trace's spans."""
        return [span["name"] for span in self.spans(trace_id)]

    def streams(self, logql: str) -> list[Json]:
        """Return the streams of a LogQL query: labels and structured metadata, and log lines."""
        parameters = {"query": logql, "since": "1h", "limit": "1000"}
        response = self.get("loki", "/loki/api/v1/query_range", **parameters)
        streams: list[Json] = response["data"]["result"]
        return streams

    def lines(self, logql: str) -> list[str]:
        """Return the log lines of a LogQL query."""
        return [line for stream in self.streams(logql) for _, line in stream["values"]]

    def health(self, service: str) -> str:
        """Return the health status of a service's container."""
        (container,) = json_lines(self.run("ps", "--all", "--format", "json", service).stdout)
        return str(container["Health"])

    def wait_for_health(self, wanted: str, services: list[str]) -> None:
        """Wait until all of these services have this health status."""

        def reached() -> bool:
            found = {service: self.health(service) for service in services}
            assert set(found.values()) == {wanted}, found
            return True

        wait_until(reached, f"{services} to be {wanted}", timeout=90)


def json_lines(text: str) -> list[Json]:
    """Parse a text with one JSON object per line."""
    return [json.loads(line) for line in text.splitlines()]


@contextmanager
def running_stack(
    project: Path, files: list[str] = OVERLAY, *, keep_ports: bool = False
) -> Iterator[Stack]:
    """Start a generated project under a random name and on random ports, and remove it afterwards.

    Args:
        project: The generated project; its .env is changed.
        files: The Compose files.
        keep_ports: Whether a container keeps its host port when it restarts.
    """
    require_docker()
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
        compose.services = None  # removes all services, networks and volumes
        compose.stop()

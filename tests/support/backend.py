"""Run the generated backend with the command and the environment of its overlay."""

import json
import re
import socket
import sys
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import yaml
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.samples import Sample

from tests.support.ports import free_port
from tests.support.processes import Running, start_process
from tests.support.template import DATA
from tests.support.waiting import wait_until

API = "/api/v1"
HEALTH = f"{API}/health"
ITEMS = f"{API}/items"
EXTENSION = DATA / "extension"  # the folder of extra_routes.py
EXTRA_ROUTES = "extra_routes:add_routes"
# In a Compose file: ${VAR:-default}, or ${VAR:+value}, which is empty if VAR is not set.
COMPOSE_VARIABLE = re.compile(r"\$\{[A-Z_]+:(?:-([^}]*)|\+[^}]*)\}")
OPENMETRICS = {"accept": "application/openmetrics-text; version=1.0.0"}


@dataclass
class Backend:
    """The running backend."""

    url: str
    running: Running

    def get(self, path: str, **options: Any) -> requests.Response:
        """Send a GET request."""
        return requests.get(self.url + path, timeout=30, **options)

    def disconnect_during_upload(self, *headers: str) -> None:
        """Send half of an upload to ``/extra/upload``, then close the connection."""
        address = urllib.parse.urlsplit(self.url)
        head = ["POST /extra/upload HTTP/1.1", "Host: a", "Content-Length: 100", *headers]
        with socket.create_connection((address.hostname, address.port or 0)) as client:
            client.sendall("\r\n".join([*head, "", "half"]).encode())
            wait_until(lambda: self.value("active_requests") > 0, "the upload to begin")

    def samples(self) -> list[Sample]:
        """Return all samples of ``/metrics``, requested in the OpenMetrics format."""
        text = self.get("/metrics", headers=OPENMETRICS).text
        families = openmetrics_parser.text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
        return [sample for family in families for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of the metric's samples that have these labels."""
        wanted = labels.items()
        return sum(s.value for s in self.samples() if s.name == name and wanted <= s.labels.items())

    def log(self, **fields: object) -> list[dict[str, Any]]:
        """Return the log lines that have these fields. Every line of output must be JSON."""
        complete = self.running.output().rpartition("\n")[0]  # the last line may be half written
        lines = [json.loads(line) for line in complete.splitlines()]
        return [line for line in lines if fields.items() <= line.items()]

    def wait_for_log(self, **fields: object) -> dict[str, Any]:
        """Wait until a log line has these fields, and return it."""
        find: Callable[[], list[dict[str, Any]]] = lambda: self.log(**fields)  # noqa: E731
        return self.running.wait_until(find, f"a log line with {fields}")[0]


@contextmanager
def running_backend(
    project: Path,
    database: Path,
    *server_arguments: str,
    endpoint: str | None = None,
    programs: Sequence[str] | None = None,
    **variables: str,
) -> Iterator[Backend]:
    """Run the project's backend with the command and the environment of its overlay.

    Args:
        project: The generated project.
        database: The path of the database file.
        server_arguments: Additional arguments for the server.
        endpoint: The OTLP endpoint; if None, spans are not exported.
        programs: A command that replaces the overlay's; ``{port}`` is replaced by the port.
        variables: Additional environment variables.
    """
    port = free_port()
    compose = yaml.safe_load((project / "compose.observability.yml").read_text("utf-8"))
    overlay = compose["services"]["backend"]
    bin_folder = Path(sys.executable).parent
    instrument, server, *arguments = overlay["command"]
    command: list[str | Path] = [bin_folder / instrument, bin_folder / server, *arguments]
    # uvicorn uses the last value of a repeated option.
    command += [f"--port={port}", "--host=127.0.0.1", *server_arguments]
    if programs:
        command = [bin_folder / programs[0], *(each.format(port=port) for each in programs[1:])]
    environment = overlay["environment"]
    env = {name: COMPOSE_VARIABLE.sub(r"\1", value) for name, value in environment.items()}
    env |= {
        "PYTHONPATH": str(EXTENSION),
        "PYTHONDONTWRITEBYTECODE": "1",
        "APP_DATABASE_PATH": str(database),
        "APP_EXTENSIONS": f"{EXTRA_ROUTES},{env['APP_EXTENSIONS']}",
        "APP_UPSTREAM_URL": f"http://127.0.0.1:{port}",
        "OTEL_TRACES_EXPORTER": "otlp" if endpoint else "none",
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint or "",
    }
    with start_process(command, env=env | variables, cwd=project / "backend") as running:
        backend = Backend(f"http://127.0.0.1:{port}", running)
        running.wait_until(lambda: backend.get(HEALTH).ok, "the backend to respond")
        yield backend

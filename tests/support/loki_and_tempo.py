"""Run Loki and Tempo from their images with the template's configuration."""

import json
import re
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from tests.support.ports import free_port
from tests.support.prerequisites import require_image
from tests.support.processes import Running, start_process
from tests.support.template import TEMPLATE, stack_file

READY_SECONDS = 60.0

Json = dict[str, Any]


@dataclass
class Store:
    """The HTTP API of Loki or Tempo."""

    url: str

    def get(self, path: str, **parameters: str | float) -> Json:
        """Return the JSON response to a GET request."""
        response = requests.get(self.url + path, parameters, timeout=10)
        assert response.ok, response.text
        content: Json = response.json()
        return content

    def is_ready(self) -> bool:
        """Return whether it accepts requests."""
        return requests.get(f"{self.url}/ready", timeout=5).ok


class Loki(Store):
    """A running Loki."""

    def push(self, streams: list[Json]) -> None:
        """Store log lines."""
        url = f"{self.url}/loki/api/v1/push"
        response = requests.post(url, json={"streams": streams}, timeout=10)
        assert response.ok, response.text

    def query(self, logql: str, start: float, end: float) -> list[Json]:
        """Return the streams of a query, or for a ``sum`` its series at the end of the range."""
        if logql.startswith("sum"):
            return self._result("query", query=logql, time=end)
        return self._result("query_range", query=logql, start=start, end=end, limit=1000)

    def _result(self, path: str, **parameters: str | float) -> list[Json]:
        result: list[Json] = self.get(f"/loki/api/v1/{path}", **parameters)["data"]["result"]
        return result


class Tempo(Store):
    """A running Tempo."""

    def search(self, traceql: str) -> list[Json]:
        """Return the spans that match a query, each with its trace id."""
        found = self.get("/api/search", q=traceql, limit=500, spss=100)["traces"]
        return [
            span | {"traceID": trace["traceID"]}
            for trace in found
            for spans in trace["spanSets"]
            for span in spans["spans"]
        ]

    def spans(self, trace_id: str) -> list[Json]:
        """Return the spans of one trace, each with the attributes of its resource."""
        trace = self.get(f"/api/v2/traces/{trace_id}")["trace"]
        return [
            span | {"resource": resource["resource"]}
            for resource in trace["resourceSpans"]
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
        ]


def attributes(of: Json) -> dict[str, str]:
    """Return the attributes of a span or a resource as strings."""
    return {each["key"]: str(*each["value"].values()) for each in of["attributes"]}


@contextmanager
def running_loki(folder: Path) -> Iterator[Loki]:
    """Run Loki.

    Args:
        folder: The folder for its configuration file.
    """
    config = stack_file("loki/loki-config.yml")
    config["server"] |= _listen()
    loki = Loki(f"http://127.0.0.1:{config['server']['http_listen_port']}")
    with _running("loki", config, folder) as running:
        running.wait_until(loki.is_ready, "Loki to be ready", READY_SECONDS)
        yield loki


@contextmanager
def running_tempo(folder: Path, otlp_port: int, prometheus_port: int) -> Iterator[Tempo]:
    """Run Tempo. It writes metrics every second and waits 2 seconds for both spans of a call.

    Args:
        folder: The folder for its configuration file.
        otlp_port: The port on which it receives spans over gRPC.
        prometheus_port: The port of the Prometheus that stores its metrics; it may start later.
    """
    config = stack_file("tempo/tempo.yml")
    config["server"] |= _listen()
    protocols = config["distributor"]["receivers"]["otlp"]["protocols"]
    protocols["grpc"]["endpoint"] = f"127.0.0.1:{otlp_port}"
    protocols["http"]["endpoint"] = f"127.0.0.1:{free_port()}"
    generator = config["metrics_generator"]
    (target,) = generator["storage"]["remote_write"]
    target["url"] = target["url"].replace("prometheus:9090", f"127.0.0.1:{prometheus_port}")
    generator["processor"] = {"service_graphs": {"wait": "2s"}}
    config["overrides"]["defaults"]["metrics_generator"]["collection_interval"] = "1s"
    tempo = Tempo(f"http://127.0.0.1:{config['server']['http_listen_port']}")
    with _running("tempo", config, folder) as running:
        running.wait_until(tempo.is_ready, "Tempo to be ready", READY_SECONDS)
        yield tempo


def _listen() -> Json:
    return {
        "http_listen_address": "127.0.0.1",
        "http_listen_port": free_port(),
        "grpc_listen_address": "127.0.0.1",
        "grpc_listen_port": free_port(),
    }


@contextmanager
def _running(name: str, config: Json, folder: Path) -> Iterator[Running]:
    overlay = (TEMPLATE / "compose.observability.yml").read_text(encoding="utf-8")
    # image: ${LOKI_IMAGE:-grafana/loki:3.7.8}
    (image,) = re.findall(rf"image: \$\{{\w+:-(\S+/{name}:[^}}]+)\}}", overlay)
    require_image(image)
    file = folder / f"{name}.yml"
    file.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    container = f"test-{name}-{secrets.token_hex(4)}"
    run = ["docker", "run", "--rm", f"--name={container}", "--network=host"]
    run += [f"--volume={file}:/etc/{name}.yml:ro", f"--env={name.upper()}_RETENTION=168h"]
    run += [image, f"-config.file=/etc/{name}.yml", "-config.expand-env=true"]
    with start_process(run) as started:
        try:
            yield started
        finally:
            # On SIGTERM alone, Tempo does not end if its Prometheus has already stopped.
            remove = ["docker", "rm", "--force", container]
            subprocess.run(remove, check=True, capture_output=True)

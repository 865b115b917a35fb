"""Run Prometheus: the installed program, or else its image."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.support.ports import free_port
from tests.support.prerequisites import require_image
from tests.support.processes import start_process
from tests.support.prometheus_rules import FILES
from tests.support.template import TEMPLATE
from tests.support.waiting import wait_until

IMAGE = "prom/prometheus:v3.16.0"
SCRAPE_SECONDS = 1

Series = dict[str, Any]


@dataclass
class Prometheus:
    """The HTTP API of a running Prometheus."""

    url: str

    def get(self, path: str, **parameters: str | float) -> Any:
        """Return the ``data`` of a response."""
        response = requests.get(f"{self.url}/api/v1/{path}", parameters, timeout=10).json()
        assert response["status"] == "success", response
        return response["data"]

    def series(self, expression: str, **at: float) -> list[Series]:
        """Return the result of an instant query, now or at a ``time``."""
        result: list[Series] = self.get("query", query=expression, **at)["result"]
        return result

    def number(self, expression: str, **at: float) -> float:
        """Return the value of an expression with at most one series; 0 if there is none."""
        found = self.series(expression, **at)
        assert len(found) <= 1
        return float(found[0]["value"][1]) if found else 0.0

    def numbers(self, expression: str, start: float, end: float) -> list[float]:
        """Return all values of a range query."""
        parameters = {"start": start, "end": end, "step": SCRAPE_SECONDS}
        found = self.get("query_range", query=expression, **parameters)["result"]
        return [float(value) for series in found for _, value in series["values"]]

    def wait_for_scrapes(self, number: int) -> None:
        """Wait for this number of further scrapes."""
        scrapes = 'count_over_time(up{job="backend"}[1h])'
        expected = self.number(scrapes) + number
        wait_until(lambda: self.number(scrapes) >= expected, f"{number} more scrapes")


def exposed(url: str, metric: str, **labels: str) -> list[float]:
    """Return the values of a metric in ``/metrics`` of a program; labels select samples."""
    text = requests.get(f"{url}/metrics", timeout=10).text
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    named = [sample for sample in samples if sample.name == metric]
    return [sample.value for sample in named if labels.items() <= sample.labels.items()]


@contextmanager
def running_prometheus(target: str, folder: Path, port: int | None = None) -> Iterator[Prometheus]:
    """Run a Prometheus with the template's rules; job ``backend`` scrapes the target each second.

    Args:
        target: Host and port to scrape.
        folder: An empty folder for its configuration and data.
        port: The port of Prometheus; if None, a free one.
    """
    port = port or free_port()
    job = {
        "job_name": "backend",
        "scrape_interval": f"{SCRAPE_SECONDS}s",
        "static_configs": [{"targets": [target]}],
    }
    config = {"rule_files": ["rules.yml"], "scrape_configs": [job]}
    for name, content in {"prometheus.yml": config, "rules.yml": rules()}.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    listen = f"--web.listen-address=127.0.0.1:{port}"
    with start_process([*_command(folder), listen, *_flags()]) as running:
        prometheus = Prometheus(f"http://127.0.0.1:{port}")
        running.wait_until(lambda: prometheus.number('up{job="backend"}') == 1, "the first scrape")
        yield prometheus


def rules() -> dict[str, Any]:
    """Return the template's rules, with the scrape interval as their evaluation interval."""
    interval = {"interval": f"{SCRAPE_SECONDS}s"}
    return {"groups": [group | interval for groups in FILES.values() for group in groups]}


def _flags() -> list[str]:
    """Return the flags of the overlay that affect which data is stored."""
    overlay = (TEMPLATE / "compose.observability.yml").read_text(encoding="utf-8")
    # --enable-feature=exemplar-storage,..., --web.enable-remote-write-receiver
    flags = re.findall(r"--enable-feature=\S+|--web\.enable-remote-write-receiver", overlay)
    assert len(flags) == 2
    return flags


def _command(folder: Path) -> list[str]:
    if program := shutil.which("prometheus"):
        data = folder / "data"
        return [program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={data}"]
    require_image(IMAGE)
    # Mount single files: in its container Prometheus is not root and cannot read the test's folder.
    files = ("prometheus.yml", "rules.yml")
    volumes = [f"--volume={folder}/{name}:/etc/prometheus/{name}:ro" for name in files]
    run = ["docker", "run", "--rm", "--network=host", *volumes, IMAGE]
    paths = ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]
    return [*run, *paths]

"""Runs real Prometheus: the program if it is installed, else its image."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from scripts.engine import engine_problem, has_image
from tests.conftest import TEMPLATE
from tests.running import free_port, start_process, unavailable, wait_until

IMAGE = "prom/prometheus:v3.16.0"
SCRAPE_SECONDS = 1

Series = dict[str, Any]


@dataclass
class Prometheus:
    """The HTTP API of a running Prometheus."""

    url: str

    def get(self, path: str, **parameters: str | float) -> Any:
        """Return the ``data`` of an answer."""
        answer = requests.get(f"{self.url}/api/v1/{path}", parameters, timeout=10).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def series(self, expression: str, **at: float) -> list[Series]:
        """Return what an expression gives now, or at a ``time``."""
        result: list[Series] = self.get("query", query=expression, **at)["result"]
        return result

    def number(self, expression: str, **at: float) -> float:
        """Return the one number that an expression gives; 0 if it gives nothing."""
        found = self.series(expression, **at)
        assert len(found) <= 1
        return float(found[0]["value"][1]) if found else 0.0

    def numbers(self, expression: str, start: float, end: float) -> list[float]:
        """Return every number that an expression gives between two times."""
        parameters = {"start": start, "end": end, "step": SCRAPE_SECONDS}
        found = self.get("query_range", query=expression, **parameters)["result"]
        return [float(value) for series in found for _, value in series["values"]]

    def wait_for_scrapes(self, number: int) -> None:
        """Wait until so many more scrapes have happened."""
        scrapes = 'count_over_time(up{job="backend"}[1h])'
        wanted = self.number(scrapes) + number
        wait_until(lambda: self.number(scrapes) >= wanted, f"{number} more scrapes")


@contextmanager
def running_prometheus(target: str, folder: Path) -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes a target often, as job ``backend``.

    Args:
        target: Host and port.
        folder: An empty folder of its own.
    """
    job = {
        "job_name": "backend",
        "scrape_interval": f"{SCRAPE_SECONDS}s",
        "static_configs": [{"targets": [target]}],
    }
    config = folder / "prometheus.yml"
    config.write_text(json.dumps({"scrape_configs": [job]}), encoding="utf-8")
    port = free_port()
    listen = f"--web.listen-address=127.0.0.1:{port}"
    with start_process([*_command(folder), listen, _features()]) as running:
        prometheus = Prometheus(f"http://127.0.0.1:{port}")
        running.wait_until(lambda: prometheus.number("up") == 1, "the first scrape")
        yield prometheus


def _features() -> str:
    """Return the overlay's own flag, which decides what is stored."""
    overlay = (TEMPLATE / "compose.observability.yml").read_text(encoding="utf-8")
    (flag,) = re.findall(r"--enable-feature=\S+", overlay)
    return str(flag)


def _command(folder: Path) -> list[str]:
    if program := shutil.which("prometheus"):
        data = folder / "data"
        return [program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={data}"]
    if problem := engine_problem():
        unavailable(f"there is no program prometheus, and {problem}")
    if not has_image(IMAGE):
        unavailable(f"there is no program prometheus, and no image {IMAGE}")
    # The file alone: Prometheus is not root in there, and may not enter a test's folder.
    config = "/etc/prometheus/prometheus.yml"
    volume = f"--volume={folder}/prometheus.yml:{config}:ro"
    run = ["docker", "run", "--rm", "--network=host", volume, IMAGE]
    return [*run, f"--config.file={config}", "--storage.tsdb.path=/prometheus"]

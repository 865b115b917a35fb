"""Runs all benchmarks and writes the report: ``make bench``; one group: ``make bench ARGS="http"``."""

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from cookiecutter.main import cookiecutter

from benchmarks import exposition, footprint, freshness, generator, in_process, over_http, report
from benchmarks.goal import NOT_MEASURED

GROUPS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "metrics": in_process.metrics,
    "complete": in_process.complete,
    "http": over_http.measure,
    "exposition": exposition.measure,
    "footprint": footprint.measure,
    "growth": in_process.growth,
    "freshness": freshness.measure,
    "generator": generator.measure,
}
PACKAGES = (
    *("fastapi", "starlette", "uvicorn", "prometheus-client", "opentelemetry-sdk"),
    *("orjson", "python-json-logger"),
    *("opentelemetry-exporter-otlp-proto-grpc", "opentelemetry-instrumentation-fastapi"),
    *("prometheus-fastapi-instrumentator", "starlette-exporter", "cookiecutter"),
)


def main() -> None:
    """Measure the named groups, or all of them. Keep the results of the others if they are comparable."""
    parser = argparse.ArgumentParser(prog="benchmarks")
    parser.add_argument("groups", nargs="*", metavar="group", help=", ".join(GROUPS))
    chosen = parser.parse_args().groups or list(GROUPS)
    if unknown := set(chosen) - GROUPS.keys():
        parser.error(f"unknown group: {', '.join(sorted(unknown))}")
    figures = earlier_results({"machine": machine(), "versions": versions()})
    for name in chosen:
        load = os.getloadavg()[0]
        started = time.monotonic()
        figures["groups"][name] = group(name)
        figures["measured"][name] = f"{datetime.now(UTC).date()}, initial load average {load:.1f}"
        print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr)
        # Written after each group, because a later one may be interrupted.
        text = json.dumps(rounded(figures), indent=1, ensure_ascii=False) + "\n"
        report.FIGURES.write_text(text, encoding="utf-8")
    report.main()
    for row in report.goal_rows(figures["groups"]):
        print("{:<70}{:>10}{:>14}  {}".format(*row))


def earlier_results(environment: dict[str, Any]) -> dict[str, Any]:
    """Return the earlier results if the machine and the versions are still the same."""
    if report.FIGURES.exists():
        figures: dict[str, Any] = json.loads(report.FIGURES.read_text(encoding="utf-8"))
        if figures | environment == figures:
            return figures
    return {**environment, "measured": {}, "groups": {}}


def group(name: str) -> dict[str, Any]:
    """Measure a group with its own generated project, or return which prerequisite is missing."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        project = cookiecutter(
            str(report.ROOT),
            no_input=True,
            default_config=True,
            extra_context={"project_slug": generator.SLUG},
            output_dir=folder,
        )
        try:
            return GROUPS[name](Path(project))
        except pytest.skip.Exception as reason:
            return {NOT_MEASURED: str(reason)}


def rounded(value: Any) -> Any:
    """Round all floats to five significant digits."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    return value


def machine() -> dict[str, Any]:
    """Describe this machine."""
    cpus = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.split(":")[1].strip() for line in cpus if line.startswith("model name")), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {
        "processor": model,
        "cpus": os.cpu_count(),
        "memory": f"{memory:.0f} GB",
        "system": f"{platform.system()} {platform.release()}",
    }


def versions() -> dict[str, str]:
    """Return the versions of Python, the packages and wrk."""
    found = {"Python": platform.python_version()}
    found |= {name: version(name) for name in PACKAGES}
    with contextlib.suppress(OSError):
        done = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False)
        found["wrk"] = done.stdout.split()[1]
    return found


if __name__ == "__main__":
    main()

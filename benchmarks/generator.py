"""The time to generate a project and the size of its image, with and without observability."""

import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.servers import ROOT
from scripts.engine import CORE, OVERLAY, compose, engine_problem

ROUNDS = 15
SLUG = "perf-service"


def measure(project: Path) -> dict[str, Any]:
    """Generate projects in alternating rounds; build both images if Docker runs."""
    rounds: dict[str, list[float]] = {"yes": [], "no": []}
    for _ in range(ROUNDS):
        for answer, seconds in rounds.items():
            seconds.append(_generate(answer))
    ratios = [yes / no for yes, no in zip(rounds["yes"], rounds["no"], strict=True)]
    found = {f"{answer}_s": statistics.median(seconds) for answer, seconds in rounds.items()}
    return {**found, "ratio": statistics.median(ratios), "images": images(project)}


def _generate(answer: str) -> float:
    """Return the run time of ``cookiecutter`` in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--no-input", "--default-config", f"--output-dir={folder}"]
        command = ["cookiecutter", *options, str(ROOT), f"include_observability={answer}"]
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - started


def images(project: Path) -> dict[str, float] | str:
    """Return the size of both images in megabytes, or the reason why they cannot be built."""
    if problem := engine_problem():
        return problem
    sizes = {}
    for name, files in (("core", CORE), ("observability", OVERLAY)):
        build = [*compose(files), "build", "--quiet", "backend"]
        subprocess.run(build, cwd=project, check=True, capture_output=True)
        image = f"{project.name}-backend:{name}"
        inspect = ["docker", "image", "inspect", "--format={{.Size}}", image]
        size = subprocess.run(inspect, check=True, capture_output=True, text=True).stdout
        sizes[name] = int(size) / 1e6
    return sizes

"""Query Docker and Docker Compose on this machine."""

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

CORE = ["compose.yml"]
OVERLAY = [*CORE, "compose.observability.yml"]
PULL_SECONDS = 300


def engine_problem() -> str | None:
    """Return why containers cannot start on this machine, or None if they can."""
    if not shutil.which("docker"):
        return "the program docker is missing"
    for command in (["docker", "info"], ["docker", "compose", "version"]):
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return f"`{' '.join(command)}` fails"
    return None


@cache
def has_image(name: str) -> bool:
    """Return whether an image exists on this machine or can be pulled."""
    inspect = ["docker", "image", "inspect", name]
    if subprocess.run(inspect, capture_output=True, check=False).returncode == 0:
        return True
    pull = ["docker", "pull", "--quiet", name]
    try:
        pulled = subprocess.run(pull, capture_output=True, check=False, timeout=PULL_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return pulled.returncode == 0


def compose(files: list[str]) -> list[str]:
    """Return the ``docker compose`` command for these files."""
    return ["docker", "compose", *(f"--file={file}" for file in files)]


def configuration(project: Path, files: list[str]) -> dict[str, Any]:
    """Return the merged Compose model of a project, all profiles included."""
    command = [*compose(files), "--profile=*", "config", "--format=json"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=True)
    model: dict[str, Any] = json.loads(done.stdout)
    return model


def split_services(project: Path, files: list[str]) -> tuple[list[str], dict[str, str]]:
    """Return the services that can start, and the others with their missing image."""
    services = {
        name: service
        for name, service in configuration(project, files)["services"].items()
        if "profiles" not in service
    }
    missing = {
        name: service["image"]
        for name, service in services.items()
        if "build" not in service and not has_image(service["image"])
    }
    return sorted(services.keys() - missing.keys()), missing

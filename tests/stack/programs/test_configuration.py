"""Loki, Tempo and Promtail accept their configuration files."""

import subprocess
from pathlib import Path

import pytest

from scripts.engine import OVERLAY, configuration
from tests.support.prerequisites import require_docker, require_image

# Service -> the arguments with which it only checks its configuration.
CONFIG_CHECKS = {
    "loki": ["-verify-config"],
    "tempo": ["-config.verify=true"],
    "promtail": ["-check-syntax"],
}


@pytest.mark.parametrize("service", CONFIG_CHECKS)
def test_program_accepts_its_configuration(yes_project: Path, service: str) -> None:
    require_docker()
    program = configuration(yes_project, OVERLAY)["services"][service]
    require_image(program["image"])
    (config,) = [mount for mount in program["volumes"] if mount["type"] == "bind"]
    command = ["docker", "run", "--rm", "--network=none"]
    command += [f"--env={name}={value}" for name, value in program["environment"].items()]
    command += [f"--volume={config['source']}:{config['target']}:ro", program["image"]]
    command += [*program["command"], *CONFIG_CHECKS[service]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

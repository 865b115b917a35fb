"""The generated project's own make targets: checks, development server, SBOM, installation."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from tests.support.commands import NOT_INHERITED, OLD_PYTHON, run
from tests.support.path import path_with_stub, path_without
from tests.support.ports import free_port
from tests.support.prerequisites import unavailable
from tests.support.template import Bake
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="the Makefile is for POSIX"),
]

CORE_TARGETS = {
    *("help", "up", "down", "logs", "build", "check-config", "dev", "test", "lint", "format"),
    *("lock", "audit", "sbom"),
}
OBS_TARGETS = {
    *("obs-up", "obs-down", "obs-logs", "obs-status", "obs-check", "obs-alert-test"),
    *("obs-clean", "obs-dev", "obs-traffic", "obs-backup", "obs-restore", "obs-pin"),
}
SETTINGS = {
    "APP_API_PREFIX": "/elsewhere",
    "APP_EXTENSIONS": "nowhere:setup",
    "APP_LOG_LEVEL": "ERROR",
    "OTEL_SDK_DISABLED": "true",
    "OTEL_TRACES_SAMPLER": "always_off",
    "PROMETHEUS_MULTIPROC_DIR": "/nowhere",
}


@pytest.fixture(scope="module", params=["yes", "no"])
def answer(request: pytest.FixtureRequest) -> str:
    """Return the answer to include_observability; tests run with both."""
    chosen: str = request.param
    return chosen


@pytest.fixture(scope="module")
def installed(bake: Bake, answer: str) -> Path:
    """Generate a project for this module, and create its virtual environment with make."""
    project = bake(include_observability=answer)
    result = run(project, "make", "backend/.venv/.installed")
    assert result.returncode == 0, result.stdout
    return project


@pytest.mark.parametrize("goal", ["lint", "test"])
def test_project_passes_its_own_checks(installed: Path, goal: str) -> None:
    """Settings of a service in the environment do not affect the checks."""
    result = run(installed, "make", goal, **SETTINGS)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("one.py", "x=1\n", "would be reformatted"),
        ("one.py", "import os\n", "F401"),
        ("one.py", "def one():\n    pass\n", "no-untyped-def"),
        ("one.sh", "#!/bin/sh\necho $1\n", "SC2086"),
    ],
    ids=["format", "lint", "types", "shell"],
)
def test_make_lint_checks_every_folder(installed: Path, name: str, text: str, message: str) -> None:
    file = installed / "another/folder" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    result = run(installed, "make", "lint")
    file.unlink()
    assert result.returncode == 2, result.stdout
    assert message in result.stdout
    assert name in result.stdout


def test_make_lists_every_target(installed: Path, answer: str) -> None:
    result = run(installed, "make")
    assert "\x1b" not in result.stdout  # no colours without a terminal
    # "  obs-up     Start the stack"
    listed = set(re.findall(r"(?m)^  ([a-z-]+) +\S", result.stdout))
    assert listed == CORE_TARGETS | (OBS_TARGETS if answer == "yes" else set()), result.stdout
    makefiles = [installed / "Makefile", *installed.glob("*/*.mk")]
    phony = {
        name
        for path in makefiles
        for line in re.findall(r"(?m)^\.PHONY:(.*)$", path.read_text(encoding="utf-8"))
        for name in line.split()
    }
    assert listed == phony - {"obs-prepare"}  # internal


def test_make_dev_reloads_when_the_code_changes(installed: Path, tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            ["make", "dev", f"BACKEND_PORT={port}"],
            cwd=installed,
            env={name: value for name, value in os.environ.items() if name not in NOT_INHERITED},
            stdout=sink,
            stderr=sink,
            start_new_session=True,
        )

    def started() -> int:
        return log.read_text("utf-8").count("Application startup complete")

    try:
        health = f"http://127.0.0.1:{port}/api/v1/health"
        wait_until(lambda: requests.get(health, timeout=5).ok, "the service to respond")
        wait_until(lambda: started() == 1, "the first start")
        code = installed / "backend/app/main.py"
        code.write_bytes(code.read_bytes())
        wait_until(lambda: started() == 2, "the second start")
        wait_until(lambda: requests.get(health, timeout=5).ok, "the service to respond again")
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def test_installed_packages_are_compatible(installed: Path) -> None:
    uv = Path(sys.executable).with_name("uv")
    result = run(installed, uv, "pip", "check", "--python", "backend/.venv")
    assert result.returncode == 0, result.stdout


def test_make_lock_gives_each_package_one_version(installed: Path, tmp_path: Path) -> None:
    project = shutil.copytree(installed, tmp_path / "copy", symlinks=True)
    result = run(project, "make", "lock")
    assert result.returncode == 0, result.stdout
    versions: dict[str, set[str]] = {}
    for lock in (project / "backend/requirements").glob("*.txt"):
        # `fastapi==0.165.0 \`
        for name, version in re.findall(r"(?m)^([\w.-]+)==(\S+)", lock.read_text("utf-8")):
            versions.setdefault(name, set()).add(version)
    assert "opentelemetry-api" in versions  # FastAPI requires it in the core, too
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


def test_make_sbom_lists_the_packages_of_each_image(installed: Path, answer: str) -> None:
    result = run(installed, "make", "sbom")
    assert result.returncode == 0, result.stdout
    found = {
        path.name: {each["name"] for each in json.loads(path.read_text("utf-8"))["components"]}
        for path in installed.glob("sbom-*.json")
    }
    images = {"core", "observability"} if answer == "yes" else {"core"}
    assert found.keys() == {f"sbom-{name}.json" for name in images}
    assert "fastapi" in found["sbom-core.json"]
    assert ("prometheus-client" in str(found)) == (answer == "yes")


def test_project_installs_without_uv(bake: Bake, tmp_path: Path) -> None:
    """Without uv on the PATH, venv and pip are used. The configuration of pip has no effect."""
    without_uv = path_without("uv", tmp_path)
    project = bake(include_observability="no")
    if run(project, "python3", "-c", "import ensurepip", path=without_uv).returncode:
        unavailable("Python's ensurepip is missing (Debian: python3-venv)")
    result = run(project, "make", "test", path=without_uv, PIP_USER="1")
    assert result.returncode == 0, result.stdout
    assert (project / "backend/.venv/bin/uv").exists()


def test_make_rejects_an_unsupported_python_before_it_creates_an_environment(
    bake: Bake, tmp_path: Path
) -> None:
    project = bake()
    path = path_with_stub(OLD_PYTHON, tmp_path / "bin", "python3", path_without("uv", tmp_path))
    result = run(project, "make", "test", path=path)
    assert result.returncode == 2
    assert "Python 3.10.9 is too old: 3.11 or newer is required." in result.stdout
    assert not (project / "backend/.venv").exists()

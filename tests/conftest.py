"""Fixtures: generated projects, the running backend and the running stack."""

import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from cookiecutter.main import cookiecutter

from tests.support.backend import Backend, running_backend
from tests.support.compose_stack import Stack, running_stack
from tests.support.otlp_receiver import Receiver, receiver
from tests.support.prerequisites import require_docker, unavailable
from tests.support.template import Bake, copy_template


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option ``--report``, which `make test-faults` uses."""
    parser.addoption(
        "--report",
        help="JSON file for the results of tests/faults; a Markdown page is written next to it",
    )


@pytest.fixture(scope="session")
def stack(bake: Bake) -> Iterator[Stack]:
    """Run the containers of the overlay whose images are available.

    The project's files have the modes of a clone with umask 077.
    """
    require_docker()
    project = bake(project_slug="e2e-service")
    for command in (["chmod", "-R", "go=", "."], ["sh", "observability/prepare.sh"]):
        subprocess.run(command, cwd=project, check=True)
    with (project / ".env").open("a", encoding="utf-8") as env:
        env.write("DEMO_ROUTES=yes\n")
    with running_stack(project) as running:
        yield running


@pytest.fixture(scope="module")
def tempo() -> Iterator[Receiver]:
    """Run an OTLP receiver in place of Tempo."""
    with receiver() as running:
        yield running


@pytest.fixture(scope="module")
def backend(
    yes_project: Path, tempo: Receiver, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Backend]:
    """Run the backend, which exports its spans to the receiver."""
    database = tmp_path_factory.mktemp("database") / "app.db"
    with running_backend(yes_project, database, endpoint=tempo.endpoint) as running:
        yield running


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the template. It is shared, so do not change it."""
    return copy_template(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="session")
def bake(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Bake:
    """Return a function that generates a project from answers and returns its folder.

    It generates in ``output_dir``, by default a new folder. ``options`` are further arguments
    of ``cookiecutter()``.
    """
    folder = tmp_path_factory.mktemp("cookiecutter")
    config = folder / "config.yaml"
    settings = {"cookiecutters_dir": str(folder), "replay_dir": str(folder)}
    config.write_text(json.dumps(settings), encoding="utf-8")

    def generate(
        output_dir: Path | None = None, options: dict[str, object] | None = None, **answers: str
    ) -> Path:
        arguments: dict[str, object] = {
            "no_input": True,
            "extra_context": answers,
            "output_dir": str(output_dir or tmp_path_factory.mktemp("baked")),
            "config_file": str(config),
            **(options or {}),
        }
        return Path(cookiecutter(str(template), **arguments))

    return generate


@pytest.fixture(scope="session")
def yes_project(bake: Bake) -> Path:
    """Return the default project, with observability. It is shared, so do not change it."""
    return bake()


@pytest.fixture(scope="session")
def overlay(yes_project: Path) -> Any:
    """Return the services of the overlay file, before Compose interpolates or merges them."""
    text = (yes_project / "compose.observability.yml").read_text(encoding="utf-8")
    return yaml.safe_load(text)["services"]


@pytest.fixture(scope="session")
def no_project(bake: Bake) -> Path:
    """Return the default project without observability. It is shared, so do not change it."""
    return bake(include_observability="no")


@pytest.fixture(scope="session")
def observability(yes_project: Path) -> ModuleType:
    """Import the generated package. Only once, because its metrics can be registered only once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(yes_project / "backend")
        patch.setattr(sys, "dont_write_bytecode", True)
        return importlib.import_module("app.observability")


@pytest.fixture(scope="session")
def docker() -> str:
    """Return the path of the docker command with Compose. It does not require Docker Engine."""
    program = shutil.which("docker")
    if program is None or subprocess.run([program, "compose", "version"], check=False).returncode:
        unavailable("docker compose is missing")
    return program

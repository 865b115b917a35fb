"""Projects generated from the template, for every test that needs one."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from cookiecutter.main import cookiecutter

ROOT = Path(__file__).parent.parent
TEMPLATE = ROOT / "{{cookiecutter.project_slug}}"

Bake = Callable[..., Path]


def tree(folder: Path) -> list[str]:
    """Return the path of every file below ``folder``, relative to it, sorted."""
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def skip_without(what: str) -> NoReturn:
    """Skip the test because ``what`` is not on this machine; with E2E_STRICT=1 fail instead."""
    if os.environ.get("E2E_STRICT") == "1":
        pytest.fail(f"{what} is missing, and E2E_STRICT=1 demands it")
    pytest.skip(f"{what} is missing")


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the template without the caches that tools leave in a working tree."""
    copy = tmp_path_factory.mktemp("template")
    shutil.copy(ROOT / "cookiecutter.json", copy)
    caches = shutil.ignore_patterns("__pycache__", ".*_cache", ".venv")
    for folder in (ROOT / "hooks", TEMPLATE):
        shutil.copytree(folder, copy / folder.name, ignore=caches)
    return copy


@pytest.fixture(scope="session")
def bake(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Bake:
    """Return a function that generates a project from answers and returns its folder.

    Its argument ``output_dir`` is the folder to generate in, by default a new one. Any other
    argument of cookiecutter's own function can be given in ``options``.
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
    """Return the default project, with observability. Shared: read it, change nothing."""
    return bake()


@pytest.fixture(scope="session")
def no_project(bake: Bake) -> Path:
    """Return the default project without observability. Shared: read it, change nothing."""
    return bake(include_observability="no")


@pytest.fixture(scope="session")
def docker() -> str:
    """Return the path of docker, when it has Compose. An engine is not needed."""
    program = shutil.which("docker")
    if program is None or subprocess.run([program, "compose", "version"], check=False).returncode:
        skip_without("docker compose")
    return program

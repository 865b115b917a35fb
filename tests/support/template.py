"""Paths in this repository, and copies of the template."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from hooks import pre_gen_project as pre

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "{{cookiecutter.project_slug}}"
DATA = ROOT / "tests/data"

DEFAULTS: dict[str, str] = {name: rule[2] for name, rule in pre.RULES.items()} | {
    "description": "A FastAPI service.",
    "author": "Your Name",
}
# The fixture `bake`: it generates a project from answers.
Bake = Callable[..., Path]


def stack_file(name: str) -> Any:
    """Return the content of a YAML file in the template's folder ``observability``."""
    path = TEMPLATE / "observability" / name
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def tree(folder: Path) -> list[str]:
    """Return the path of every file below ``folder``, relative to it, sorted."""
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def copy_template(folder: Path) -> Path:
    """Copy the template, without the caches that tools leave in a working tree."""
    shutil.copy(ROOT / "cookiecutter.json", folder)
    caches = shutil.ignore_patterns("__pycache__", ".*_cache", ".venv")
    for source in (ROOT / "hooks", TEMPLATE):
        shutil.copytree(source, folder / source.name, ignore=caches)
    return folder

"""Paths of this repository, and helpers to read and copy the template."""

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
Bake = Callable[..., Path]  # the type of the fixture `bake`


def stack_file(name: str) -> Any:
    """Parse a YAML file of the template's folder ``observability``."""
    path = TEMPLATE / "observability" / name
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def tree(folder: Path) -> list[str]:
    """Return the sorted relative paths of all files below a folder."""
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def copy_template(folder: Path) -> Path:
    """Copy the template into a folder, without the caches of tools, and return the folder."""
    shutil.copy(ROOT / "cookiecutter.json", folder)
    caches = shutil.ignore_patterns("__pycache__", ".*_cache", ".venv")
    for source in (ROOT / "hooks", TEMPLATE):
        shutil.copytree(source, folder / source.name, ignore=caches)
    return folder

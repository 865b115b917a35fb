"""Finish a generated project: delete what was not asked for, write .env, name the next commands.

Cookiecutter renders this file and runs it inside the new project; cruft does so again at each
update. It touches nothing outside that folder, uses no network, and a second run changes nothing.
The only Jinja is the string literal in main(), so tests can import the file as it is.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

# An optional feature is one row: everything that exists for it alone.
FEATURE_PATHS: dict[str, tuple[str, ...]] = {
    "include_observability": (
        "compose.observability.yml",
        "observability",
        "backend/app/demo_routes.py",
        "backend/app/observability",
        "backend/requirements/observability.txt",
        "backend/tests/observability",
    ),
}
EMPTY_PASSWORD = re.compile(r"(?m)^([A-Z_]+_PASSWORD)=$")


class StaleTableError(Exception):
    """FEATURE_PATHS names something that the template does not have."""


def remove(project: Path, feature: str, names: Sequence[str]) -> None:
    """Delete a feature's paths, unless all of them are gone already."""
    missing = [name for name in names if not (project / name).exists()]
    if len(missing) == len(names):
        return
    if missing:
        raise StaleTableError(
            f"{feature}: {', '.join(missing)}: listed in FEATURE_PATHS of the template's "
            "hooks/post_gen_project.py but not there; correct the table"
        )
    for name in names:
        path = project / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def write_env(project: Path) -> None:
    """Write .env, readable by its owner only, with a random value for each empty password."""
    text = (project / ".env.example").read_text(encoding="utf-8")
    text = EMPTY_PASSWORD.sub(lambda line: f"{line[1]}={secrets.token_urlsafe(24)}", text)
    try:
        descriptor = os.open(project / ".env", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return  # it holds what its owner has set since
    with open(descriptor, "w", encoding="utf-8", newline="\n") as env:
        env.write(text)


def make_readable(folder: Path) -> None:
    """Let everybody read what containers mount, whatever the umask is; their users own none of it."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))


def main() -> int:
    """Do all of it in the current folder and return the exit code."""
    answers: dict[str, str] = json.loads(r"""{{ cookiecutter | tojson }}""")
    project = Path.cwd()
    try:
        for feature, names in FEATURE_PATHS.items():
            if answers[feature] == "no":
                remove(project, feature, names)
        if answers["include_observability"] == "yes":
            make_readable(project / "observability")
        # cruft compares two generated projects, so what is random must not be in them. It adds
        # _commit to the answers; the Makefile then writes .env when it is first needed.
        if "_commit" not in answers:
            write_env(project)
    except (StaleTableError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    start = "make obs-up" if answers["include_observability"] == "yes" else "make up"
    print("\nNext:", f"cd {answers['project_slug']}", start, "make test", sep="\n  ")
    return 0


if __name__ == "__main__":
    sys.exit(main())

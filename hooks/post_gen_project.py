"""Finish a generated project: delete unused features, write .env, print the next commands.

Cookiecutter renders this file and runs it in the new project; cruft runs it again on each update.
It changes nothing outside that folder, uses no network, and a second run changes nothing.
The only Jinja is the string literal in main(), so tests can import this file unrendered.
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

# Option -> all paths that exist only for it, to delete if the answer is "no".
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
# Matches `GRAFANA_ADMIN_PASSWORD=`.
EMPTY_PASSWORD = re.compile(r"(?m)^([A-Z_]+_PASSWORD)=$")


class StaleTableError(Exception):
    """FEATURE_PATHS names a path that does not exist in the template."""


def remove(project: Path, feature: str, names: Sequence[str]) -> None:
    """Delete the paths of a feature; do nothing if none of them exists."""
    missing = [name for name in names if not (project / name).exists()]
    if len(missing) == len(names):
        return
    if missing:
        raise StaleTableError(
            f"{feature}: FEATURE_PATHS in the template's hooks/post_gen_project.py lists paths "
            f"that do not exist: {', '.join(missing)}"
        )
    for name in names:
        path = project / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def write_env(project: Path) -> None:
    """Write .env, readable only by its owner, with a random value for each empty password."""
    text = (project / ".env.example").read_text(encoding="utf-8")
    text = EMPTY_PASSWORD.sub(lambda line: f"{line[1]}={secrets.token_urlsafe(24)}", text)
    try:
        descriptor = os.open(project / ".env", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return  # keep the user's settings
    with open(descriptor, "w", encoding="utf-8", newline="\n") as env:
        env.write(text)


def make_readable(folder: Path) -> None:
    """Make a folder readable for all users, whatever the umask: containers run as other users."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))


def main() -> int:
    """Run all steps in the current folder and return the exit code."""
    answers: dict[str, str] = json.loads(r"""{{ cookiecutter | tojson }}""")
    project = Path.cwd()
    try:
        for feature, names in FEATURE_PATHS.items():
            if answers[feature] == "no":
                remove(project, feature, names)
        if answers["include_observability"] == "yes":
            make_readable(project / "observability")
        # cruft compares two generated projects, so they must not contain random values. cruft adds
        # _commit to the answers; in this case make obs-up writes .env.
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

"""Runs commands in a generated project as its user does."""

import os
import subprocess
import sys
from pathlib import Path

# A shell script that takes the place of a python3 that is too old.
OLD_PYTHON = f"""#!/bin/sh
[ "$1" = --version ] && echo Python 3.10.9 && exit
exec {sys.executable} -c "import sys; sys.version_info = (3, 10, 9); $2"
"""
# Variables that a program started from a test must not inherit from the tests' own environment.
OURS = ("MAKEFLAGS", "MAKELEVEL", "PYTHONPATH", "VIRTUAL_ENV")


def run(
    project: Path, *command: str | Path, path: str | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in a project, its output read as one text."""
    env = {name: value for name, value in os.environ.items() if name not in OURS}
    env["PATH"] = path or f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    env |= variables
    return subprocess.run(
        command,
        cwd=project,
        env=env | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )

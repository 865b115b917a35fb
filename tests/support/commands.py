"""Run commands in a generated project as its user does."""

import os
import subprocess
import sys
from pathlib import Path

# A stub of python3 that reports an unsupported version.
OLD_PYTHON = f"""#!/bin/sh
[ "$1" = --version ] && echo Python 3.10.9 && exit
exec {sys.executable} -c "import sys; sys.version_info = (3, 10, 9); $2"
"""
# Variables of the test environment that a command in a generated project must not inherit.
NOT_INHERITED = ("MAKEFLAGS", "MAKELEVEL", "PYTHONPATH", "VIRTUAL_ENV")


def run(
    project: Path, *command: str | Path, path: str | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in a project; ``stdout`` of the result contains both streams."""
    env = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
    env["PATH"] = path or f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
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

"""Run the docker command, or replace it with a stub."""

import os
import subprocess
from pathlib import Path


def docker(*arguments: str, check: bool = True) -> str:
    """Run docker and return its standard output.

    Raises:
        subprocess.CalledProcessError: the command failed and ``check`` is true.
    """
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=check)
    return done.stdout


def path_with_stub(script: str, folder: Path, program: str = "docker") -> str:
    """Return a PATH on which a shell script replaces a program.

    Args:
        script: The shell script.
        folder: The folder for the script.
        program: The program to replace.
    """
    stub = folder / program
    folder.mkdir(parents=True, exist_ok=True)
    stub.write_text(script, encoding="utf-8")
    stub.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"

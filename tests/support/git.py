"""Run git and cruft in temporary repositories."""

import subprocess
import sys
from pathlib import Path

from tests.support.template import tree

AUTHOR = ("-c", "user.name=t", "-c", "user.email=t@example.invalid", "-c", "commit.gpgsign=false")


def run_checked(folder: Path, *command: str | Path) -> str:
    """Run a command, which must succeed, and return its output."""
    result = subprocess.run(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


def git(folder: Path, *arguments: str | Path) -> str:
    """Run git and return its output."""
    return run_checked(folder, "git", *AUTHOR, *arguments)


def commit(folder: Path) -> str:
    """Commit everything in a repository and return the id of the commit."""
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "x")
    return git(folder, "rev-parse", "HEAD").strip()


def cruft(folder: Path, *arguments: str | Path) -> str:
    """Run cruft and return its output."""
    return run_checked(folder, Path(sys.executable).with_name("cruft"), *arguments)


def contents(project: Path) -> dict[str, bytes]:
    """Return the content of each file of a project, without those of git and cruft."""
    return {
        name: (project / name).read_bytes()
        for name in tree(project)
        if not name.startswith((".git/", ".cruft.json"))
    }

"""A project made with cruft takes changes of the template, and changes of its own answers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.template import copy_template, tree


def run(folder: Path, *command: str | Path) -> str:
    """Run a command and return what it prints; it must succeed."""
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


def commit(folder: Path) -> None:
    """Commit all that is in a folder, which becomes a repository."""
    run(folder, "git", "init", "--quiet")
    run(folder, "git", "add", "--all")
    who = ("-c", "user.name=t", "-c", "user.email=t@example.invalid", "-c", "commit.gpgsign=false")
    run(folder, "git", *who, "commit", "--quiet", "--message", "x")


def cruft(folder: Path, *arguments: str | Path) -> str:
    """Run cruft, and return what it prints."""
    return run(folder, Path(sys.executable).with_name("cruft"), *arguments)


def update(project: Path, **answers: str) -> None:
    """Commit the project, and bring it up to date, with these answers changed."""
    commit(project)
    cruft(project, "update", "--skip-apply-ask", "--variables-to-update", json.dumps(answers))


def contents(project: Path) -> dict[str, bytes]:
    """Return the content of every file that git and cruft do not own."""
    return {
        name: (project / name).read_bytes()
        for name in tree(project)
        if not name.startswith((".git/", ".cruft.json"))
    }


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a project that cruft made from a repository, which is ``../template`` from it."""
    (tmp_path / "template").mkdir()
    commit(copy_template(tmp_path / "template"))
    cruft(tmp_path, "create", "template", "--no-input")
    return tmp_path / "my-service"


@pytest.mark.skipif(sys.platform == "win32", reason="cruft runs git through POSIX paths")
def test_a_project_follows_the_template_and_its_answers(project: Path) -> None:
    created = contents(project)
    assert ".env" not in created  # random, so cruft would find a difference each time

    compose = project.parent / "template/{{cookiecutter.project_slug}}/compose.yml"
    compose.write_text(compose.read_text(encoding="utf-8") + "# New.\n", encoding="utf-8")
    commit(project.parent / "template")
    update(project)
    changed = contents(project)
    assert changed == {**created, "compose.yml": created["compose.yml"] + b"# New.\n"}

    update(project, include_observability="no")
    assert "compose.observability.yml" not in contents(project)
    update(project, include_observability="yes")
    assert contents(project) == changed

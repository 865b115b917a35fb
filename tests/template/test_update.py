"""Updates of a project with cruft."""

import json
import sys
from pathlib import Path

import pytest

from tests.support.git import commit, contents, cruft, git
from tests.support.template import copy_template


def update(project: Path, **answers: str) -> None:
    """Commit the project and update it with changed answers."""
    git(project, "init", "--quiet")
    commit(project)
    cruft(project, "update", "--skip-apply-ask", "--variables-to-update", json.dumps(answers))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Create a project with cruft from the repository ``../template``."""
    (tmp_path / "template").mkdir()
    template = copy_template(tmp_path / "template")
    git(template, "init", "--quiet")
    commit(template)
    cruft(tmp_path, "create", "template", "--no-input")
    return tmp_path / "my-service"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="cruft runs git through POSIX paths")
def test_update_applies_changes_of_the_template_and_of_answers(project: Path) -> None:
    created = contents(project)
    assert ".env" not in created  # has a random password, so cruft would always find a difference

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

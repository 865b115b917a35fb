"""A release: its version, its notes, projects generated from its tag, and upgrades to it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import release_notes
from tests.support.git import commit, contents, cruft, git
from tests.support.prerequisites import unavailable
from tests.support.template import ROOT, copy_template

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="cruft runs git through POSIX paths"
)

VERSION = release_notes.newest()[0]
# The version that the test upgrades from: the tag of the last release. 1.0.0 has none, so here a commit.
PREVIOUS = "47d44fe8b7832083569e6172e49d5a42ee34ff13"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a clone of this repository whose working tree has the version's tag, and a later commit."""
    clone = tmp_path / "repository"
    git(tmp_path, "clone", "--quiet", "--no-hardlinks", ROOT, clone)
    if subprocess.run(["git", "cat-file", "-e", PREVIOUS], cwd=clone, check=False).returncode:
        unavailable(f"this clone is shallow: it lacks the commit {PREVIOUS}")
    for path in ("hooks", release_notes.README.parent.name):
        shutil.rmtree(clone / path)
    copy_template(clone)
    git(clone, "tag", "--force", VERSION, commit(clone))
    with (clone / release_notes.README.relative_to(ROOT)).open("a", encoding="utf-8") as readme:
        readme.write("Unreleased.\n")
    commit(clone)
    return clone


def test_generated_projects_show_the_newest_version_of_the_changelog() -> None:
    assert release_notes.problem(VERSION) is None


@pytest.mark.parametrize("version", ["0.9.0", "v" + VERSION, ""])
def test_another_version_cannot_be_released(version: str) -> None:
    assert f"expected {VERSION}" in str(release_notes.problem(version))


def test_a_tag_can_be_checked_out_with_cookiecutter(repository: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cookiecutter", "--default-config", "--no-input"]
    command += ["--output-dir", str(tmp_path), "--checkout", VERSION, f"git+file://{repository}"]
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    subprocess.run(command, env=env, check=True)
    readme = (tmp_path / "my-service/README.md").read_text(encoding="utf-8")
    assert f"version {VERSION} of its template" in readme
    assert "Unreleased." not in readme


@pytest.mark.slow
@pytest.mark.parametrize("answer", ["yes", "no"])
def test_cruft_upgrades_the_previous_version_and_shows_conflicts(
    repository: Path, tmp_path: Path, answer: str
) -> None:
    """A local edit of a line that the template changed, too, is a conflict; all other files are new."""
    expected = tmp_path / "expected"
    expected.mkdir()
    create: list[str | Path] = ["create", repository, "--no-input"]
    create += [
        "--extra-context",
        f'{{"include_observability": "{answer}", "grafana_port": "3001"}}',
    ]
    cruft(tmp_path, *create, "--checkout", PREVIOUS)
    cruft(expected, *create, "--checkout", VERSION)
    project = tmp_path / "my-service"
    git(project, "init", "--quiet")
    commit(project)
    with (project / "README.md").open("a", encoding="utf-8") as readme:
        readme.write("\n## My section\n")
    commit(project)
    cruft(project, "update", "--skip-apply-ask", "--checkout", VERSION)
    found, wanted = contents(project), contents(expected / "my-service")
    assert {name for name in found if found[name] != wanted.get(name)} == {"README.md"}
    assert found.keys() == wanted.keys()
    conflict = found["README.md"].decode()
    assert "<<<<<<<" in conflict
    assert "## My section" in conflict
    assert f"version {VERSION} of its template" in conflict
    if answer == "yes":
        assert b"GRAFANA_PORT=3001" in found[".env.example"]

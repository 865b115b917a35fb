"""GitHub workflows of this repository and of generated projects."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.template import ROOT

CHECKS = ["lint", "test", "check-config", "build", "up", "down"]
STACK_CHECKS = ["obs-up", "obs-check", "obs-down"]
USES = re.compile(r"uses: (.*)")  # actions/checkout@3d3c42e... # v7.0.1


def workflow_of(project: Path) -> Path:
    return project / ".github/workflows/ci.yml"


def parsed(project: Path) -> dict[str, Any]:
    workflow: dict[str, Any] = yaml.safe_load(workflow_of(project).read_text(encoding="utf-8"))
    return workflow


def steps(project: Path) -> list[dict[str, Any]]:
    return [step for job in parsed(project)["jobs"].values() for step in job["steps"]]


@pytest.fixture(params=["repository", "yes", "no"])
def project(request: pytest.FixtureRequest) -> Path:
    """Return this repository, a project with observability, and one without."""
    if request.param == "repository":
        return ROOT
    found: Path = request.getfixturevalue(f"{request.param}_project")
    return found


def test_actions_are_pinned_by_commit_and_only_releases_have_write_permission(
    project: Path,
) -> None:
    files = sorted((project / ".github/workflows").glob("*.yml"))
    assert workflow_of(project) in files
    for file in files:
        uses = USES.findall(file.read_text(encoding="utf-8"))
        assert uses, file
        for action in uses:
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v[\d.]+", action), action
        workflow = yaml.safe_load(file.read_text(encoding="utf-8"))
        assert workflow["permissions"] == {}
        allowed = {"contents": "write" if file.name == "release.yml" else "read"}
        for name, job in workflow["jobs"].items():
            assert job["timeout-minutes"], name
            assert job.get("permissions", {}) in ({}, allowed), name
            for step in job["steps"]:
                if step.get("uses", "").startswith("actions/checkout@"):
                    assert step["with"]["persist-credentials"] is False


def test_make_targets_of_workflows_exist(project: Path) -> None:
    makefiles = [project / "Makefile", *project.glob("*/*.mk")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in makefiles)
    targets = set(re.findall(r"(?m)^\.PHONY: ([a-z-]+)$", text))
    commands = [step["run"] for step in steps(project) if "run" in step]
    used = [command.split()[1] for command in commands if command.startswith("make ")]
    assert used
    assert set(used) <= targets
    hooks = project / ".pre-commit-config.yaml"
    if hooks.exists():
        (hook,) = yaml.safe_load(hooks.read_text(encoding="utf-8"))["repos"][0]["hooks"]
        assert hook["entry"] == "make lint"


@pytest.mark.parametrize("answer", ["yes", "no"])
def test_workflow_of_a_generated_project_runs_all_its_checks(
    request: pytest.FixtureRequest, answer: str
) -> None:
    project: Path = request.getfixturevalue(f"{answer}_project")
    commands = [step["run"] for step in steps(project) if "run" in step]
    used = [command.split()[1] for command in commands if command.startswith("make ")]
    others = [command for command in commands if not command.startswith("make ")]
    assert used == CHECKS + (STACK_CHECKS if answer == "yes" else [])
    assert [
        command for command in others if not re.match(r"docker compose .*\blogs\b", command)
    ] == []
    for job in parsed(project)["jobs"].values():
        runs = {step["run"].split()[-1]: step.get("if") for step in job["steps"] if "run" in step}
        for start, stop in (("up", "down"), ("obs-up", "obs-down")):
            if start in runs:
                assert (runs["--no-color"], runs[stop]) == ("failure()", "always()")
    group = parsed(project)["concurrency"]["group"]
    assert group == "${{ github.workflow }}-${{ github.ref }}"


def test_workflow_of_a_generated_project_uses_the_action_versions_of_this_repository(
    yes_project: Path,
) -> None:
    """Dependabot cannot parse the template's workflow before it is rendered."""
    here, generated = (
        set(USES.findall(workflow_of(each).read_text(encoding="utf-8")))
        for each in (ROOT, yes_project)
    )
    assert generated <= here


def test_newest_versions_are_tested_weekly_and_do_not_block_pull_requests() -> None:
    workflow = parsed(ROOT)
    triggers: dict[str, Any] = workflow[True]  # type: ignore[index]  # YAML reads `on` as true
    assert len(triggers["schedule"]) == 1
    job = workflow["jobs"]["newest"]
    assert "schedule" in job["if"]
    assert job["steps"][-1]["run"] == "make test-newest"
    assert set(workflow["jobs"]) - set(workflow["jobs"]["pass"]["needs"]) == {"pass", "newest"}


@pytest.mark.skipif(sys.platform == "win32", reason="make and sh are for POSIX")
def test_make_test_newest_installs_the_newest_version_of_all_requirements() -> None:
    command = ["make", "--dry-run", "test-newest"]
    recipe = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (install,) = (line for line in recipe.splitlines() if " pip install " in line)
    assert "--no-config" in install  # ignores exclude-newer
    assert "==" not in install
    names = install.split("--upgrade ")[1].replace('"', "").split()
    assert {"fastapi", "starlette", "uvicorn[standard]", "opentelemetry-distro"} <= set(names)
    assert not {"mypy", "pytest", "ruff"} & set(names)


def test_every_test_folder_has_a_job() -> None:
    matrix = parsed(ROOT)["jobs"]["test"]["strategy"]["matrix"]["tests"]
    listed = [part for each in matrix for part in each.split() if part.startswith("tests/")]
    folders = {path.parent for path in (ROOT / "tests").rglob("test_*.py")}
    assert sorted(listed) == sorted(path.relative_to(ROOT).as_posix() for path in folders)


def test_release_is_created_for_version_tags_with_notes_from_the_changelog() -> None:
    text = (ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    assert workflow[True] == {"push": {"tags": ["[0-9]+.[0-9]+.[0-9]+"]}}
    _, notes, create = workflow["jobs"]["release"]["steps"]
    assert notes["run"] == 'python3 scripts/release_notes.py "$GITHUB_REF_NAME" >notes.md'
    assert create["run"].startswith('gh release create "$GITHUB_REF_NAME" --verify-tag ')
    assert "--notes-file notes.md" in create["run"]

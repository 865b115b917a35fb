"""The workflows: of this repository, and of the projects that are generated from it."""

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
PIN = re.compile(r"uses: (.*)")


def workflow_of(project: Path) -> Path:
    return project / ".github/workflows/ci.yml"


def parsed(project: Path) -> dict[str, Any]:
    workflow: dict[str, Any] = yaml.safe_load(workflow_of(project).read_text(encoding="utf-8"))
    return workflow


def steps(project: Path) -> list[dict[str, Any]]:
    return [step for job in parsed(project)["jobs"].values() for step in job["steps"]]


@pytest.fixture(params=["ours", "yes", "no"])
def project(request: pytest.FixtureRequest) -> Path:
    """Return this repository, then a generated project of each kind."""
    if request.param == "ours":
        return ROOT
    found: Path = request.getfixturevalue(f"{request.param}_project")
    return found


def test_actions_are_pinned_by_commit_and_may_only_read(project: Path) -> None:
    uses = PIN.findall(workflow_of(project).read_text(encoding="utf-8"))
    assert uses
    for action in uses:
        # actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v[\d.]+", action), action
    workflow = parsed(project)
    assert workflow["permissions"] == {}
    for name, job in workflow["jobs"].items():
        assert job["timeout-minutes"], name
        assert job.get("permissions", {}) in ({}, {"contents": "read"}), name
    for step in steps(project):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


def test_every_target_that_a_workflow_makes_exists(project: Path) -> None:
    makefiles = [project / "Makefile", *project.glob("*/*.mk")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in makefiles)
    targets = set(re.findall(r"(?m)^\.PHONY: ([a-z-]+)$", text))
    commands = [step["run"] for step in steps(project) if "run" in step]
    made = [command.split()[1] for command in commands if command.startswith("make ")]
    assert made
    assert set(made) <= targets
    hooks = project / ".pre-commit-config.yaml"
    if hooks.exists():
        (hook,) = yaml.safe_load(hooks.read_text(encoding="utf-8"))["repos"][0]["hooks"]
        assert hook["entry"] == "make lint"


@pytest.mark.parametrize("answer", ["yes", "no"])
def test_a_generated_project_checks_all_that_it_has(
    request: pytest.FixtureRequest, answer: str
) -> None:
    project: Path = request.getfixturevalue(f"{answer}_project")
    commands = [step["run"] for step in steps(project) if "run" in step]
    made = [command.split()[1] for command in commands if command.startswith("make ")]
    others = [command for command in commands if not command.startswith("make ")]
    assert made == CHECKS + (STACK_CHECKS if answer == "yes" else [])
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


def test_a_generated_project_has_the_versions_of_actions_that_are_tested_here(
    yes_project: Path,
) -> None:
    """The update bot cannot read the template's workflow before it is rendered."""
    ours, generated = (
        set(PIN.findall(workflow_of(each).read_text(encoding="utf-8")))
        for each in (ROOT, yes_project)
    )
    assert generated <= ours


def test_the_newest_versions_are_tried_each_week_and_no_change_waits_for_them() -> None:
    workflow = parsed(ROOT)
    triggers: dict[str, Any] = workflow[True]  # type: ignore[index]  # YAML reads `on` as true
    assert len(triggers["schedule"]) == 1
    job = workflow["jobs"]["newest"]
    assert "schedule" in job["if"]
    assert job["steps"][-1]["run"] == "make test-newest"
    assert set(workflow["jobs"]) - set(workflow["jobs"]["pass"]["needs"]) == {"pass", "newest"}


@pytest.mark.skipif(sys.platform == "win32", reason="make and sh are for POSIX")
def test_all_that_the_service_requires_is_tried_in_its_newest_version() -> None:
    command = ["make", "--dry-run", "test-newest"]
    recipe = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (install,) = (line for line in recipe.splitlines() if " pip install " in line)
    assert "--no-config" in install  # which would have exclude-newer
    assert "==" not in install
    names = install.split("--upgrade ")[1].replace('"', "").split()
    assert {"fastapi", "starlette", "uvicorn[standard]", "opentelemetry-distro"} <= set(names)
    assert not {"mypy", "pytest", "ruff"} & set(names)

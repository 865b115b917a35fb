"""Set-up of this repository: make, bootstrap.sh, formatter, linters, and promtool in CI."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.commands import OLD_PYTHON
from tests.support.path import path_without
from tests.support.prerequisites import unavailable
from tests.support.prometheus import IMAGE as PROMETHEUS_IMAGE
from tests.support.template import ROOT, TEMPLATE

DEV_LOCK = ROOT / "requirements-dev.txt"


@pytest.mark.skipif(sys.platform == "win32", reason="make and sh are for POSIX")
def test_make_lists_every_target() -> None:
    result = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "\x1b" not in result.stdout  # no colours, because this is not a terminal
    # "  test-quick   all tests ..."
    listed = re.findall(r"(?m)^  ([a-z-]+)", result.stdout)
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert listed == re.findall(r"(?m)^\.PHONY: ([a-z-]+)$", text)
    for document in ("README.md", "CONTRIBUTING.md"):
        named = re.findall(r"(?m)`make ([a-z]+)`", (ROOT / document).read_text(encoding="utf-8"))
        assert named
        assert set(named) <= {*listed, "up"}


@pytest.mark.skipif(sys.platform == "win32", reason="make and sh are for POSIX")
@pytest.mark.parametrize(
    ("python", "message"),
    [
        (None, "python3 not found. Install Python 3.11 or newer"),
        (OLD_PYTHON, "Python 3.10.9 is too old: 3.11 or newer is required."),
        ('case "$2" in *ensurepip*) exit 1; esac', "Install it: apt install python3-venv"),
    ],
    ids=["no python", "old python", "no pip"],
)
def test_bootstrap_reports_a_missing_prerequisite(
    tmp_path: Path, python: str | None, message: str
) -> None:
    for name in ("sh", "awk", "dirname", "mktemp", "rm"):
        found = subprocess.run(["which", name], capture_output=True, text=True, check=True).stdout
        (tmp_path / name).symlink_to(found.strip())
    if python:
        (tmp_path / "python3").write_text(f"#!/bin/sh\n{python}\n", encoding="utf-8")
        (tmp_path / "python3").chmod(0o755)
    result = subprocess.run(
        [ROOT / "scripts/bootstrap.sh"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert message in result.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="make and sh are for POSIX")
def test_bootstrap_works_if_pip_defaults_to_user_installs(tmp_path: Path) -> None:
    if subprocess.run(
        ["/usr/bin/env", "python3", "-c", "import ensurepip"], check=False
    ).returncode:
        unavailable("Python's ensurepip is missing (Debian: python3-venv)")
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/bootstrap.sh", tmp_path / "scripts")
    # uv==0.13.9 \, and a line with each hash
    entry = re.search(r"(?m)^uv==.*\n(?:    --hash.*\n)+", DEV_LOCK.read_text(encoding="utf-8"))
    assert entry
    (tmp_path / "requirements-dev.txt").write_text(entry[0], encoding="utf-8")
    without_uv = path_without("uv", tmp_path)
    result = subprocess.run(
        [tmp_path / "scripts/bootstrap.sh"],
        env=os.environ | {"PATH": without_uv, "PIP_USER": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / ".venv/bin/uv").exists()


def test_promtool_in_ci_has_the_prometheus_version_of_the_overlay() -> None:
    image = re.compile(r"prom/prometheus:v[\d.]+\d")  # prom/prometheus:v3.16.0
    ci = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    overlay = (TEMPLATE / "compose.observability.yml").read_text(encoding="utf-8")
    assert image.findall(ci) == image.findall(overlay) == [PROMETHEUS_IMAGE]
    job = yaml.safe_load(ci)["jobs"]["test"]
    steps = [step.get("run", "") for step in job["steps"]]
    (copy,) = (number for number, step in enumerate(steps) if "bin/promtool" in step)
    assert copy < steps.index('make test ARGS="$TESTS"')


@pytest.mark.parametrize("command", ["ruff format --check", "ruff check", "mypy"])
def test_python_code_passes_its_checks(command: str) -> None:
    program, *arguments = command.split()
    done = subprocess.run(
        [sys.executable, "-m", program, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="make and sh are for POSIX")
def test_shell_scripts_pass_shellcheck() -> None:
    scripts = [ROOT / ".ci/run", *(ROOT / "scripts").glob("*.sh")]
    program = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([program, *scripts], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

"""The template's recording rules and alerts, and promtool's tests for them."""

import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.support.prerequisites import unavailable
from tests.support.template import DATA, TEMPLATE

Rule = dict[str, Any]

RULES = TEMPLATE / "observability" / "prometheus" / "rules"
TESTS = DATA / "rules"
# File -> its groups.
FILES: dict[Path, list[Rule]] = {
    path: yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    for path in sorted(RULES.glob("*.yml"))
}
# Name of a group -> its file.
GROUPS = {group["name"]: path for path, groups in FILES.items() for group in groups}
ALERTS = {
    rule["alert"]: rule
    for groups in FILES.values()
    for group in groups
    for rule in group["rules"]
    if "alert" in rule
}


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run promtool, with standard output and standard error in one text."""
    if not shutil.which("promtool"):
        unavailable("the program promtool is missing")
    return subprocess.run(
        ["promtool", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


@cache
def parsed_cases(path: Path) -> list[Rule]:
    """Return the cases in a file of rule tests."""
    found: list[Rule] = yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]
    return found


def cases(path: Path) -> list[str]:
    """Return the names of the cases in a file of rule tests."""
    return [case["name"] for case in parsed_cases(path)]

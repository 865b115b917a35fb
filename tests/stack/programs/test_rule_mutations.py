"""Mutation tests: promtool's tests detect each small change to a rule.

This takes half a minute, so locally a group passes at once if its rules and tests have not changed since they passed.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support import rule_mutations
from tests.support.prometheus_rules import FILES, GROUPS, TESTS, Rule, cases, promtool
from tests.support.template import ROOT

PROCESSES = 2  # concurrent runs of promtool


@pytest.mark.parametrize("group", GROUPS)
def test_mutated_rules_are_detected(group: str, request: pytest.FixtureRequest) -> None:
    key, digest = f"rule-mutations/{group}", digest_of(group)
    cache = request.config.cache
    if cache and cache.get(key, None) == digest and os.environ.get("CI") != "true":
        return  # already passed with the same rules and tests
    mutants = list(mutations(group))
    assert len(mutants) > 10
    with ThreadPoolExecutor(PROCESSES) as pool:
        detected = list(pool.map(partial(is_detected, group), mutants))
    assert [name for (name, _), found in zip(mutants, detected, strict=True) if not found] == []
    if cache:
        cache.set(key, digest)


def digest_of(group: str) -> str:
    """Return a checksum of all files on which the result for a group depends."""
    files = (GROUPS[group], rule_tests(group), Path(rule_mutations.__file__), Path(__file__))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def rule_tests(group: str) -> Path:
    """Return the file with promtool's tests for a group."""
    return TESTS / f"{group}.test.yml"


def is_detected(group: str, mutant: tuple[str, list[Rule]]) -> bool:
    """Return whether the tests of a group fail with mutated rules."""
    name, groups = mutant
    test = rule_tests(group)
    own = [case for case in cases(test) if case.split()[0] == name.split(":")[0]] or cases(test)
    with TemporaryDirectory() as folder:
        # The test refers to the rules by a relative path.
        copy, path = (Path(folder, each.relative_to(ROOT)) for each in (test, GROUPS[group]))
        for each in (copy, path):
            each.parent.mkdir(parents=True)
        shutil.copy(test, copy)
        path.write_text(json.dumps({"groups": groups}), encoding="utf-8")
        # The first case alone detects most mutations.
        for some in filter(None, (own[:1], own[1:])):
            done = promtool("test", "rules", *(f"--run=^{re.escape(case)}$" for case in some), copy)
            if done.returncode:
                assert "got:" in done.stdout, f"{name} is not a valid rule: {done.stdout}"
                return True
    return False


def mutations(group: str) -> Iterator[tuple[str, list[Rule]]]:
    """Yield every mutation of a group, with the other groups that its tests require."""
    groups = FILES[GROUPS[group]]
    alerts = "alert" in groups[0]["rules"][0]
    required = [each for each in groups if each["name"] == group] if alerts else groups
    return rule_mutations.mutated_groups(required, group)

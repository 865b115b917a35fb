"""Lock files: pinned, hashed, audited, the same versions everywhere."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.template import ROOT, TEMPLATE

DEV_LOCK = ROOT / "requirements-dev.txt"
BENCH_LOCK = ROOT / "requirements-bench.txt"
LOCKS = {path.stem: path for path in (TEMPLATE / "backend/requirements").glob("*.txt")}
PIN = re.compile(r"([\w.-]+)(?:\[[\w,-]+\])?==([^ ;]+)")


def locked(lock: Path) -> dict[str, str]:
    """Return the version of each package in a lock file."""
    entries = re.findall(r"(?m)^([\w.-]+)==(\S+)", lock.read_text(encoding="utf-8"))
    return dict(entries)


def pins(requirements: list[str]) -> dict[str, str]:
    """Return the version of each requirement, all of which must name one."""
    matches = [PIN.fullmatch(requirement) for requirement in requirements]
    assert matches
    assert None not in matches, requirements
    return {match[1]: match[2] for match in matches if match}


@pytest.fixture
def backend(yes_project: Path) -> dict[str, Any]:
    """Return the generated project's backend/pyproject.toml."""
    return tomllib.loads((yes_project / "backend/pyproject.toml").read_text(encoding="utf-8"))


def test_the_template_is_locked_as_pinned(backend: dict[str, Any]) -> None:
    core = backend["project"]["dependencies"]
    wanted = {
        "core": core,
        "dev": core + backend["dependency-groups"]["dev"],
        **{k: core + v for k, v in backend["project"]["optional-dependencies"].items()},
    }
    assert set(wanted) == set(LOCKS)
    for name, requirements in wanted.items():
        assert pins(requirements).items() <= locked(LOCKS[name]).items(), name


def test_the_tests_are_locked_as_pinned() -> None:
    root = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    dev, bench = (root["dependency-groups"][name] for name in ("dev", "bench"))
    assert pins(dev).items() <= locked(DEV_LOCK).items()
    more = [requirement for requirement in bench if isinstance(requirement, str)]
    assert pins(dev + more).items() <= locked(BENCH_LOCK).items()


def test_one_package_has_one_version_in_all_locks() -> None:
    """They are installed together; and the tests run what the user runs."""
    versions: dict[str, set[str]] = {}
    for lock in (DEV_LOCK, BENCH_LOCK, *LOCKS.values()):
        for name, version in locked(lock).items():
            versions.setdefault(name, set()).add(version)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


@pytest.mark.parametrize(
    "lock", [DEV_LOCK, BENCH_LOCK, *LOCKS.values()], ids=lambda lock: lock.stem
)
def test_a_lock_has_hashes_and_no_addresses(lock: Path) -> None:
    entry = re.compile(
        r"(?m)^[\w.-]+==\S+(?: ; [^\\\n]+)?(?: \\\n    --hash=sha256:[0-9a-f]{64})+\n"
    )
    assert entry.sub("", lock.read_text(encoding="utf-8")) == ""


def test_everything_that_is_locked_is_audited() -> None:
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").split("\naudit:", 1)[1]
    for lock in ROOT.glob("requirements-*.txt"):
        assert lock.name in recipe.split("\n\n", 1)[0]


def test_the_update_bot_knows_all_that_has_a_version_and_can_read_the_images(
    yes_project: Path,
) -> None:
    bot = yaml.safe_load((yes_project / ".github/dependabot.yml").read_text(encoding="utf-8"))
    assert {(update["package-ecosystem"], update["directory"]) for update in bot["updates"]} == {
        ("github-actions", "/"),
        ("docker-compose", "/"),
        ("docker", "/backend"),
        ("pip", "/backend"),
    }
    overlay = (yes_project / "compose.observability.yml").read_text(encoding="utf-8")
    images = re.findall(r"(?m)^ *image: (.*?)(?: #.*)?$", overlay)
    others = [image for image in images if not re.fullmatch(r"my-service-backend:\w+", image)]
    assert len(others) == 8
    for image in others:
        assert re.fullmatch(r"\$\{[A-Z_]+_IMAGE:-[a-z/-]+:v?[\d.]+(-alpine)?\}", image), image


def test_the_uv_that_is_named_is_everywhere_the_same() -> None:
    version = locked(DEV_LOCK)["uv"]
    for path in ("Makefile", "backend/Dockerfile"):
        text = (TEMPLATE / path).read_text(encoding="utf-8")
        assert re.findall(r"(?i)uv(?:_version :=|==)\s*([\d.]+)", text) == [version], path

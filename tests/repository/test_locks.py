"""Lock files: pinned versions, hashes, audits, and one version of each package."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from hooks.post_gen_project import FEATURE_PATHS
from tests.support.template import ROOT, TEMPLATE, Bake

DEV_LOCK = ROOT / "requirements-dev.txt"
BENCH_LOCK = ROOT / "requirements-bench.txt"
LOCKS = {path.stem: path for path in (TEMPLATE / "backend/requirements").glob("*.txt")}
PIN = re.compile(r"([\w.-]+)(?:\[[\w,-]+\])?==([^ ;]+)")  # uvicorn[standard]==0.54.0


def locked(lock: Path) -> dict[str, str]:
    """Return the version of each package in a lock file."""
    # fastapi==0.165.0 \
    entries = re.findall(r"(?m)^([\w.-]+)==(\S+)", lock.read_text(encoding="utf-8"))
    return dict(entries)


def pins(requirements: list[str]) -> dict[str, str]:
    """Return the pinned version of each requirement. All requirements must be pinned."""
    matches = [PIN.fullmatch(requirement) for requirement in requirements]
    assert matches
    assert None not in matches, requirements
    return {match[1]: match[2] for match in matches if match}


@pytest.fixture
def backend(bake: Bake) -> dict[str, Any]:
    """Return backend/pyproject.toml of a project with every feature."""
    project = bake(**dict.fromkeys(FEATURE_PATHS, "yes"))
    return tomllib.loads((project / "backend/pyproject.toml").read_text(encoding="utf-8"))


def test_locks_of_the_template_have_the_pinned_versions(backend: dict[str, Any]) -> None:
    core = backend["project"]["dependencies"]
    expected = {
        "core": core,
        "dev": core + backend["dependency-groups"]["dev"],
        **{k: core + v for k, v in backend["project"]["optional-dependencies"].items()},
    }
    assert set(expected) == set(LOCKS)
    for name, requirements in expected.items():
        assert pins(requirements).items() <= locked(LOCKS[name]).items(), name


def test_locks_of_this_repository_have_the_pinned_versions() -> None:
    root = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    dev, bench = (root["dependency-groups"][name] for name in ("dev", "bench"))
    assert pins(dev).items() <= locked(DEV_LOCK).items()
    others = [requirement for requirement in bench if isinstance(requirement, str)]
    assert pins(dev + others).items() <= locked(BENCH_LOCK).items()


def test_each_package_has_one_version_in_all_locks() -> None:
    """Locks are installed together, and the tests must use the versions that users install."""
    versions: dict[str, set[str]] = {}
    for lock in (DEV_LOCK, BENCH_LOCK, *LOCKS.values()):
        for name, version in locked(lock).items():
            versions.setdefault(name, set()).add(version)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


@pytest.mark.parametrize(
    "lock", [DEV_LOCK, BENCH_LOCK, *LOCKS.values()], ids=lambda lock: lock.stem
)
def test_lock_has_hashes_and_no_index_urls(lock: Path) -> None:
    # colorama==0.4.6 ; sys_platform == 'win32' \, and a line with each hash
    entry = re.compile(
        r"(?m)^[\w.-]+==\S+(?: ; [^\\\n]+)?(?: \\\n    --hash=sha256:[0-9a-f]{64})+\n"
    )
    assert entry.sub("", lock.read_text(encoding="utf-8")) == ""


def test_every_lock_is_audited() -> None:
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").split("\naudit:", 1)[1]
    for lock in ROOT.glob("requirements-*.txt"):
        assert lock.name in recipe.split("\n\n", 1)[0]


def test_dependabot_updates_every_ecosystem_and_can_parse_the_images(
    yes_project: Path,
) -> None:
    dependabot = yaml.safe_load(
        (yes_project / ".github/dependabot.yml").read_text(encoding="utf-8")
    )
    assert {
        (update["package-ecosystem"], update["directory"]) for update in dependabot["updates"]
    } == {
        ("github-actions", "/"),
        ("docker-compose", "/"),
        ("docker", "/backend"),
        ("pip", "/backend"),
    }
    overlay = (yes_project / "compose.observability.yml").read_text(encoding="utf-8")
    # image: ${LOKI_IMAGE:-grafana/loki:3.7.8}
    images = re.findall(r"(?m)^ *image: (.*?)(?: #.*)?$", overlay)
    others = [image for image in images if not re.fullmatch(r"my-service-backend:\w+", image)]
    assert len(others) == 8
    for image in others:
        assert re.fullmatch(r"\$\{[A-Z_]+_IMAGE:-[a-z/-]+:v?[\d.]+(-alpine)?\}", image), image


def test_uv_has_one_version_everywhere() -> None:
    version = locked(DEV_LOCK)["uv"]
    for path in ("Makefile", "backend/Dockerfile"):
        text = (TEMPLATE / path).read_text(encoding="utf-8")
        # UV_VERSION := 0.13.9, or uv==0.13.9
        assert re.findall(r"(?i)uv(?:_version :=|==)\s*([\d.]+)", text) == [version], path

"""The repository around the template: lock files, documents, set-up, continuous integration."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml

from hooks import pre_gen_project as pre
from tests.conftest import OLD_PYTHON, ROOT, TEMPLATE, tree
from tests.prometheus import IMAGE as PROMETHEUS_IMAGE
from tests.running import unavailable

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


def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def test_readme_lists_the_options_with_their_defaults() -> None:
    rows = re.findall(r"(?m)^\| `(\w+)` \| (.*?) \|", readme())
    questions = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))
    public = {name: value for name, value in questions.items() if not name.startswith("_")}
    assert [name for name, _ in rows] == list(public)
    for name, shown in rows:
        default = public[name][0] if isinstance(public[name], list) else public[name]
        assert f"`{default}`" in shown or "{{" in default, name
    assert list(public) == list(pre.RULES)


def test_readme_shows_the_generated_tree() -> None:
    """Every path in the drawing exists, and no top-level entry is left out."""
    block = readme().split("```text\nmy-service/\n", 1)[1].split("```", 1)[0]
    folders: list[str] = []
    drawn = set()
    for line in block.splitlines():
        indent, name = re.fullmatch(r"([│ ]*)[├└]── (\S+).*", line, re.ASCII).groups()  # type: ignore[union-attr]
        depth = len(indent) // 4
        path = "/".join([*folders[:depth], name.rstrip("/")])
        folders[depth:] = [name.rstrip("/")]
        drawn.add(path)
    files = (ROOT / "tests/trees/yes.txt").read_text(encoding="utf-8").splitlines()
    existing = {parent.as_posix() for name in files for parent in [Path(name), *Path(name).parents]}
    assert drawn <= existing
    assert {name.split("/")[0] for name in files} <= drawn


def test_links_between_documents_lead_somewhere() -> None:
    for document in ROOT.glob("*.md"):
        text = document.read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
            assert (ROOT / unquote(target)).exists(), f"{document.name}: {target}"


def test_pictures_are_small_described_and_in_both_documents() -> None:
    pictures = list((TEMPLATE / "observability" / "pictures").glob("*.png"))
    assert len(pictures) == 3
    for document in (ROOT / "README.md", TEMPLATE / "observability" / "README.md"):
        shown = re.findall(
            r"!\[([^\]]{40,})\]\((\S+\.png)\)\n", document.read_text(encoding="utf-8")
        )
        found = [(document.parent / unquote(path)).resolve() for _, path in shown]
        assert sorted(found) == sorted(pictures), document
    assert max(picture.stat().st_size for picture in pictures) < 200_000


def test_contributing_has_a_row_for_each_file_of_tests() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"(?m)^\| (`[^|]+`) \|", text)
    patterns = [pattern for row in rows for pattern in re.findall(r"`([^`]+)`", row)]
    names = [path.name for path in (ROOT / "tests").glob("*.py")]
    tests = [name for name in names if name.startswith("test_")]
    assert [name for name in tests if not any(fnmatch(name, each) for each in patterns)] == []
    files = [pattern for pattern in patterns if pattern.endswith(".py")]
    assert [pattern for pattern in files if not any(fnmatch(name, pattern) for name in names)] == []


@pytest.mark.parametrize("folder", [ROOT, TEMPLATE / "observability"], ids=["ours", "generated"])
def test_the_stack_is_described_as_a_whole(folder: Path) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")
    overlay = (TEMPLATE / "compose.observability.yml").read_text(encoding="utf-8")
    services = re.findall(r"(?m)^  ([a-z-]+):\n    <<: \*stack", overlay)
    assert len(services) > 8
    assert [name for name in services if name not in text.lower()] == []
    makefile = (TEMPLATE / "observability" / "obs.mk").read_text(encoding="utf-8")
    targets = re.findall(r"(?m)^(obs-[a-z-]+):.*##", makefile)
    assert len(targets) > 8
    assert [name for name in targets if name not in text] == []


def test_the_drawing_has_every_service_of_the_stack() -> None:
    drawing = (ROOT / "docs" / "overlay.svg").read_text(encoding="utf-8").lower()
    folders = [path.name for path in (TEMPLATE / "observability").iterdir() if path.is_dir()]
    services = {*folders, "node-exporter"} - {"check", "pictures"}
    assert [name for name in sorted(services) if drawing.count(name) < 2] == []  # shown, and told


@pytest.mark.skipif(sys.platform == "win32", reason="make and sh are for POSIX")
def test_make_lists_every_target() -> None:
    result = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "\x1b" not in result.stdout  # colours are for a terminal
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
def test_bootstrap_says_what_is_missing(tmp_path: Path, python: str | None, message: str) -> None:
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


@pytest.mark.skipif(sys.platform == "win32", reason="make and sh are for POSIX")
def test_bootstrap_works_where_pip_installs_for_the_user(tmp_path: Path) -> None:
    if subprocess.run(
        ["/usr/bin/env", "python3", "-c", "import ensurepip"], check=False
    ).returncode:
        unavailable("Python's ensurepip is missing (Debian: python3-venv)")
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/bootstrap.sh", tmp_path / "scripts")
    entry = re.search(r"(?m)^uv==.*\n(?:    --hash.*\n)+", DEV_LOCK.read_text(encoding="utf-8"))
    assert entry
    (tmp_path / "requirements-dev.txt").write_text(entry[0], encoding="utf-8")
    folders = os.environ["PATH"].split(os.pathsep)
    without_uv = os.pathsep.join(each for each in folders if not Path(each, "uv").exists())
    result = subprocess.run(
        [tmp_path / "scripts/bootstrap.sh"],
        env=os.environ | {"PATH": without_uv, "PIP_USER": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / ".venv/bin/uv").exists()


def test_promtool_is_of_the_prometheus_that_the_overlay_runs() -> None:
    image = re.compile(r"prom/prometheus:v[\d.]+\d")
    ci = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    overlay = (TEMPLATE / "compose.observability.yml").read_text(encoding="utf-8")
    assert image.findall(ci) == image.findall(overlay) == [PROMETHEUS_IMAGE]
    job = yaml.safe_load(ci)["jobs"]["test"]
    steps = [step.get("run", "") for step in job["steps"]]
    (copied,) = (number for number, step in enumerate(steps) if "bin/promtool" in step)
    assert copied < steps.index("make test")


def test_the_trees_are_sorted_and_differ_by_the_feature_only() -> None:
    yes, no = (
        (ROOT / f"tests/trees/{answer}.txt").read_text(encoding="utf-8").splitlines()
        for answer in ("yes", "no")
    )
    assert yes == sorted(yes)
    assert no == sorted(set(no) & set(yes))
    assert "README.md" in tree(ROOT)


@pytest.mark.parametrize("command", ["ruff format --check", "ruff check", "mypy"])
def test_our_python_is_clean(command: str) -> None:
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
def test_our_shell_scripts_are_clean() -> None:
    scripts = [ROOT / ".ci/run", *(ROOT / "scripts").glob("*.sh")]
    program = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([program, *scripts], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

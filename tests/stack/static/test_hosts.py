"""Differences between hosts: umask, SELinux, syntax of .env, Compose files, Docker versions."""

import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts.engine import OVERLAY, configuration
from tests.support.commands import run
from tests.support.path import path_with_stub
from tests.support.template import ROOT, TEMPLATE, Bake, copy_template

PREPARE = ["sh", "observability/prepare.sh"]


def unreadable(project: Path) -> list[str]:
    """Return the mounted files and folders that the users of the containers cannot read."""
    folder = project / "observability"
    modes = {path: path.stat().st_mode for path in (folder, *folder.rglob("*"))}
    required = {path: 0o555 if stat.S_ISDIR(mode) else 0o444 for path, mode in modes.items()}
    return [str(path) for path, mode in modes.items() if mode & required[path] != required[path]]


@pytest.fixture
def path_with_docker(docker: str, tmp_path: Path) -> Callable[..., str]:
    """Return a function that returns a PATH on which Docker reports these versions."""

    def path(compose: str = "2.40.3", api: str = "1.44") -> str:
        script = (
            f'#!/bin/sh\ncase "$*" in "compose version --short") echo {compose} ;;\n'
            f'"version --format"*) echo {api} ;;\n*) exec {docker} "$@" ;; esac\n'
        )
        return path_with_stub(script, tmp_path / "bin")

    return path


# --- umask ---------------------------------------------------------------------------------------


def test_mounted_files_are_readable_after_generation_with_umask_077(tmp_path: Path) -> None:
    (tmp_path / "clone").mkdir()
    copy_template(tmp_path / "clone")
    generate = [sys.executable, "-m", "cookiecutter", "clone", "--no-input"]
    for command in (["chmod", "-R", "go=", "clone"], generate):
        env = os.environ | {"HOME": str(tmp_path)}
        subprocess.run(command, cwd=tmp_path, env=env, umask=0o077, check=True, capture_output=True)
    project = tmp_path / "my-service"
    assert not (project / "backend/app/main.py").stat().st_mode & 0o077
    assert unreadable(project) == []


def test_prepare_makes_a_clone_with_umask_077_readable_and_reports_it(
    bake: Bake, path_with_docker: Callable[..., str]
) -> None:
    project = bake()
    subprocess.run(["chmod", "-R", "go=", "."], cwd=project, check=True)
    assert len(unreadable(project)) > 20
    path = path_with_docker()
    assert run(project, *PREPARE, path=path).stdout == (
        "Made observability/ readable for the users of the containers.\n"
    )
    assert unreadable(project) == []
    assert (project / ".env").stat().st_mode & 0o777 == 0o600
    assert run(project, *PREPARE, path=path).stdout == ""


# --- SELinux, user namespaces --------------------------------------------------------------------


def test_bind_mounts_are_relabelled_except_the_docker_socket(
    docker: str, yes_project: Path
) -> None:
    services = configuration(yes_project, OVERLAY)["services"]
    mounts = [mount for service in services.values() for mount in service.get("volumes", [])]
    labels = {each["target"]: each["bind"].get("selinux") for each in mounts if "bind" in each}
    assert labels.pop("/var/run/docker.sock") is None
    assert len(labels) == 10
    assert set(labels.values()) == {"z"}


def test_volumes_avoid_the_nocopy_syntax_that_podman_compose_rejects(yes_project: Path) -> None:
    overlay = (yes_project / "compose.observability.yml").read_text("utf-8")
    # - loki-data:/loki:nocopy
    assert not re.search(r"(?m)^ *- [\w./-]+:/\S*nocopy", overlay)
    assert overlay.count("{ nocopy: true }") == 7


# --- .env, as Compose reads it -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "published"),
    [
        ("BACKEND_PORT=8123", "8123"),
        ("BACKEND_PORT=8123 # mine", "8123"),
        ('BACKEND_PORT="8123"', "8123"),
        ("BACKEND_PORT='8123'", "8123"),
        ("export BACKEND_PORT=8123", "8123"),
        ("BACKEND_PORT = 8123", "8123"),
        ("  BACKEND_PORT=8123", "8123"),
        ("BACKEND_PORT: 8123", "8123"),
        ("BASE=81\nBACKEND_PORT=${BASE}23", "8123"),
        ("BACKEND_PORT=8123-8126", "8123-8126"),
        ("BACKEND_PORT=", "8000"),
    ],
)
def test_make_parses_env_like_compose(bake: Bake, docker: str, lines: str, published: str) -> None:
    project = bake()
    with (project / ".env").open("a", encoding="utf-8") as env:
        env.write(f"\n{lines}\n")
    commands = run(project, "make", "--dry-run", "obs-dev").stdout
    assert commands.rstrip().endswith(f"--reload --no-access-log --port {published[:4]}")
    (port,) = configuration(project, OVERLAY)["services"]["backend"]["ports"]
    assert port["published"] == published


@pytest.mark.parametrize(
    "line",
    [
        *("GRAFANA_ADMIN_PASSWORD=mine", "export GRAFANA_ADMIN_PASSWORD=mine"),
        *(" GRAFANA_ADMIN_PASSWORD = 'mine' # x", "A=mine\nGRAFANA_ADMIN_PASSWORD=${A}"),
    ],
)
def test_existing_password_is_kept_in_any_syntax(
    bake: Bake, path_with_docker: Callable[..., str], line: str
) -> None:
    project = bake()
    (project / ".env").write_text(f"{line}\n", "utf-8")
    done = run(project, *PREPARE, path=path_with_docker())
    assert (done.returncode, done.stdout) == (0, "")
    assert (project / ".env").read_text("utf-8") == f"{line}\n"
    grafana = configuration(project, OVERLAY)["services"]["grafana"]["environment"]
    assert grafana["GF_SECURITY_ADMIN_PASSWORD"] == "mine"  # noqa: S105


@pytest.mark.parametrize(
    "text", [None, "", "X=1", "X=1\nexport GRAFANA_ADMIN_PASSWORD=\nY=2\n"], ids=str
)
def test_missing_password_is_generated(
    bake: Bake, path_with_docker: Callable[..., str], text: str | None
) -> None:
    project = bake()
    env = project / ".env"
    env.unlink()
    if text is not None:
        env.write_text(text, "utf-8")
    path = path_with_docker()
    done = run(project, *PREPARE, path=path)
    assert done.stdout == "Wrote .env, with a new password for Grafana's admin.\n"
    lines = env.read_text("utf-8").splitlines()
    (password,) = [each for each in lines if "GRAFANA_ADMIN_PASSWORD" in each]
    assert re.fullmatch(r"GRAFANA_ADMIN_PASSWORD=[\w-]{32}", password)
    before = (project / ".env.example").read_text("utf-8") if text is None else text
    kept = [each for each in before.splitlines() if "GRAFANA_ADMIN_PASSWORD" not in each]
    assert [each for each in lines if each != password] == kept
    assert env.stat().st_mode & 0o777 == 0o600
    assert {path.name for path in project.glob(".env*")} == {".env", ".env.example"}
    assert run(project, *PREPARE, path=path).stdout == ""


# --- Compose files -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "env", "additional"),
    [
        ([], "", []),
        (["compose.override.yml"], "", ["compose.override.yml"]),
        (["docker-compose.override.yaml"], "", ["docker-compose.override.yaml"]),
        ([], "COMPOSE_FILE=compose.yml:compose.observability.yml", []),
        (["a.yml", "compose.override.yml"], "export COMPOSE_FILE='compose.yml:a.yml'", ["a.yml"]),
        (["a.yml"], "COMPOSE_FILE=compose.yml:a.yml:compose.observability.yml", ["a.yml"]),
        (["a.yml"], "COMPOSE_PATH_SEPARATOR=;\nCOMPOSE_FILE=compose.yml;a.yml", ["a.yml"]),
    ],
)
def test_make_uses_the_same_compose_files_as_compose(
    bake: Bake, docker: str, files: list[str], env: str, additional: list[str]
) -> None:
    project = bake()
    for name in files:
        (project / name).write_text("services: {backend: {environment: {MINE: yes}}}")
    with (project / ".env").open("a", encoding="utf-8") as settings:
        settings.write(f"\n{env}\n")
    commands = run(project, "make", "--dry-run", "obs-logs").stdout
    command = re.findall(r"(?m)^docker compose (.*) logs --follow", commands)
    assert command == [" ".join(f"-f {name}" for name in [*OVERLAY, *additional])]
    model = run(project, "sh", "-c", f"{docker} compose {command[0]} config").stdout
    assert ("MINE" in model) == bool(additional)


# --- Versions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("compose", ["2.21.0", "v2.21.3", "2.40.3-3", "5.0.1"])
@pytest.mark.parametrize("api", ["1.41", "1.52"])
def test_supported_docker_versions_are_accepted(
    bake: Bake, path_with_docker: Callable[..., str], compose: str, api: str
) -> None:
    assert run(bake(), *PREPARE, path=path_with_docker(compose, api)).returncode == 0


@pytest.mark.parametrize(
    ("compose", "api", "message"),
    [
        ("2.20.3", "1.41", "Docker Compose 2.20.3 is too old: 2.21 or newer"),
        ("v2.3.3", "1.41", "Docker Compose v2.3.3 is too old: 2.21 or newer"),
        ("1.29.2", "1.41", "Docker Compose 1.29.2 is too old: 2.21 or newer"),
        ("2.21.0", "1.40", "Docker's API 1.40 is too old: 1.41 or newer"),
    ],
)
def test_older_docker_is_rejected_with_one_line(
    bake: Bake, path_with_docker: Callable[..., str], compose: str, api: str, message: str
) -> None:
    project = bake()
    done = run(project, *PREPARE, path=path_with_docker(compose, api))
    assert done.returncode == 1
    assert done.stdout.startswith(message)
    assert done.stdout.count("\n") == 1


def test_readme_has_the_minimum_versions(yes_project: Path) -> None:
    script = (yes_project / "observability/prepare.sh").read_text("utf-8")
    # at_least "$compose" 2 21
    required = re.findall(r'(?m)^at_least "\$\w+" (\d+) (\d+)', script)
    assert required == [("2", "21"), ("1", "41")]
    for page in (yes_project / "README.md", ROOT / "README.md"):
        assert "Docker 20.10 with Compose 2.21" in page.read_text("utf-8"), page


def test_no_api_version_is_used_that_docker_29_rejects() -> None:
    older = r"/v1\.(1[2-9]|[23][0-9]|4[0-3])/"
    assert re.findall(older, "/v1.12/ /v1.41/ /v1.43/ /v1.44/ /v1.0/") == ["12", "41", "43"]
    found = run(ROOT, "git", "grep", "-nE", older).stdout
    assert [line for line in found.splitlines() if "test_hosts.py" not in line] == []


def test_targets_of_the_stack_depend_on_obs_prepare(yes_project: Path) -> None:
    # obs-up: obs-prepare ## start the stack
    rules: dict[str, Any] = dict(
        re.findall(
            r"(?m)^(obs-[a-z-]+|build|check-config)::? (.*?)(?: ##.*)?$",
            (yes_project / "observability/obs.mk").read_text("utf-8"),
        )
    )
    others = {name for name, required in rules.items() if required != "obs-prepare"}
    assert others == {"obs-dev"}  # runs no container


def test_mentioned_images_have_the_version_of_the_overlay() -> None:
    overlay = (TEMPLATE / "compose.observability.yml").read_text("utf-8")
    # ${LOKI_IMAGE:-grafana/loki:3.7.8}
    images = dict(re.findall(r"_IMAGE:-([\w/-]+):([\w.-]+)}", overlay))
    assert len(images) == 8
    paths = ["--", ".", ":!docs/reliability.*", ":!CHANGELOG.md"]  # history
    mentions = run(ROOT, "git", "grep", "-ohE", rf"({'|'.join(images)}):v?[0-9][a-z0-9.-]*", *paths)
    found = {line.rstrip(".-") for line in mentions.stdout.splitlines()}
    assert found == {f"{name}:{version}" for name, version in images.items()}

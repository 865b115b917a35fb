"""Make targets and scripts of the stack, with a stub in place of Docker that records each call."""

import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.path import path_with_stub
from tests.support.template import Bake
from tests.support.waiting import wait_until

# A project "demo" with the services backend, grafana and loki; grafana does not run.
DOCKER = r"""#!/bin/sh
printf '%s\n' "$*" >>calls
if [ -n "${FAILS:-}" ]; then
  case "$*" in *"$FAILS"*) echo "$FAILS fails" >&2; exit 14 ;; esac
fi
case "$*" in
  "compose version"*) echo 2.21.0 ;;
  "version "*) echo 1.41 ;;
  # Expands ${VARIABLE:-default} and ${VARIABLE:+value}; .env sets only the password.
  *"-f - config --images") sed -n 's/.*"${[A-Z_]*:[-+]\(.*\)}\(.*\)".*/\1\2/p' ;;
  *"config --format json") printf '{\n  "name": "demo",\n  "services": {}\n}\n' ;;
  *"observability.yml config --volumes") printf '%s\n' backend-data loki-data grafana-data ;;
  *"config --volumes") echo backend-data ;;
  *"observability.yml config --services") printf '%s\n' loki backend grafana ;;
  *"config --services") echo backend ;;
  *"config --images obs-check") echo demo-backend:observability ;;
  *"ps --services --status running") printf '%s\n' backend loki ;;
  *"ps --all --format "*)
    echo 'backend|Up 2 minutes (healthy)|http://127.0.0.1:8000 '
    echo 'loki|Exited (1) 5 seconds ago|' ;;
  "volume ls"*) printf '%s\n' demo_backend-data demo_loki-data demo_loki-data2 other_grafana-data ;;
  "system df"*) printf '%s\n' 'demo_loki-data 1.5MB' 'demo_backend-data 4kB' 'other_grafana-data 9GB' ;;
  "run "*)
    echo an archive
    if [ -n "${SLOW:-}" ]; then touch writing; exec sleep 60; fi ;;
esac
"""
CHANGES = ("rm", "run", "stop", "down", "create")


@dataclass
class Project:
    """A generated project whose commands call the stub."""

    folder: Path
    env: dict[str, str]

    def make(
        self, *arguments: str, answer: str = "", **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a make target; ``answer`` is its standard input."""
        return subprocess.run(
            ["make", *arguments],
            cwd=self.folder,
            env=self.env | env,
            input=answer,
            capture_output=True,
            text=True,
            check=False,
        )

    def calls(self) -> list[str]:
        """Return the arguments of each call, without the files of Compose, version checks and settings."""
        path = self.folder / "calls"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        ignored = ("version", "compose version", "compose -f - config")
        lines = [line for line in lines if not line.startswith(ignored)]
        return [line.rpartition("compose.observability.yml ")[2] for line in lines]

    def changes(self) -> list[str]:
        """Return the calls that change something."""
        return [call for call in self.calls() if set(call.split()) & set(CHANGES)]


@pytest.fixture
def project(bake: Bake, tmp_path: Path) -> Project:
    path = path_with_stub(DOCKER, tmp_path / "bin")
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return Project(bake(), env | {"PATH": path})


# --- obs-check ---------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["obs-check", "obs-alert-test", "obs-traffic"])
def test_check_reports_that_the_stack_was_never_built(project: Project, target: str) -> None:
    done = project.make(target, FAILS="image inspect demo-backend:observability")
    assert done.returncode == 2
    assert "The backend's image is missing. Run make obs-up once." in done.stderr
    assert project.changes() == []
    assert project.make(target).returncode == 0
    assert project.changes()[0].startswith("run --rm --no-deps obs-check")


# --- build, check-config -----------------------------------------------------------------------


def test_core_targets_include_the_stack_in_a_fresh_clone(project: Project) -> None:
    (project.folder / ".env").unlink()
    assert project.make("build").returncode == 0
    assert project.calls() == ["compose build", "build"]
    (project.folder / "calls").unlink()
    assert project.make("check-config").returncode == 0
    first, second, promtool, amtool = project.calls()
    assert (first, second) == ("compose config --quiet", "config --quiet")
    assert "prometheus" in promtool
    assert "promtool check config" in promtool
    assert "amtool alertmanager check-config" in amtool


# --- obs-clean ---------------------------------------------------------------------------------


def test_clean_deletes_only_containers_and_volumes_of_the_stack(project: Project) -> None:
    done = project.make("obs-clean", answer="yes\n")
    assert done.returncode == 0, done.stderr
    assert "\n  demo_loki-data\n" in done.stdout
    assert project.changes() == ["rm --stop --force grafana loki", "volume rm demo_loki-data"]
    assert "backend" not in done.stdout


@pytest.mark.parametrize("answer", ["", "\n", "no\n", "y\n", "YES\n"])
def test_clean_requires_confirmation(project: Project, answer: str) -> None:
    done = project.make("obs-clean", answer=answer)
    assert (done.returncode, "Nothing was deleted." in done.stdout) == (2, True)
    assert project.changes() == []


# --- obs-dev -----------------------------------------------------------------------------------


def test_obs_dev_loads_the_extensions_of_the_environment(project: Project) -> None:
    ours = "app.observability:setup_observability"
    assert f'APP_EXTENSIONS="{ours}" ' in project.make("--dry-run", "obs-dev").stdout
    done = project.make("--dry-run", "obs-dev", APP_EXTENSIONS=f"{ours},app.mine:setup")
    assert f'APP_EXTENSIONS="{ours},app.mine:setup" ' in done.stdout


# --- Failures ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "fails"),
    [
        *(("obs-clean", f"config --{option}") for option in ("format json", "volumes", "services")),
        ("obs-clean", "volume ls"),
        ("obs-clean", "volume rm"),
        *(("obs-backup", f"config --{option}") for option in ("format", "volumes", "services")),
        *(("obs-backup", command) for command in ("config --images", "ps --services", "run")),
        ("obs-status", "config --format json"),
        ("obs-status", "system df"),
        ("obs-status", "ps --all"),
    ],
)
def test_target_fails_if_a_docker_command_fails(project: Project, target: str, fails: str) -> None:
    done = project.make(target, answer="yes\n", FAILS=fails)
    assert done.returncode == 2
    assert f"{fails} fails" in done.stderr
    assert not {"Deleted", "Nothing", "Wrote"} & set(done.stdout.replace(".", " ").split())
    if fails not in ("volume rm", "run"):
        assert project.changes() == []


# --- obs-backup --------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_backup_starts_the_stack_again(
    project: Project, number: signal.Signals
) -> None:
    compose = "docker compose -f compose.yml -f compose.observability.yml"
    process = subprocess.Popen(
        ["/bin/sh", "observability/data.sh", "backup", "saved.tar.gz"],
        cwd=project.folder,
        env=project.env | {"COMPOSE": compose, "SLOW": "yes"},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        # Background jobs of a script inherit that SIGINT is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        wait_until((project.folder / "writing").exists, "the archive to be written")
        os.killpg(process.pid, number)  # like a terminal: to the whole process group
        assert process.wait(timeout=30) == 130
    finally:
        process.kill()
        process.wait()
    assert project.calls()[-1] == "start loki"
    assert list(project.folder.glob("saved*")) == []


def test_backup_into_a_missing_folder_fails_without_any_docker_command(project: Project) -> None:
    assert project.make("obs-backup", "FILE=missing/saved.tar.gz").returncode == 2
    assert project.calls() == []


# --- obs-status --------------------------------------------------------------------------------


def test_status_lists_every_service(project: Project) -> None:
    done = project.make("obs-status")
    assert done.returncode == 0, done.stderr
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["SERVICE", "STATUS", "DISK", "ADDRESS"],
        ["backend", "Up", "2", "minutes", "(healthy)", "4kB", "http://127.0.0.1:8000"],
        ["grafana", "not", "created", "-", "-"],
        ["loki", "Exited", "(1)", "5", "seconds", "ago", "1.5MB", "-"],
    ]

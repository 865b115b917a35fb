"""start.sh without Grafana's image: anonymous access is refused on addresses that others can reach."""

import subprocess
from pathlib import Path

import pytest

from tests.support.commands import run

NETWORK = ["0.0.0.0", "192.0.2.1", "[::]", "::", "10.127.0.1", "example.org"]  # noqa: S104


def start(project: Path, tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run start.sh with a stub in place of Grafana."""
    (tmp_path / "run.sh").write_text('#!/bin/sh\necho "started with $*"\n')
    (tmp_path / "run.sh").chmod(0o755)
    return subprocess.run(
        ["/bin/sh", project / "observability/grafana/start.sh", tmp_path / "run.sh", "an argument"],
        env={"PATH": "/usr/bin:/bin", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("address", NETWORK)
@pytest.mark.parametrize("anonymous", ["true", "TRUE", "1", "", None])
def test_grafana_does_not_start_with_anonymous_access_on_a_network(
    yes_project: Path, tmp_path: Path, address: str, anonymous: str | None
) -> None:
    setting = {} if anonymous is None else {"GF_AUTH_ANONYMOUS_ENABLED": anonymous}
    done = start(yes_project, tmp_path, BIND_ADDRESS=address, **setting)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"BIND_ADDRESS={address}" in done.stderr
    assert "Set GRAFANA_ANONYMOUS=false" in done.stderr


@pytest.mark.parametrize(
    ("address", "anonymous"),
    [("127.0.0.1", "true"), ("[::1]", "true"), ("0.0.0.0", "false"), ("127.0.0.1", "false")],  # noqa: S104
)
def test_grafana_starts_on_loopback_or_without_anonymous_access(
    yes_project: Path, tmp_path: Path, address: str, anonymous: str
) -> None:
    done = start(yes_project, tmp_path, BIND_ADDRESS=address, GF_AUTH_ANONYMOUS_ENABLED=anonymous)
    assert (done.returncode, done.stdout) == (0, "started with an argument\n")


def test_make_obs_up_fails_before_it_starts_containers(yes_project: Path) -> None:
    done = run(yes_project, "make", "obs-up", "BIND_ADDRESS=0.0.0.0", "COMPOSE=echo docker")
    assert done.returncode == 2
    assert "Set GRAFANA_ANONYMOUS=false" in done.stdout
    assert "docker" not in done.stdout

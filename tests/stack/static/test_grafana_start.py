"""Who may look at Grafana when it can be reached from a network: tests start.sh without its image."""

import subprocess
from pathlib import Path

import pytest

from tests.support.commands import run

NETWORK = ["0.0.0.0", "192.0.2.1", "[::]", "::", "10.127.0.1", "example.org"]  # noqa: S104


def start(project: Path, tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run what the container runs, with another program in place of Grafana's."""
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
def test_grafana_does_not_start_open_to_a_network(
    yes_project: Path, tmp_path: Path, address: str, anonymous: str | None
) -> None:
    chosen = {} if anonymous is None else {"GF_AUTH_ANONYMOUS_ENABLED": anonymous}
    done = start(yes_project, tmp_path, BIND_ADDRESS=address, **chosen)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"BIND_ADDRESS={address}" in done.stderr
    assert "Set GRAFANA_ANONYMOUS=false" in done.stderr


@pytest.mark.parametrize(
    ("address", "anonymous"),
    [("127.0.0.1", "true"), ("[::1]", "true"), ("0.0.0.0", "false"), ("127.0.0.1", "false")],  # noqa: S104
)
def test_grafana_starts_where_nobody_else_looks_or_all_sign_in(
    yes_project: Path, tmp_path: Path, address: str, anonymous: str
) -> None:
    done = start(yes_project, tmp_path, BIND_ADDRESS=address, GF_AUTH_ANONYMOUS_ENABLED=anonymous)
    assert (done.returncode, done.stdout) == (0, "started with an argument\n")


def test_make_refuses_before_anything_is_started(yes_project: Path) -> None:
    done = run(yes_project, "make", "obs-up", "BIND_ADDRESS=0.0.0.0", "COMPOSE=echo docker")
    assert done.returncode == 2
    assert "Set GRAFANA_ANONYMOUS=false" in done.stdout
    assert "docker" not in done.stdout

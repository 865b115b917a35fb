"""make obs-pin pins images by their digests: pin.sh with a stub in place of Docker."""

import subprocess
from pathlib import Path

import pytest

from tests.support.path import path_with_stub
from tests.support.template import Bake

DIGEST = f"sha256:{'0a' * 32}"
# Compose is the real program, which reads .env.
DOCKER = f"""#!/bin/sh
case $1 in
  compose) exec REAL "$@" ;;
  version) echo 1.44; exit ;;
esac
for image; do :; done
case $image in
  *@*|grafana/tempo*|mirror/*none*) exit 1 ;;
  *) echo "${{image%:*}}@{DIGEST}" ;;
esac
"""


@pytest.fixture
def project(bake: Bake, docker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = path_with_stub(DOCKER.replace("REAL", docker), tmp_path)
    monkeypatch.setenv("PATH", path)
    return bake()


def pin(project: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", "obs-pin"],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )


def test_images_are_pinned_by_their_digest_if_they_have_one(project: Path) -> None:
    env = project / ".env"
    before = env.read_text()
    env.write_text(
        f"{before.rstrip()}\n export LOKI_IMAGE = mirror/loki:3@sha256:{'1b' * 32}\nHAPROXY_IMAGE=mirror/none:1"
    )
    done = pin(project)
    assert done.returncode == 0, done.stderr
    lines = env.read_text().splitlines()
    unchanged = {*before.splitlines(), "HAPROXY_IMAGE=mirror/none:1"}
    assert unchanged <= {*lines}
    assert sorted(set(lines) - unchanged) == sorted(done.stdout.splitlines())
    pinned = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert pinned["LOKI_IMAGE"] == f"mirror/loki:3@{DIGEST}"
    assert pinned["PROMETHEUS_IMAGE"].startswith("prom/prometheus:v")
    assert len(pinned) == 6
    assert {image.rpartition("@")[2] for image in pinned.values()} == {DIGEST}
    assert "grafana/tempo:" in done.stderr
    assert "mirror/none:1 has no digest" in done.stderr
    assert env.stat().st_mode & 0o777 == 0o600
    assert {path.name for path in project.glob(".env*")} == {".env", ".env.example"}


def test_second_run_changes_nothing(project: Path) -> None:
    pin(project)
    before = (project / ".env").read_text()
    assert pin(project).returncode == 0
    assert (project / ".env").read_text() == before

"""`make demo` without Docker, and `make obs-dev`, which it runs then."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.demo import SLUG
from tests.support.commands import NOT_INHERITED
from tests.support.path import path_without
from tests.support.template import ROOT, TEMPLATE

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="make and sh are for POSIX")


@pytest.mark.slow
def test_demo_without_docker_shows_metric_span_and_log_line_of_a_request(tmp_path: Path) -> None:
    path = path_without("docker", tmp_path)
    assert shutil.which("docker", path=path) is None
    env = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
    env |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{path}",
        "DEMO_FOLDER": str(tmp_path / "demo"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "scripts.demo"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "without containers, because the program docker is missing" in done.stdout
    # POST http://127.0.0.1:8000/api/v1/items {...}: 201, trace 0af7651916cd43dd8448eb211c80319c
    (trace_id,) = re.findall(r"(?m)^POST .*: 201, trace ([0-9a-f]{32})$", done.stdout)
    # "metric  http_request_duration_seconds_bucket{...", "span    {...", "log     {..."
    shown = dict(re.findall(r"(?m)^(metric|span|log) +(.*)$", done.stdout))
    assert list(shown) == ["metric", "span", "log"]
    for line in shown.values():
        assert trace_id in line
    assert (tmp_path / "demo" / SLUG / "obs-dev.log").exists()


def test_obs_dev_has_the_otel_settings_of_the_overlay() -> None:
    """Except for the exporter: obs-dev prints the spans."""
    makefile = (TEMPLATE / "observability" / "obs.mk").read_text(encoding="utf-8")
    # OTEL_SERVICE_NAME=backend
    dev = dict(re.findall(r"\b(OTEL_\w+)=(\S+)", makefile))
    text = (TEMPLATE / "compose.observability.yml").read_text(encoding="utf-8")
    # OTEL_SERVICE_NAME: backend
    overlay = dict(re.findall(r"(?m)^      (OTEL_\w+): \"?([^\s\"]+)", text))
    assert dev.pop("OTEL_TRACES_EXPORTER") == "none"
    assert len(dev) > 4
    assert dev.items() <= overlay.items()

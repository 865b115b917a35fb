"""make obs-traffic: the program without its container, with a real backend."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.backend import Backend, running_backend
from tests.support.template import TEMPLATE

PROGRAM = TEMPLATE / "observability" / "check" / "traffic.py"
EXTENSIONS = "app.observability:setup_observability,app.demo_routes:add_demo_routes"
KINDS = ["list", "read", "create", "upstream", "missing", "invalid", "no", "nested", "slow", "fail"]


@pytest.fixture(scope="module")
def demo(yes_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    database = tmp_path_factory.mktemp("demo") / "app.db"
    with running_backend(yes_project, database, APP_EXTENSIONS=EXTENSIONS) as running:
        yield running


def traffic(url: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-B", PROGRAM, *options],
        env={"OBS_CHECK_BACKEND": url},
        capture_output=True,
        text=True,
        check=False,
    )


def rows(output: str) -> dict[str, list[str]]:
    """Return the words of each row of the printed table, by kind."""
    lines = [line.split() for line in output.partition("kind ")[2].splitlines()[1:]]
    return {line[0]: line[1:] for line in lines}


@pytest.mark.slow
def test_requests_of_all_kinds_are_sent_at_the_given_rate(demo: Backend) -> None:
    done = traffic(demo.url, "--seconds=8", "--rate=40")
    assert done.returncode == 0, done.stderr
    assert " s  " in done.stdout.partition("kind")[0]  # progress
    table = rows(done.stdout)
    assert list(table) == KINDS
    counts = [int(row[1] if kind == "no" else row[0]) for kind, row in table.items()]
    assert sum(counts) == 320
    assert demo.value("http_requests_total", status="500") == int(table["fail"][0])
    assert table["fail"][-2:] == ["500:", table["fail"][0]]
    assert table["nested"][-2:] == ["200:", table["nested"][0]]
    assert "none:" not in done.stdout


@pytest.mark.slow
def test_same_seed_sends_the_same_requests(demo: Backend) -> None:
    def counts(seed: int) -> dict[str, list[str]]:
        done = traffic(demo.url, "--seconds=1", "--rate=50", f"--seed={seed}")
        return {kind: row[:1] for kind, row in rows(done.stdout).items()}

    assert counts(7) == counts(7) != counts(8)


def test_missing_demo_routes_are_reported_with_the_fix(backend: Backend) -> None:
    done = traffic(backend.url, "--seconds=1")
    assert done.returncode == 0, done.stderr
    assert "set DEMO_ROUTES=yes in .env, then make obs-up" in done.stdout
    assert not {"nested", "slow", "fail"} & rows(done.stdout).keys()


@pytest.mark.parametrize("option", ["--seconds=0", "--seconds=3601", "--rate=51", "--rate=x"])
def test_option_out_of_range_is_rejected(option: str) -> None:
    done = traffic("http://127.0.0.1:9", option)
    assert done.returncode == 2
    assert option.partition("=")[2] in done.stderr


def test_unreachable_backend_is_reported() -> None:
    done = traffic("http://127.0.0.1:9")
    assert done.returncode == 1
    assert done.stderr == "No response from http://127.0.0.1:9. Start it: make obs-up\n"

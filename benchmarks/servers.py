"""The servers that are compared: the generated service without the overlay, with it, and with other libraries."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import requests
import yaml

from tests.support.backend import API, COMPOSE_VARIABLE, ITEMS
from tests.support.otlp_receiver import receiver
from tests.support.ports import free_port
from tests.support.processes import Running, start_process

ROOT = Path(__file__).parent.parent
POLL_SECONDS = 0.002
# Longer than OTEL_BSP_SCHEDULE_DELAY: a server that is idle for this long has exported its spans.
IDLE_SECONDS = 0.6
IDLE_TICKS = 1  # of CPU time, which an idle event loop may use
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
ITEM = f"{ITEMS}/1"
SERIES = "benchmarks.routes:add_series"
ASSEMBLE = "benchmarks.assembled:assemble"
# Names of the compared servers.
BASELINE = "baseline"  # without the overlay and without an access log
CORE_IMAGE = "core image"  # with uvicorn's access log, as its Dockerfile starts it
OBSERVED = "observed"  # as the overlay starts it
ASSEMBLED = "assembled"  # with other libraries; same exporter and batches
SERVERS = (BASELINE, CORE_IMAGE, OBSERVED, ASSEMBLED)


@dataclass
class Server:
    """A running server.

    Attributes:
        url: Base URL.
        seconds: From the start of the process to the first response.
    """

    url: str
    seconds: float
    running: Running

    def rss_bytes(self) -> int:
        """Return the resident set size of its process."""
        status = Path(f"/proc/{self.running.process.pid}/status").read_text(encoding="ascii")
        (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")]
        return int(line.split()[1]) * 1024

    def cpu_seconds(self) -> float:
        """Return the CPU time of its process."""
        stat = Path(f"/proc/{self.running.process.pid}/stat").read_text(encoding="ascii")
        user, system = stat.rsplit(")", 1)[1].split()[11:13]
        return (int(user) + int(system)) / TICKS_PER_SECOND

    def cpu_seconds_when_idle(self) -> float:
        """Wait until all spans are exported, and return the CPU time including the export."""
        used = self.cpu_seconds()
        while True:
            time.sleep(IDLE_SECONDS)
            before, used = used, self.cpu_seconds()
            if round((used - before) * TICKS_PER_SECOND) <= IDLE_TICKS:
                return used


@cache
def environment(project: Path, name: str) -> Path:
    """Install the lock files that the image of a server has, and return the folder of programs."""
    if name == ASSEMBLED:  # it has no image; its packages are in the group "bench"
        return Path(sys.executable).parent
    locks = ["core", "observability"] if name == OBSERVED else ["core"]
    folder = project.parent / "-".join(locks)
    uv = Path(sys.executable).with_name("uv")
    if not folder.exists():
        subprocess.run([uv, "venv", "--quiet", f"--python={sys.executable}", folder], check=True)
        files = [f"-r{project}/backend/requirements/{lock}.txt" for lock in locks]
        options = ["--quiet", "--compile-bytecode", f"--python={folder}"]
        subprocess.run([uv, "pip", "install", *options, *files], check=True)
    return folder / "bin"


@contextmanager
def server(project: Path, name: str, endpoint: str = "", **variables: str) -> Iterator[Server]:
    """Run a server with one item in its database.

    Args:
        project: The generated project.
        name: One of `SERVERS`.
        endpoint: OTLP endpoint; without one, it exports no spans.
        variables: More environment variables.
    """
    programs = environment(project, name)
    port = free_port()
    # As in the image, the virtual environment is first on the PATH.
    env = {
        "PATH": f"{programs}:/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        "APP_EXTENSIONS": "benchmarks.routes:add_routes",
        "APP_DATABASE_PATH": str(project.parent / f"{name}-{port}.db".replace(" ", "-")),
    }
    command = ["uvicorn", "app.main:app", *([] if name == CORE_IMAGE else ["--no-access-log"])]
    if name in (OBSERVED, ASSEMBLED):
        command, overlay = _overlay(project)
        last = overlay["APP_EXTENSIONS"] if name == OBSERVED else ASSEMBLE
        extensions = (env["APP_EXTENSIONS"], SERIES, last)
        overlay["APP_EXTENSIONS"] = ",".join(extensions)
        if name == ASSEMBLED:
            del overlay["OTEL_SEMCONV_STABILITY_OPT_IN"]  # the default of contrib
        env |= overlay | {
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_TRACES_EXPORTER": "otlp" if endpoint else "none",
        }
    command = [str(programs / command[0]), *command[1:], "--host=127.0.0.1", f"--port={port}"]
    url = f"http://127.0.0.1:{port}"
    started = time.perf_counter()
    with start_process(command, env=env | variables, cwd=project / "backend") as running:
        running.wait_until(lambda: _responds(url), "the server to respond")
        seconds = time.perf_counter() - started
        requests.post(url + ITEMS, json={"name": "first"}, timeout=10).raise_for_status()
        yield Server(url, seconds, running)


def _responds(url: str) -> bool:
    deadline = time.perf_counter() + 10
    while time.perf_counter() < deadline:
        try:
            return requests.get(f"{url}{API}/health", timeout=10).ok
        except OSError:
            time.sleep(POLL_SECONDS)
    return False


def _overlay(project: Path) -> tuple[list[str], dict[str, str]]:
    """Return the command and the environment of the overlay's backend."""
    text = (project / "compose.observability.yml").read_text(encoding="utf-8")
    backend = yaml.safe_load(text)["services"]["backend"]
    env = {
        name: COMPOSE_VARIABLE.sub(r"\1", value) for name, value in backend["environment"].items()
    }
    return backend["command"], env


@contextmanager
def span_receiver() -> Iterator[str]:
    """Run a span receiver in its own process, and yield its address."""
    command = [sys.executable, "-m", "benchmarks.servers"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process.stdout.readline().strip() if process.stdout else ""
    finally:
        process.communicate()  # closes its standard input, which ends it


class _Discard(list[object]):
    """Discards all spans, so that the memory of the receiver does not grow."""

    def __iadd__(self, _: object) -> "_Discard":  # type: ignore[misc]
        return self


if __name__ == "__main__":
    with receiver() as running:
        running.spans = _Discard()  # type: ignore[assignment]
        print(running.endpoint, flush=True)
        sys.stdin.read()

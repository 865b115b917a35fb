"""Generate a demo project, start it, and follow one request through it: ``make demo``.

Uses containers if Docker is available. Prints the metric, span and log line of the request as the
backend exposes them; in containers, obs-check then looks for them in the running services.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from scripts.engine import OVERLAY, compose, engine_problem, split_services
from tests.support.ports import free_port
from tests.support.waiting import wait_until

ROOT = Path(__file__).parent.parent
FOLDER = Path(os.environ.get("DEMO_FOLDER", ROOT / "demo"))
SLUG = "observability-demo"
ITEMS = "/api/v1/items"
WAIT_SECONDS = 60.0
TRAFFIC_SECONDS = 30
DELETE = [*compose(OVERLAY), "down", "--volumes", "--rmi=local"]
# Variable in .env -> default.
PORTS = {
    "BACKEND_PORT": 8000,
    "GRAFANA_PORT": 3000,
    "PROMETHEUS_PORT": 9090,
    "ALERTMANAGER_PORT": 9093,
    "LOKI_PORT": 3100,
    "TEMPO_HTTP_PORT": 3200,
    "TEMPO_OTLP_GRPC_PORT": 4317,
    "TEMPO_OTLP_HTTP_PORT": 4318,
}
# Hop of obs-check -> the services that it requires.
HOPS = {
    "prometheus": {"prometheus"},
    "exemplar": {"prometheus"},
    "tempo": {"tempo"},
    "loki": {"loki", "promtail", "docker-proxy"},
    "grafana": {"grafana", "prometheus", "loki", "tempo"},
}

Output = Callable[[], str]


def main() -> int:
    """Run the demo and return the exit code."""
    problem = engine_problem()
    project = generate()
    shown = os.path.relpath(project)
    print(f"Generated {shown}.", flush=True)
    try:
        if problem:
            print(f"Starting it without containers, because {problem}.", flush=True)
            with on_this_machine(project) as (url, output):
                follow(url, output)
            port = url.rpartition(":")[2]
            print(f"\nStart it again:  cd {shown} && make obs-dev BACKEND_PORT={port}")
        else:
            services = in_containers(project)
            print(f"\nStop it:  cd {shown} && make obs-down")
            print(f"Delete it, after that:  cd {shown} && {' '.join(DELETE)} && rm -r ../{SLUG}")
            if "grafana" in services:
                print(f"Grafana:  {address(project, 'grafana', 3000)}")
    except (OSError, TimeoutError, subprocess.CalledProcessError) as error:
        advice = (
            f"If a port is in use, change it in {shown}/.env. Stop the rest there: make obs-down"
        )
        print(f"The demo failed: {error}", advice, sep="\n", file=sys.stderr)
        return 1
    return 0


def generate() -> Path:
    """Generate the project, or update an existing one, and return its folder."""
    answers = {"project_name": "Observability Demo", "project_slug": SLUG}
    is_new = not (FOLDER / SLUG).exists()
    # In a process, to leave out what the hook prints: commands for another folder.
    command = [sys.executable, "-m", "cookiecutter", str(ROOT), "--no-input", "--default-config"]
    command += [f"--output-dir={FOLDER}", "--overwrite-if-exists"]
    command += [f"{name}={value}" for name, value in answers.items()]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    project = FOLDER / SLUG
    if is_new:
        demo = {"PRINT_SPANS": "true", "DEMO_ROUTES": "yes"}
        settings = {name: available_port(port) for name, port in PORTS.items()} | demo
        with (project / ".env").open("a", encoding="utf-8") as env:
            env.writelines(f"{name}={value}\n" for name, value in settings.items())
    return project


def available_port(wanted: int) -> int:
    """Return this loopback port, or a free one if it is in use."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return wanted if probe.connect_ex(("127.0.0.1", wanted)) else free_port()


def in_containers(project: Path) -> list[str]:
    """Start each service whose image is available, follow a request, and return the services."""
    services, missing = split_services(project, OVERLAY)
    for service, image in missing.items():
        print(f"Skipped: {service}, because the image {image} is not available.", flush=True)
    command = compose(OVERLAY)
    up = [*command, "up", "--build", "--detach", "--wait", *services]
    subprocess.run(up, cwd=project, check=True)

    def output() -> str:
        logs = [*command, "logs", "--no-log-prefix", "--no-color", "backend"]
        return subprocess.run(logs, cwd=project, check=True, capture_output=True, text=True).stdout

    follow(address(project, "backend", 8000), output)
    hops = [hop for hop, needed in HOPS.items() if needed <= set(services)]
    print("\nobs-check, for the running services:", flush=True)
    run = [*command, "run", "--rm", "--no-deps", "obs-check", "python"]
    subprocess.run([*run, "/check/obs_check.py", *hops], cwd=project, check=True)
    print("\nobs-traffic, to fill the dashboards:", flush=True)
    traffic = [*run, "/check/traffic.py", f"--seconds={TRAFFIC_SECONDS}"]
    subprocess.run(traffic, cwd=project, check=True)
    return services


def address(project: Path, service: str, port: int) -> str:
    """Return the URL of a running service on the host."""
    command = [*compose(OVERLAY), "port", service, str(port)]
    done = subprocess.run(command, cwd=project, check=True, capture_output=True, text=True)
    return f"http://{done.stdout.strip()}"


@contextmanager
def on_this_machine(project: Path) -> Iterator[tuple[str, Output]]:
    """Run ``make obs-dev`` while the block runs; yield its URL and a function that returns its output."""
    settings = dict(line.split("=", 1) for line in env_lines(project))
    # Before the timeout starts.
    subprocess.run(["make", "backend/.venv/.installed"], cwd=project, check=True)
    log = project / "obs-dev.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            ["make", "obs-dev", f"BACKEND_PORT={settings['BACKEND_PORT']}"],
            cwd=project,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
        )
    try:
        yield f"http://127.0.0.1:{settings['BACKEND_PORT']}", lambda: log.read_text("utf-8")
    except TimeoutError as error:
        raise TimeoutError(f"{error}; end of {log}:\n{log.read_text('utf-8')[-2000:]}") from error
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def env_lines(project: Path) -> list[str]:
    """Return the lines of .env that set a variable."""
    lines = (project / ".env").read_text("utf-8").splitlines()
    return [line for line in lines if "=" in line and not line.startswith("#")]


def follow(url: str, output: Output) -> None:
    """Send one request and print its metric, span and log line, which share its trace ID.

    Raises:
        TimeoutError: one of them is not found in time.
    """
    trace_id = uuid.uuid4().hex
    headers = {"traceparent": f"00-{trace_id}-{uuid.uuid4().hex[:16]}-01"}
    wait_until(lambda: requests.get(f"{url}{ITEMS}", timeout=5).ok, "the backend", WAIT_SECONDS)
    body = {"name": f"Demo {trace_id[:8]}"}
    response = requests.post(url + ITEMS, json=body, headers=headers, timeout=10)
    print(f"\nPOST {url}{ITEMS} {json.dumps(body)}: {response.status_code}, trace {trace_id}\n")
    shown: dict[str, Callable[[], str | None]] = {
        "metric": lambda: find_metric(url, trace_id),
        "span": lambda: find_line(output, trace_id, "name"),
        "log": lambda: find_line(output, trace_id, "logger"),
    }
    found = [f"{name:<8}{wait_until(shown[name], name, WAIT_SECONDS)}" for name in shown]
    print("\n\n".join(found))


def find_metric(url: str, trace_id: str) -> str | None:
    """Return the line of /metrics that has the trace ID in its exemplar."""
    accept = {"accept": "application/openmetrics-text"}
    lines = requests.get(f"{url}/metrics", headers=accept, timeout=5).text.splitlines()
    return next((line for line in lines if trace_id in line), None)


def find_line(output: Output, trace_id: str, key: str) -> str | None:
    """Return the JSON log line that has the trace ID and this key."""
    lines = (line for line in output().splitlines() if trace_id in line)
    return next((line for line in lines if key in json.loads(line)), None)


if __name__ == "__main__":
    sys.exit(main())

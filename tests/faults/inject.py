"""Faults: each begins when its block is entered, is seen to have happened, and ends with the block."""

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.support.compose_stack import PORT_VARIABLES, Stack
from tests.support.docker import docker
from tests.support.prerequisites import unavailable
from tests.support.waiting import wait_until

# Some know better than who enters the block when they began, in seconds since the epoch.
Fault = Callable[[Stack, str], AbstractContextManager[float | None]]

SEEN_SECONDS = 60.0
BACKEND_IMAGE = "faults-service-backend:observability"
# Service -> its volume, and the folder where it is mounted.
VOLUMES = {
    "prometheus": ("prometheus-data", "/prometheus"),
    "alertmanager": ("alertmanager-data", "/alertmanager"),
    "loki": ("loki-data", "/loki"),
    "promtail": ("promtail-positions", "/var/lib/promtail"),
    "tempo": ("tempo-data", "/var/tempo"),
    "grafana": ("grafana-data", "/var/lib/grafana"),
}
# Service -> the file that it cannot start without.
CONFIGURATIONS = {
    "prometheus": "prometheus/prometheus.yml",
    "alertmanager": "alertmanager/alertmanager.yml",
    "loki": "loki/loki-config.yml",
    "promtail": "promtail/promtail-config.yml",
    "docker-proxy": "docker-proxy/haproxy.cfg",
    "tempo": "tempo/tempo.yml",
    "grafana": "grafana/datasources/datasources.yml",
}


def container(stack: Stack, service: str) -> str:
    """Return the id of a service's first container, running or not."""
    return stack.run("ps", "--all", "--quiet", service).stdout.split()[0]


def state(stack: Stack, service: str) -> dict[str, Any]:
    """Return what the engine tells of a service's container."""
    return inspected(container(stack, service))


def inspected(container_id: str) -> dict[str, Any]:
    """Return what the engine tells of a container; without Compose, which takes far more time."""
    found: dict[str, Any] = json.loads(docker("inspect", container_id))[0]
    return found


def kill(stack: Stack, service: str) -> float:
    """End a service's first process as a crash would, and return when, in seconds since the epoch.

    ``docker kill`` would keep it from being restarted. What does it waits until it is told, for
    the start of a container takes the processor's time from whatever is measured.
    """
    pid = state(stack, service)["State"]["Pid"]
    rights = ["--pid=host", "--cap-add=KILL", "--user=0:0", "--network=none"]
    shell = [BACKEND_IMAGE, "sh", "-ec", "echo ready; read pid; kill -9 $pid"]
    command = ["docker", "run", "--rm", "--interactive", *rights, *shell]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as killer:
        assert killer.stdout is not None
        assert killer.stdout.readline() == "ready\n"
        now = time.time()
        killer.communicate(f"{pid}\n", timeout=30)
    assert killer.returncode == 0
    return now


def recreate(stack: Stack, service: str, **variables: str) -> None:
    """Make the service's container again from the Compose files."""
    stack.run("up", "--detach", "--no-deps", "--force-recreate", service, env=variables)


@contextmanager
def killed(stack: Stack, service: str) -> Iterator[float]:
    """SIGKILL; the engine starts it again by itself."""
    before = state(stack, service)
    killed_at = kill(stack, service)

    def started_again() -> bool:
        now = inspected(before["Id"])
        return bool(now["State"]["Running"]) and now["RestartCount"] > before["RestartCount"]

    wait_until(started_again, f"{service} to be started again", SEEN_SECONDS)
    yield killed_at


@contextmanager
def stopped(stack: Stack, service: str) -> Iterator[None]:
    """It is not there, nor is its name."""
    stack.run("stop", service)
    try:
        yield
    finally:
        stack.run("start", service)


@contextmanager
def down_at_start(stack: Stack, service: str) -> Iterator[None]:
    """The backend starts, and answers, while it is not there."""
    stack.run("stop", service)
    try:
        stack.run("restart", "backend")
        stack.wait_for_health("healthy", ["backend"])
        yield
    finally:
        stack.run("start", service)


@contextmanager
def paused(stack: Stack, service: str) -> Iterator[None]:
    """It takes connections and never answers."""
    stack.run("pause", service)
    try:
        yield
    finally:
        stack.run("unpause", service)


@contextmanager
def restarted(stack: Stack, service: str) -> Iterator[None]:
    """An ordinary stop and start."""
    stack.run("restart", service)
    yield


@contextmanager
def out_of_memory(stack: Stack, service: str) -> Iterator[None]:
    """Its limit is too low; the engine ends it again and again."""
    variable = f"{service.upper().replace('-', '_')}_MEMORY"

    def ended() -> bool:
        now = state(stack, service)
        return now["RestartCount"] > 0 or bool(now["State"]["OOMKilled"])

    try:
        recreate(stack, service, **{variable: "6m"})
        wait_until(ended, f"{service} to be out of memory", SEEN_SECONDS)
        yield
    finally:
        recreate(stack, service)


@contextmanager
def wrongly_configured(stack: Stack, service: str) -> Iterator[None]:
    """Its file cannot be read."""
    file = Path(stack.compose.context, "observability", CONFIGURATIONS[service])
    right = file.read_text(encoding="utf-8")
    file.write_text(right + "\n}: wrong\n", encoding="utf-8")
    try:
        stack.run("restart", service)
        failed = lambda: state(stack, service)["RestartCount"] > 0  # noqa: E731
        wait_until(failed, f"{service} to refuse its configuration", SEEN_SECONDS)
        yield
    finally:
        file.write_text(right, encoding="utf-8")
        stack.run("restart", service)


@contextmanager
def volume_full(stack: Stack, service: str) -> Iterator[None]:
    """Not a byte is left on its volume."""
    mount = f"--volume={stack.project}_{VOLUMES[service][0]}:/volume"
    shell = ["run", "--rm", "--network=none", "--user=0:0", mount, BACKEND_IMAGE, "sh", "-c"]
    fill = "dd if=/dev/zero of=/volume/filled bs=64k; dd if=/dev/zero of=/volume/filled-2 bs=512"
    try:
        said = subprocess.run(["docker", *shell, fill], capture_output=True, text=True, check=False)
        assert said.stderr.count("No space left on device") == 2, said.stderr
        yield
    finally:
        docker(*shell, "rm -f /volume/filled /volume/filled-2")
        if service == "tempo":  # which never tries again to write what it could not: runbook.md
            stack.run("restart", service)


@contextmanager
def volume_read_only(stack: Stack, service: str) -> Iterator[None]:
    """Its volume can only be read."""
    name, folder = VOLUMES[service]
    override = Path(stack.compose.context, "read-only.yml")
    patch = {"services": {service: {"volumes": [f"{name}:{folder}:ro"]}}}
    override.write_text(yaml.safe_dump(patch), encoding="utf-8")
    try:
        stack.run("-f", override.name, "up", "--detach", "--no-deps", service)
        mounts = state(stack, service)["Mounts"]
        assert not next(mount["RW"] for mount in mounts if mount["Destination"] == folder)
        yield
    finally:
        recreate(stack, service)


@contextmanager
def port_taken(stack: Stack, service: str) -> Iterator[None]:
    """Another program listens on its port; it cannot start."""
    stack.run("stop", service)
    try:
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("127.0.0.1", stack.ports[service]))
            other.listen()
            done = stack.run("up", "--detach", "--no-deps", service, check=False)
            assert done.returncode, done.stderr
            assert str(stack.ports[service]) in done.stderr, done.stderr
            yield
    finally:
        stack.run("up", "--detach", "--no-deps", service)


def published(services: list[str]) -> list[str]:
    """Return those of the services that have a port on this machine."""
    return [service for service in services if service in PORT_VARIABLES]


@contextmanager
def network_cut(stack: Stack, service: str) -> Iterator[None]:
    """It runs, but is not on the project's network."""
    name, network = container(stack, service), f"{stack.project}-network"
    docker("network", "disconnect", "--force", network, name)
    try:
        yield
    finally:
        docker("network", "connect", "--alias", service, network, name)


@contextmanager
def network_slow(stack: Stack, service: str) -> Iterator[None]:
    """What is sent to it is held back: 8 kB/s, by the kernel's token bucket filter (tc-tbf(8))."""
    if not shutil.which("tc") or not shutil.which("nsenter") or os.geteuid() != 0:
        unavailable("a slow network takes Linux, root, tc and nsenter")
    inside = ["nsenter", "--net", f"--target={state(stack, service)['State']['Pid']}"]
    ends = {link.get("link_index") for link in json.loads(_run(*inside, "ip", "-json", "link"))}
    links = json.loads(_run("ip", "-json", "link"))
    (device,) = [link["ifname"] for link in links if link["ifindex"] in ends - {None}]
    limits = ["rate", "64kbit", "burst", "2kb", "latency", "2s"]
    _run("tc", "qdisc", "add", "dev", device, "root", "tbf", *limits)
    try:
        yield
    finally:
        _run("tc", "qdisc", "del", "dev", device, "root")


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout

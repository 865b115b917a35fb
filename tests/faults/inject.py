"""Fault injection: context managers that start a fault, verify that it has taken effect, and end it."""

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

# A fault may yield the exact time when it began, in seconds since the epoch.
Fault = Callable[[Stack, str], AbstractContextManager[float | None]]

FAULT_TIMEOUT_SECONDS = 60.0
BACKEND_IMAGE = "faults-service-backend:observability"
# Service -> its volume, and the mount point.
VOLUMES = {
    "prometheus": ("prometheus-data", "/prometheus"),
    "alertmanager": ("alertmanager-data", "/alertmanager"),
    "loki": ("loki-data", "/loki"),
    "promtail": ("promtail-positions", "/var/lib/promtail"),
    "tempo": ("tempo-data", "/var/tempo"),
    "grafana": ("grafana-data", "/var/lib/grafana"),
}
# Service -> the configuration file that it requires.
CONFIGURATIONS = {
    "prometheus": "prometheus/prometheus.yml",
    "alertmanager": "alertmanager/alertmanager.yml",
    "loki": "loki/loki-config.yml",
    "promtail": "promtail/promtail-config.yml",
    "docker-proxy": "docker-proxy/haproxy.cfg",
    "tempo": "tempo/tempo.yml",
    "grafana": "grafana/datasources/datasources.yml",
}


def container_id(stack: Stack, service: str) -> str:
    """Return the ID of the service's first container, running or not."""
    return stack.run("ps", "--all", "--quiet", service).stdout.split()[0]


def inspect(stack: Stack, service: str) -> dict[str, Any]:
    """Return the output of ``docker inspect`` for a service's container."""
    return inspect_container(container_id(stack, service))


def inspect_container(container: str) -> dict[str, Any]:
    """Return the output of ``docker inspect`` for a container ID. Much faster than with Compose."""
    output: dict[str, Any] = json.loads(docker("inspect", container))[0]
    return output


def kill(stack: Stack, service: str) -> float:
    """Kill the main process of a service, and return the time, in seconds since the epoch.

    ``docker kill`` would disable the restart policy. The container that kills it is started in
    advance, because its start uses CPU time and would affect the measurement.
    """
    pid = inspect(stack, service)["State"]["Pid"]
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
    """Recreate the service's container from the Compose files."""
    stack.run("up", "--detach", "--no-deps", "--force-recreate", service, env=variables)


@contextmanager
def killed(stack: Stack, service: str) -> Iterator[float]:
    """SIGKILL; Docker restarts the service."""
    before = inspect(stack, service)
    killed_at = kill(stack, service)

    def restarted_by_docker() -> bool:
        now = inspect_container(before["Id"])
        return bool(now["State"]["Running"]) and now["RestartCount"] > before["RestartCount"]

    wait_until(restarted_by_docker, f"{service} to be restarted", FAULT_TIMEOUT_SECONDS)
    yield killed_at


@contextmanager
def stopped(stack: Stack, service: str) -> Iterator[None]:
    """The service is stopped, and its name does not resolve."""
    stack.run("stop", service)
    try:
        yield
    finally:
        stack.run("start", service)


@contextmanager
def down_at_backend_start(stack: Stack, service: str) -> Iterator[None]:
    """The backend starts and becomes healthy while the service is stopped."""
    stack.run("stop", service)
    try:
        stack.run("restart", "backend")
        stack.wait_for_health("healthy", ["backend"])
        yield
    finally:
        stack.run("start", service)


@contextmanager
def paused(stack: Stack, service: str) -> Iterator[None]:
    """The service accepts connections and never responds."""
    stack.run("pause", service)
    try:
        yield
    finally:
        stack.run("unpause", service)


@contextmanager
def restarted(stack: Stack, service: str) -> Iterator[None]:
    """``docker compose restart``."""
    stack.run("restart", service)
    yield


@contextmanager
def out_of_memory(stack: Stack, service: str) -> Iterator[None]:
    """The memory limit is too low: the service is killed again and again."""
    variable = f"{service.upper().replace('-', '_')}_MEMORY"

    def ended() -> bool:
        now = inspect(stack, service)
        return now["RestartCount"] > 0 or bool(now["State"]["OOMKilled"])

    try:
        recreate(stack, service, **{variable: "6m"})
        wait_until(ended, f"{service} to run out of memory", FAULT_TIMEOUT_SECONDS)
        yield
    finally:
        recreate(stack, service)


@contextmanager
def invalid_configuration(stack: Stack, service: str) -> Iterator[None]:
    """The configuration file has a syntax error."""
    file = Path(stack.compose.context, "observability", CONFIGURATIONS[service])
    valid = file.read_text(encoding="utf-8")
    file.write_text(valid + "\n}: wrong\n", encoding="utf-8")
    try:
        stack.run("restart", service)
        failed = lambda: inspect(stack, service)["RestartCount"] > 0  # noqa: E731
        wait_until(failed, f"{service} to reject its configuration", FAULT_TIMEOUT_SECONDS)
        yield
    finally:
        file.write_text(valid, encoding="utf-8")
        stack.run("restart", service)


@contextmanager
def volume_full(stack: Stack, service: str) -> Iterator[None]:
    """The volume has no space left."""
    mount = f"--volume={stack.project}_{VOLUMES[service][0]}:/volume"
    shell = ["run", "--rm", "--network=none", "--user=0:0", mount, BACKEND_IMAGE, "sh", "-c"]
    fill = "dd if=/dev/zero of=/volume/filled bs=64k; dd if=/dev/zero of=/volume/filled-2 bs=512"
    try:
        done = subprocess.run(["docker", *shell, fill], capture_output=True, text=True, check=False)
        assert done.stderr.count("No space left on device") == 2, done.stderr
        yield
    finally:
        docker(*shell, "rm -f /volume/filled /volume/filled-2")
        if service == "tempo":  # which does not retry failed writes: runbook.md
            stack.run("restart", service)


@contextmanager
def volume_read_only(stack: Stack, service: str) -> Iterator[None]:
    """The volume is mounted read-only."""
    name, folder = VOLUMES[service]
    override = Path(stack.compose.context, "read-only.yml")
    patch = {"services": {service: {"volumes": [f"{name}:{folder}:ro"]}}}
    override.write_text(yaml.safe_dump(patch), encoding="utf-8")
    try:
        stack.run("-f", override.name, "up", "--detach", "--no-deps", service)
        mounts = inspect(stack, service)["Mounts"]
        assert not next(mount["RW"] for mount in mounts if mount["Destination"] == folder)
        yield
    finally:
        recreate(stack, service)


@contextmanager
def port_in_use(stack: Stack, service: str) -> Iterator[None]:
    """Another program listens on the host port, so the service cannot start."""
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


def with_host_port(services: list[str]) -> list[str]:
    """Return the services that publish a port on the host."""
    return [service for service in services if service in PORT_VARIABLES]


@contextmanager
def network_disconnected(stack: Stack, service: str) -> Iterator[None]:
    """The service runs, but is disconnected from the project's network."""
    container, network = container_id(stack, service), f"{stack.project}-network"
    docker("network", "disconnect", "--force", network, container)
    try:
        yield
    finally:
        docker("network", "connect", "--alias", service, network, container)


@contextmanager
def slow_network(stack: Stack, service: str) -> Iterator[None]:
    """Limit the traffic to the service to 8 kB/s, with a token bucket filter (tc-tbf(8))."""
    if not shutil.which("tc") or not shutil.which("nsenter") or os.geteuid() != 0:
        unavailable("a slow network requires Linux, root, tc and nsenter")
    inside = ["nsenter", "--net", f"--target={inspect(stack, service)['State']['Pid']}"]
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

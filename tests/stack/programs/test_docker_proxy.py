"""Requests that docker-proxy forwards: HAProxy with its real configuration and a fake Docker Engine."""

import contextlib
import http.client
import os
import shutil
import signal
import socket
import socketserver
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Thread

import pytest
import yaml

from tests.support.backend import COMPOSE_VARIABLE
from tests.support.docker import docker
from tests.support.ports import free_port
from tests.support.prerequisites import require_image
from tests.support.processes import Running, start_process
from tests.support.waiting import wait_until

ID = "0123456789abcdef" * 4
ALLOWED = [
    "GET /_ping",
    "HEAD /_ping",
    "GET /v1.44/_ping",
    "GET /containers/json?filters=%7B%7D",
    "GET /v1.44/containers/json",
    "GET /networks",
    f"GET /containers/{ID}/json",
    f"GET /v1.44/containers/{ID}/logs?stdout=1&since=1",
    "GET http://docker/v1.44/containers/json",
]
REFUSED = [
    "GET /",
    "GET /version",
    "GET /info",
    "GET /events",
    "GET /images/json",
    "GET /secrets",
    "GET /system/df",
    "POST /containers/json",
    "PUT /containers/json",
    "DELETE /networks",
    "OPTIONS /_ping",
    "get /_ping",
    "GETS /_ping",
    "POST /containers/create",
    "POST /build",
    f"POST /containers/{ID}/start",
    f"POST /containers/{ID}/exec",
    f"DELETE /containers/{ID}",
    f"PUT /containers/{ID}/archive?path=/",
    f"GET /containers/{ID}/archive?path=/",
    f"GET /containers/{ID}/export",
    f"GET /containers/{ID}/attach/ws",
    f"POST /containers/{ID}/attach",
    f"GET /containers/{ID}/top",
    f"GET /containers/{ID}",
    f"GET /containers/{ID[:12]}/json",
    f"GET /containers/{ID.upper()}/json",
    f"GET /containers/{ID}0/logs",
    "GET /containers/name/json",
    "GET /networks/bridge",
    "GET //containers/json",
    "GET /containers//json",
    "GET /containers/json/",
    "GET /containers%2fjson",
    "GET /%63ontainers/json",
    "GET /containers/json%00",
    "GET /containers/./json",
    f"GET /containers/{ID}/json/../export",
    f"GET /containers/{ID}/export?/{ID}/json",
    f"GET /containers/{ID}/export;/json",
    "GET /v1.44/../containers/create/json",
    "GET /v1/x/containers/json",
    "GET http://docker/info",
    "GET http://docker/info?http://docker/containers/json",
    "POST http://docker/containers/create",
]


class FakeEngine(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """A fake Docker Engine that records each request. A followed log never ends."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, path: Path) -> None:
        self.received: list[str] = []
        super().__init__(str(path), Handler)


class Handler(BaseHTTPRequestHandler):
    server: FakeEngine
    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            super().handle()

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        self.server.received.append(f"{self.command} {self.path}")
        self.send_response(200)
        if "follow" in self.path:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"5\r\nline\n\r\n")
            time.sleep(60)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def address_string(self) -> str:
        return ""

    def log_message(self, *_arguments: object) -> None:
        pass


@dataclass
class Proxy:
    """A running docker-proxy and its fake Docker Engine."""

    port: int
    running: Running
    engine: FakeEngine
    container: str = ""

    def send(self, call: str, *headers: str) -> int:
        """Send a request unchanged, and return the status of the response, or 0 if there is none."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            head = "\r\n".join([f"{call} HTTP/1.1", "Host: docker", "Connection: close", *headers])
            connection.sendall(f"{head}\r\n\r\n".encode())
            status_line = connection.makefile("rb").readline().split()
            return int(status_line[1]) if status_line else 0

    def stop(self) -> None:
        """Send the signal with which Docker stops the container."""
        if self.container:
            docker("kill", "--signal=USR1", self.container)
        else:
            self.running.process.send_signal(signal.SIGUSR1)


@contextlib.contextmanager
def running_proxy(project: Path, folder: Path) -> Iterator[Proxy]:
    """Run HAProxy: the installed program, or else its image."""
    port, engine = free_port(), FakeEngine(folder / "docker.sock")
    (folder / "docker.sock").chmod(0o666)
    Thread(target=engine.serve_forever, daemon=True).start()
    source = project / "observability/docker-proxy"
    container = ""
    if program := shutil.which("haproxy"):
        text = (source / "haproxy.cfg").read_text("utf-8")
        text = text.replace("bind :2375", f"bind 127.0.0.1:{port}")
        text = text.replace("unix@/var/run/docker.sock", f"unix@{folder}/docker.sock")
        (folder / "haproxy.cfg").write_text(text, "utf-8")
        command = [program, "-W", "-db", "-f", str(folder / "haproxy.cfg")]
    else:
        overlay = (project / "compose.observability.yml").read_text("utf-8")
        image = COMPOSE_VARIABLE.sub(
            r"\1", yaml.safe_load(overlay)["services"]["docker-proxy"]["image"]
        )
        require_image(image)
        container = f"docker-proxy-test-{os.getpid()}-{port}"
        command = ["docker", "run", "--rm", f"--name={container}", "--user=0:0", "--cap-drop=ALL"]
        command += ["--read-only", "--security-opt=no-new-privileges"]
        command += [
            f"--publish=127.0.0.1:{port}:2375",
            f"--volume={source}:/usr/local/etc/haproxy:ro",
        ]
        command += [f"--volume={folder}/docker.sock:/var/run/docker.sock", image]
    try:
        with start_process(command) as running:
            proxy = Proxy(port, running, engine, container)
            running.wait_until(lambda: proxy.send("GET /_ping") == 200, "the proxy to respond")
            yield proxy
    finally:
        if container:
            docker("rm", "--force", container, check=False)
        engine.shutdown()
        engine.server_close()


@pytest.fixture(scope="module")
def proxy(yes_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with running_proxy(yes_project, tmp_path_factory.mktemp("proxy")) as running:
        yield running


@pytest.mark.parametrize("call", ALLOWED)
def test_requests_of_promtail_are_forwarded_and_not_logged(proxy: Proxy, call: str) -> None:
    proxy.engine.received.clear()
    start = len(proxy.running.output().splitlines())
    assert proxy.send(call) == 200
    (received,) = proxy.engine.received
    assert received in (call, call.replace("http://docker", ""))
    proxy.send("GET /info")
    proxy.running.wait_until(
        lambda: '"GET /info' in log_after(proxy, start), "the next log line", timeout=5
    )
    assert len(log_after(proxy, start).splitlines()) == 1


def log_after(proxy: Proxy, start: int) -> str:
    """Return the access log after this line of the output."""
    lines = proxy.running.output().splitlines()[start:]
    return "\n".join(line for line in lines if not line.startswith("[NOTICE]"))  # start-up


@pytest.mark.parametrize("call", REFUSED)
def test_other_requests_are_refused_and_logged(proxy: Proxy, call: str) -> None:
    proxy.engine.received.clear()
    start = len(proxy.running.output().splitlines())
    assert proxy.send(call) in (400, 403)
    assert proxy.engine.received == []
    proxy.running.wait_until(lambda: log_after(proxy, start), "its log line", timeout=5)
    assert f'"{call} HTTP/1.1"' in log_after(proxy, start) or "<BADREQ>" in log_after(proxy, start)


@pytest.mark.parametrize(
    "headers",
    [
        ["X-HTTP-Method-Override: POST"],
        ["Content-Length: 2", "Transfer-Encoding: chunked", "", "0", "", "POST /build HTTP/1.1"],
        ["Content-Length: 44", "", "POST /containers/create HTTP/1.1", "Host: a", "", ""],
        ["Transfer-Encoding: chunked", "", "0", "", "POST /build HTTP/1.1", "Host: docker", "", ""],
    ],
    ids=["method override", "two lengths", "request in a body", "request after a body"],
)
def test_requests_cannot_be_smuggled(proxy: Proxy, headers: list[str]) -> None:
    proxy.engine.received.clear()
    proxy.send("GET /_ping", *headers)
    wait_until(lambda: proxy.send("GET /networks") == 200, "the next response")
    assert set(proxy.engine.received) <= {"GET /_ping", "GET /networks"}


def test_proxy_stops_promptly_while_a_log_is_followed(yes_project: Path, tmp_path: Path) -> None:
    with running_proxy(yes_project, tmp_path) as proxy:
        following = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
        following.request("GET", f"/containers/{ID}/logs?follow=1")
        assert following.getresponse().read(5) == b"line\n"
        started = time.monotonic()
        proxy.stop()
        proxy.running.process.wait(30)
        assert time.monotonic() - started < 8  # 2 s, and the time to remove the container
        following.close()

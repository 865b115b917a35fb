"""What docker-proxy lets through to the engine: HAProxy with its real configuration, before an engine that only notes."""

import contextlib
import http.client
import os
import shutil
import signal
import socket
import socketserver
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Thread

import pytest
import yaml

from tests.support.backend import DEFAULT
from tests.support.docker import docker
from tests.support.ports import free_port
from tests.support.prerequisites import need_image
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


class Engine(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Notes every request, and answers it; a log that is followed never ends."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, path: Path) -> None:
        self.seen: list[str] = []
        super().__init__(str(path), Answer)


class Answer(BaseHTTPRequestHandler):
    server: Engine
    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            super().handle()

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        self.server.seen.append(f"{self.command} {self.path}")
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
    """The proxy, and the engine behind it."""

    port: int
    running: Running
    engine: Engine
    name: str = field(default="")

    def send(self, call: str, *headers: str) -> int:
        """Send a request as it is and return the status of its answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            head = "\r\n".join([f"{call} HTTP/1.1", "Host: docker", "Connection: close", *headers])
            connection.sendall(f"{head}\r\n\r\n".encode())
            answer = connection.makefile("rb").readline().split()
            return int(answer[1]) if answer else 0

    def stop(self) -> None:
        """Ask it to stop, as the engine does when it stops its container."""
        if self.name:
            docker("kill", "--signal=USR1", self.name)
        else:
            self.running.process.send_signal(signal.SIGUSR1)


@contextlib.contextmanager
def running_proxy(project: Path, folder: Path) -> Iterator[Proxy]:
    """Run HAProxy: the program if there is one, else its image."""
    port, engine = free_port(), Engine(folder / "docker.sock")
    (folder / "docker.sock").chmod(0o666)
    Thread(target=engine.serve_forever, daemon=True).start()
    source = project / "observability/docker-proxy"
    name = ""
    if program := shutil.which("haproxy"):
        text = (source / "haproxy.cfg").read_text("utf-8")
        text = text.replace("bind :2375", f"bind 127.0.0.1:{port}")
        text = text.replace("unix@/var/run/docker.sock", f"unix@{folder}/docker.sock")
        (folder / "haproxy.cfg").write_text(text, "utf-8")
        command = [program, "-W", "-db", "-f", str(folder / "haproxy.cfg")]
    else:
        overlay = (project / "compose.observability.yml").read_text("utf-8")
        image = DEFAULT.sub(r"\1", yaml.safe_load(overlay)["services"]["docker-proxy"]["image"])
        need_image(image)
        name = f"docker-proxy-test-{os.getpid()}-{port}"
        command = ["docker", "run", "--rm", f"--name={name}", "--user=0:0", "--cap-drop=ALL"]
        command += ["--read-only", "--security-opt=no-new-privileges"]
        command += [
            f"--publish=127.0.0.1:{port}:2375",
            f"--volume={source}:/usr/local/etc/haproxy:ro",
        ]
        command += [f"--volume={folder}/docker.sock:/var/run/docker.sock", image]
    try:
        with start_process(command) as running:
            proxy = Proxy(port, running, engine, name)
            running.wait_until(lambda: proxy.send("GET /_ping") == 200, "the proxy to answer")
            yield proxy
    finally:
        if name:
            docker("rm", "--force", name, check=False)
        engine.shutdown()
        engine.server_close()


@pytest.fixture(scope="module")
def proxy(yes_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with running_proxy(yes_project, tmp_path_factory.mktemp("proxy")) as running:
        yield running


@pytest.mark.parametrize("call", ALLOWED)
def test_what_promtail_reads_comes_through_and_is_not_logged(proxy: Proxy, call: str) -> None:
    proxy.engine.seen.clear()
    lines = len(proxy.running.output().splitlines())
    assert proxy.send(call) == 200
    (seen,) = proxy.engine.seen
    assert seen == call.replace("http://docker", "") or seen == call
    proxy.send("GET /info")
    proxy.running.wait_until(
        lambda: '"GET /info' in last_lines(proxy, lines), "the next line", timeout=5
    )
    assert len(last_lines(proxy, lines).splitlines()) == 1


def last_lines(proxy: Proxy, after: int) -> str:
    lines = proxy.running.output().splitlines()[after:]
    return "\n".join(line for line in lines if not line.startswith("[NOTICE]"))  # of its start


@pytest.mark.parametrize("call", REFUSED)
def test_everything_else_is_refused_and_logged(proxy: Proxy, call: str) -> None:
    proxy.engine.seen.clear()
    lines = len(proxy.running.output().splitlines())
    assert proxy.send(call) in (400, 403)
    assert proxy.engine.seen == []
    proxy.running.wait_until(lambda: last_lines(proxy, lines), "its line", timeout=5)
    assert f'"{call} HTTP/1.1"' in last_lines(proxy, lines) or "<BADREQ>" in last_lines(
        proxy, lines
    )


@pytest.mark.parametrize(
    "headers",
    [
        ["X-HTTP-Method-Override: POST"],
        ["Content-Length: 2", "Transfer-Encoding: chunked", "", "0", "", "POST /build HTTP/1.1"],
        ["Content-Length: 44", "", "POST /containers/create HTTP/1.1", "Host: a", "", ""],
        ["Transfer-Encoding: chunked", "", "0", "", "POST /build HTTP/1.1", "Host: docker", "", ""],
    ],
    ids=["override", "two lengths", "a call in a body", "a call behind the body"],
)
def test_no_other_call_comes_in_by_a_trick(proxy: Proxy, headers: list[str]) -> None:
    proxy.engine.seen.clear()
    proxy.send("GET /_ping", *headers)
    wait_until(lambda: proxy.send("GET /networks") == 200, "the next answer")
    assert set(proxy.engine.seen) <= {"GET /_ping", "GET /networks"}


def test_it_stops_at_once_even_while_a_log_is_followed(yes_project: Path, tmp_path: Path) -> None:
    with running_proxy(yes_project, tmp_path) as proxy:
        following = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
        following.request("GET", f"/containers/{ID}/logs?follow=1")
        assert following.getresponse().read(5) == b"line\n"
        started = time.monotonic()
        proxy.stop()
        proxy.running.process.wait(30)
        assert time.monotonic() - started < 8  # 2 s, and what the engine takes for the container
        following.close()

"""obs_check.py without its container: unexpected responses, and a root path."""

import importlib.util
import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.backend import running_backend
from tests.support.commands import run
from tests.support.prometheus import running_prometheus
from tests.support.template import TEMPLATE

PROGRAM = TEMPLATE / "observability" / "check" / "obs_check.py"
HOPS = ["prometheus", "exemplar", "tempo", "loki", "grafana"]


@pytest.fixture
def obs_check(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import the program with a timeout of 0 for all hops, so that each is tried once."""
    spec = importlib.util.spec_from_file_location("obs_check", PROGRAM)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setitem(sys.modules, "obs_check", module)  # its dataclasses require this
    spec.loader.exec_module(module)
    hops_of = module.hops_of
    once = lambda request: [replace(hop, seconds=0) for hop in hops_of(request)]  # noqa: E731
    monkeypatch.setattr(module, "hops_of", once)
    return module


@pytest.fixture
def responses(obs_check: ModuleType) -> Iterator[list[object]]:
    """Run one server in place of all services. It responds with the last item of this list."""
    items: list[object] = [{}]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(items[-1]).encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    obs_check.URLS.update(dict.fromkeys(obs_check.URLS, f"http://127.0.0.1:{server.server_port}"))
    try:
        yield items
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    "unexpected",
    [
        {},
        [],
        None,
        "text",
        {"data": None},
        {"data": [1]},
        {"trace": [1]},
        {"trace": {"resourceSpans": [{}]}},
    ],
    ids=str,
)
def test_unexpected_response_fails_its_hop_and_not_the_program(
    obs_check: ModuleType,
    responses: list[object],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    unexpected: object,
) -> None:
    responses.append(unexpected)
    monkeypatch.setattr(sys, "argv", ["obs_check.py", *HOPS])
    assert obs_check.main() == 1
    output = capsys.readouterr().out
    lines = [line.split() for line in output.splitlines()]
    assert [line[1] for line in lines if line[0] == "FAIL"] == HOPS
    assert "got:          an unexpected response: " in output
    assert output.count("likely cause: ") == len(HOPS)


def test_request_is_found_behind_a_root_path(yes_project: Path, tmp_path: Path) -> None:
    with running_backend(yes_project, tmp_path / "app.db", "--root-path=/orders") as backend:
        (tmp_path / "prometheus").mkdir()
        target = backend.url.removeprefix("http://")
        with running_prometheus(target, tmp_path / "prometheus") as prometheus:
            urls = {"OBS_CHECK_BACKEND": backend.url, "OBS_CHECK_PROMETHEUS": prometheus.url}
            hops = ("prometheus", "exemplar")
            done = run(tmp_path, sys.executable, "-B", PROGRAM, *hops, **urls)
    assert done.returncode == 0, done.stdout
    assert "http_requests_total increased from 0 to 1" in done.stdout
    assert "has an exemplar of trace" in done.stdout

"""Requests are observed wherever the extension is loaded and whatever middleware surrounds it."""

from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.applications import application
from tests.support.backend import Backend

APPLICATIONS = {
    "loaded first": {"first": "load_extensions(app, settings.extensions)", "load": ""},
    "loaded twice": {"after": "load_extensions(app, settings.extensions)"},
    "a mounted folder": {
        "first": "from fastapi.staticfiles import StaticFiles",
        "after": 'app.mount("/", StaticFiles(directory="/usr/share"))',
    },
    "a mounted application": {"body": 'app.mount("/", FastAPI())'},
    "a trusted host": {
        "after": "from starlette.middleware.trustedhost import TrustedHostMiddleware as Hosts\n"
        'app.add_middleware(Hosts, allowed_hosts=["127.0.0.1"])'
    },
    "a redirect to HTTPS": {
        "body": "from starlette.middleware.httpsredirect import HTTPSRedirectMiddleware as Https\n"
        "app.add_middleware(Https)\n"
        # Not for the health check, which the test itself requests over plain HTTP.
        "app.user_middleware[0] = type(app.user_middleware[0])(lambda app: choose(Https(app), app))\n"
        "def choose(redirect, app):\n"
        "    async def middleware(scope, receive, send):\n"
        '        exempt = scope["type"] != "http" or scope["path"] == settings.health_path\n'
        "        await (app if exempt else redirect)(scope, receive, send)\n"
        "    return middleware"
    },
    "an API key for every route": {
        "before": "def key(request: Request):\n"
        "    if request.url.path != settings.health_path: raise HTTPException(403)",
        "arguments": "dependencies=[Depends(key)]",
    },
    "a middleware that responds": {
        "after": '@app.middleware("http")\nasync def respond(request, call_next):\n'
        "    if request.url.path == settings.health_path: return await call_next(request)\n"
        "    return Response(status_code=418)"
    },
}
PROMETHEUS_HEADERS = {"host": "backend:8000"}


def scrape(backend: Backend) -> requests.Response:
    """Scrape the service with the host name that Prometheus uses."""
    return backend.get("/metrics", headers=PROMETHEUS_HEADERS, allow_redirects=False)


@pytest.mark.parametrize("name", APPLICATIONS)
def test_requests_are_observed_and_scrapes_succeed(
    yes_project: Path, tmp_path: Path, name: str
) -> None:
    parts: Any = APPLICATIONS[name]
    with application(yes_project, tmp_path, **parts) as backend:
        for host in (None, "elsewhere"):
            headers = {"host": host} if host else {}
            response = backend.get("/work", headers=headers, allow_redirects=False)
            line = backend.wait_for_log(
                logger="app.access", trace_id=response.headers["x-trace-id"], path="/work"
            )
            assert line["status"] == response.status_code
            assert response.headers["x-trace-id"].count(",") == 0
        assert scrape(backend).status_code == 200
        assert backend.value("http_requests_total", method="GET") == 2
        assert backend.value("http_request_duration_seconds_count") == 2
        assert backend.value("active_requests") == 0

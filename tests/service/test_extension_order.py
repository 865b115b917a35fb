"""Where the extension is loaded, and what is around it, makes no difference to any request."""

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
        # The test's own wait for the service goes by HTTP.
        "app.user_middleware[0] = type(app.user_middleware[0])(lambda app: only(Https(app), app))\n"
        "def only(there, here):\n"
        "    async def chosen(scope, receive, send):\n"
        '        inside = scope["type"] != "http" or scope["path"] == settings.health_path\n'
        "        await (here if inside else there)(scope, receive, send)\n"
        "    return chosen"
    },
    "an API key for everything": {
        "before": "def key(request: Request):\n"
        "    if request.url.path != settings.health_path: raise HTTPException(403)",
        "arguments": "dependencies=[Depends(key)]",
    },
    "a middleware that answers": {
        "after": '@app.middleware("http")\nasync def answer(request, call_next):\n'
        "    if request.url.path == settings.health_path: return await call_next(request)\n"
        "    return Response(status_code=418)"
    },
}
FROM_PROMETHEUS = {"host": "backend:8000"}


def scraped(backend: Backend) -> requests.Response:
    """Scrape the service as Prometheus does."""
    return backend.get("/metrics", headers=FROM_PROMETHEUS, allow_redirects=False)


@pytest.mark.parametrize("name", APPLICATIONS)
def test_every_request_is_observed_and_every_scrape_answered(
    yes_project: Path, tmp_path: Path, name: str
) -> None:
    parts: Any = APPLICATIONS[name]
    with application(yes_project, tmp_path, **parts) as backend:
        for host in (None, "elsewhere"):
            headers = {"host": host} if host else {}
            answer = backend.get("/work", headers=headers, allow_redirects=False)
            line = backend.wait_for_log(
                logger="app.access", trace_id=answer.headers["x-trace-id"], path="/work"
            )
            assert line["status"] == answer.status_code
            assert answer.headers["x-trace-id"].count(",") == 0
        assert scraped(backend).status_code == 200
        assert backend.value("http_requests_total", method="GET") == 2
        assert backend.value("http_request_duration_seconds_count") == 2
        assert backend.value("active_requests") == 0

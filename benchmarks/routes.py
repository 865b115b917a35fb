"""What is added to the measured service: a route that does nothing, and routes that have series."""

import gc
import os
import sys

from fastapi import FastAPI

NOTHING = "/nothing"
# A counter, a histogram with 15 buckets, and the times of creation of both, as in OpenMetrics.
SERIES_OF_A_ROUTE = 20


async def do_nothing() -> None:
    """Answer null."""


def add_routes(app: FastAPI) -> FastAPI:
    """Add the route that does nothing; in ``APP_EXTENSIONS``."""
    app.add_api_route(NOTHING, do_nothing)
    return app


def series_paths(series: int) -> list[str]:
    """Return paths that give a service this many series when each of them is requested."""
    return [f"/things{number}/1" for number in range(-(-series // SERIES_OF_A_ROUTE))]


def add_series(app: FastAPI) -> FastAPI:
    """Add the routes of ``BENCH_SERIES`` series; in ``APP_EXTENSIONS``, before the extension.

    With ``BENCH_UNFROZEN``, garbage collections include the objects that exist after start-up;
    with ``BENCH_LONG_TURNS``, threads switch at Python's own interval during a scrape.
    """
    if os.environ.get("BENCH_LONG_TURNS"):
        sys.setswitchinterval = lambda _: None
    if os.environ.get("BENCH_UNFROZEN"):
        gc.freeze = lambda: None
    for path in series_paths(int(os.environ.get("BENCH_SERIES", "0"))):
        app.add_api_route(path.removesuffix("1") + "{thing_id}", do_nothing)
    return app

"""What is added to the measured service: a route that does nothing, and series without requests."""

import gc
import os
import sys

from fastapi import FastAPI

NOTHING = "/nothing"
# A counter and a histogram with 15 buckets, and when both were created, as OpenMetrics has them.
SERIES_OF_A_ROUTE = 20


async def do_nothing() -> None:
    """Answer null."""


def add_routes(app: FastAPI) -> FastAPI:
    """Add the route; named in ``APP_EXTENSIONS``."""
    app.add_api_route(NOTHING, do_nothing)
    return app


def add_series(app: FastAPI) -> FastAPI:
    """Have the observed service count requests of so many routes that it has ``BENCH_SERIES``.

    With ``BENCH_UNFROZEN`` the search for garbage goes through what was there at the start, too;
    with ``BENCH_LONG_TURNS`` a scrape computes in turns as long as Python's own.
    """
    if os.environ.get("BENCH_LONG_TURNS"):
        sys.setswitchinterval = lambda _: None
    if os.environ.get("BENCH_UNFROZEN"):
        gc.freeze = lambda: None
    if series := int(os.environ.get("BENCH_SERIES", "0")):
        from app.observability import metrics

        for route in range(-(-series // SERIES_OF_A_ROUTE)):
            ids = {"trace_id": f"{route:032x}", "span_id": f"{route:016x}"}
            requests, duration = metrics.series("GET", f"/api/v1/things{route}/{{thing_id}}", 200)
            requests.inc()
            duration.observe(0.01, ids)
    return app

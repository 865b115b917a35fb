"""Routes that are added to the measured service: one that does nothing, and some that create series."""

import gc
import os
import sys

from fastapi import FastAPI

EMPTY_ROUTE = "/nothing"
# A counter, a histogram with 15 buckets, and the `_created` series of both, as in OpenMetrics.
SERIES_PER_ROUTE = 20


async def empty_route() -> None:
    """Return null."""


def add_routes(app: FastAPI) -> FastAPI:
    """Add the empty route; for ``APP_EXTENSIONS``."""
    app.add_api_route(EMPTY_ROUTE, empty_route)
    return app


def series_paths(series: int) -> list[str]:
    """Return paths, to request once each, that create at least this many series."""
    return [f"/things{number}/1" for number in range(-(-series // SERIES_PER_ROUTE))]


def add_series(app: FastAPI) -> FastAPI:
    """Add routes for ``BENCH_SERIES`` series; for ``APP_EXTENSIONS``, before the extension.

    ``BENCH_NO_FREEZE`` disables `gc.freeze`; ``BENCH_DEFAULT_SWITCH_INTERVAL`` leaves Python's
    default switch interval in place during a scrape.
    """
    if os.environ.get("BENCH_DEFAULT_SWITCH_INTERVAL"):
        sys.setswitchinterval = lambda _: None
    if os.environ.get("BENCH_NO_FREEZE"):
        gc.freeze = lambda: None
    for path in series_paths(int(os.environ.get("BENCH_SERIES", "0"))):
        app.add_api_route(path.removesuffix("1") + "{thing_id}", empty_route)
    return app

"""Writes docs/performance.md and its plot from results.json: ``python -m benchmarks.report``."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.goal import NOT_MEASURED, Results
from benchmarks.goals import GOALS

ROOT = Path(__file__).parent.parent
FIGURES = ROOT / "benchmarks" / "results.json"
DOCUMENT = ROOT / "docs" / "performance.md"
PLOT = ROOT / "docs" / "performance.svg"

INTRODUCTION = """\
# Performance

The overhead of observability per request, compared with the alternatives. `make bench` measures it and writes this page
from [results.json](../benchmarks/results.json). Do not edit the page.

The compared services run in alternating rounds, and the tables show medians over the rounds. *Overhead* is the CPU time of all
threads minus that of the baseline, the service without observability, in the same round. `q1` and `q3` are its quartiles.
Compare ratios rather than absolute times: the server, the load generator and the span receiver share the {cpus} cores of this machine.

![CPU overhead per request](performance.svg)
"""
WHY = """\
**Why the HTTP goals use an assembled service as the reference.** Earlier goals required at least 0.85 of the throughput of the
baseline. That ratio mostly depends on how little work the application does: the same overhead is a small part of a request that
queries a database, and most of a request to an empty route. In practice, the alternative to this template is not a service
without observability, but a service for which you assemble the libraries yourself. So the goals compare the CPU overhead of these
two. Section 3 shows the throughput relative to the baseline.
"""

TITLES = {
    "metrics": "1. Metrics, in process",
    "complete": "2. Metrics, traces and access log, in process",
    "http": "3. Over HTTP",
    "exposition": "4. Scrapes",
    "footprint": "5. Memory and start-up time",
    "growth": "6. Number of routes",
    "freshness": "7. The running stack",
    "generator": "8. Project generation and image size",
}
NOTES = {
    "metrics": "`baseline` is a FastAPI service with ten routes. Each other row adds one library or middleware to it. `ours_metrics`"
    " is the template's extension without traces and access log. It includes FastAPI's own telemetry, which provides the route.",
    "complete": "All variants export spans to the same OTLP/gRPC receiver in another process. CPU time includes the export of all"
    " spans; wall-clock time ends with the last response. `contrib` is the FastAPI instrumentation of opentelemetry-python-contrib"
    " with its defaults: one span per request and one per ASGI message received or sent. `contrib_one_span` creates only the"
    " request span, as `ours` does. `contrib_complete` is `contrib` with prometheus-fastapi-instrumentator and an access log from the standard library"
    " in a `BaseHTTPMiddleware`. `not_sampled`: the caller's `traceparent` has the sampled flag off.",
    "http": "uvicorn with one process. `baseline` has no access log. `core image` runs as the image does without the overlay, with"
    " uvicorn's access log. `observed` runs as with the overlay; every trace is sampled and exported. `assembled` is what you would"
    " assemble yourself: the FastAPI instrumentation of opentelemetry-python-contrib with its defaults, prometheus-fastapi-instrumentator, and a"
    " JSON access log in a `BaseHTTPMiddleware`. It uses the same command, receiver and export batches.\n\n"
    "At a fixed rate, latency is measured from the time when the request was due, so it includes queueing. 200 requests per"
    " second read the example resource; 500 per second go to an empty route. `wrk` with 16 connections saturates the servers. CPU"
    " time includes the export of all spans. `without gc.freeze`: garbage collections include the objects created at start-up.",
    "exposition": "500 requests per second go to the server while it is scraped with the headers of Prometheus. `latency` is the median of"
    " all requests. `delay` is the latency of the slowest request that overlaps the scrape, minus that median. `baseline delay` is"
    " the same between two scrapes, where delays have other causes.",
    "footprint": "Memory after 1,000 requests; time from process start to the first response.",
    "growth": "Bytecode instructions per request, which are the same on every machine. `nesting` is the number of nested routers. The"
    " request goes to the last route. FastAPI's own routing takes longer in a larger service.",
    "freshness": "Time from the response to a request, sent at a random time between two scrapes. Idle figures are averages over one"
    " minute.",
    "generator": "Run time of the `cookiecutter` command, and image sizes.",
}


def main() -> None:
    """Write the page and its plot."""
    figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    DOCUMENT.write_text(page(figures), encoding="utf-8")
    plot(figures["groups"], PLOT)


def page(figures: dict[str, Any]) -> str:
    """Return the Markdown page."""
    groups: Results = figures["groups"]
    parts = [INTRODUCTION.format(cpus=figures["machine"]["cpus"]), *_goals(groups)]
    for name, title in TITLES.items():
        parts += [f"## {title}", NOTES[name], *_details(name, groups.get(name, {}))]
    measured = {f"measured: {each}": when for each, when in figures["measured"].items()}
    facts = {**measured, **figures["machine"], **figures["versions"]}
    parts += ["## Machine and versions", table(["item", "value"], facts.items())]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def goal_rows(groups: Results) -> list[tuple[str, str, str, str]]:
    """Return a row for each goal."""
    return [goal.row(groups) for goal in GOALS]


def _goals(groups: Results) -> list[str]:
    return ["## Goals", table(["measurement", "goal", "result", "status"], goal_rows(groups)), WHY]


def _details(name: str, group: dict[str, Any]) -> list[str]:
    """Return the tables of a group."""
    if NOT_MEASURED in group or not group:
        return [f"Not measured: {group.get(NOT_MEASURED, 'the group did not run')}."]
    if name in ("metrics", "complete", "exposition", "footprint", "growth"):
        return [rows_table(group)]
    if name == "http":
        return [
            f"{title}:\n\n{rows_table(rows)}" if isinstance(rows, dict) else f"{title}: {rows}."
            for title, rows in group.items()
        ]
    if name == "freshness":
        delays = {
            each: {"median_s": seconds, "p95_s": group["p95_s"][each]}
            for each, seconds in group["median_s"].items()
        }
        note = []
        if group["missing"]:
            names, seconds = ", ".join(group["missing"]), group["partial_start_s"]
            note = [f"Missing images: {names}. The other services start in {seconds:.1f} s."]
        return [rows_table(delays), rows_table(group["idle"]), *note]
    images = group["images"]
    sizes = (
        f"images not measured: {images}"
        if isinstance(images, str)
        else ", ".join(f"image `{k}` {v:.0f} MB" for k, v in images.items())
    )
    times = f"With observability {group['yes_s']:.2f} s, without {group['no_s']:.2f} s"
    return [f"{times}; {sizes}."]


def rows_table(rows: dict[str, dict[str, float]]) -> str:
    """Return a table of rows with the same columns; the key of a column ends with its unit."""
    names = list(next(iter(rows.values())))
    body = [
        [f"`{row}`", *(_figure(values[name]) for name in names)] for row, values in rows.items()
    ]
    return table(["", *(_title(name) for name in names)], body)


def _title(name: str) -> str:
    words, _, unit = name.rpartition("_")
    units = {"us": "µs", "ms": "ms", "s": "s", "mb": "MB", "percent": "%"}
    if unit not in units:
        return name.replace("_", " ")
    return f"{words.replace('_', ' ')}, {units[unit]}" if words else units[unit]


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def plot(groups: Results, file: Path) -> None:
    """Draw the in-process CPU overhead of each variant."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.hashsalt": "performance", "svg.fonttype": "none"}
    from matplotlib import pyplot

    panels = [
        name
        for name in ("metrics", "complete")
        if NOT_MEASURED not in groups.get(name, {NOT_MEASURED: ""})
    ]
    if not panels:
        return
    figure, axes = pyplot.subplots(
        len(panels), figsize=(8, 2.6 * len(panels)), squeeze=False, layout="constrained"
    )
    for axis, name in zip(axes[:, 0], panels, strict=True):
        rows = {each: row for each, row in groups[name].items() if each != "baseline"}
        values = [row["overhead_us"] for row in rows.values()]
        spread = [
            [row["overhead_us"] - row["overhead_q1_us"] for row in rows.values()],
            [row["overhead_q3_us"] - row["overhead_us"] for row in rows.values()],
        ]
        colours = ["#2a7de1" if each.startswith("ours") else "#9aa5b1" for each in rows]
        bars = axis.barh(list(rows), values, xerr=spread, color=colours, ecolor="#444")
        axis.bar_label(bars, fmt="%.0f", padding=4)
        axis.invert_yaxis()
        axis.set_title(TITLES[name], loc="left")
        axis.set_xlabel("CPU overhead per request, µs (error bars: quartiles of the rounds)")
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    main()

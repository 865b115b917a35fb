"""Writes docs/performance.md and its plot from the figures: ``python -m benchmarks.report``."""

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

What observing a request costs, beside the alternatives. `make bench` measures it and writes this page from
[results.json](../benchmarks/results.json); nothing on it is written by hand. In process, over HTTP and for memory and
start, rounds of all that is compared are interleaved, and figures are medians of rounds. What is added in process is the median of the
differences within a round, in processor time of all threads. Compare ratios: times are those of this machine, whose {cpus} cores server, load and receiver of spans share.

![What a request takes more, by what observes it](performance.svg)
"""

TITLES = {
    "metrics": "1. Metrics, in process",
    "complete": "2. Metrics, traces and access log, in process",
    "http": "3. Over HTTP",
    "exposition": "4. A scrape",
    "footprint": "5. Memory and start",
    "growth": "6. Growth of the service",
    "freshness": "7. The running stack",
    "generator": "8. Generator and images",
}
NOTES = {
    "metrics": "`bare` is a FastAPI service with ten routes, the others are that service with one thing added. `ours_metrics` is the"
    " template's extension where nothing is traced and no line written; it has FastAPI's own telemetry in it, which knows the route.",
    "complete": "All export their spans to the same OTLP/gRPC receiver in another process. Processor time is"
    " counted until the spans have left; the clock stops with the last answer. `contrib` traces only, as it comes: with a span for"
    " each request, and one for each message that is received or sent; `contrib_one_span` leaves out the latter, and makes what ours"
    " does. `contrib_complete` adds prometheus-fastapi-instrumentator and, in a middleware as tutorials have it, a line by the"
    " standard library to `contrib`. `unkept`: the caller's `traceparent` says that its"
    " trace is not kept.",
    "http": "uvicorn with one process. `bare` writes no line, `core image` is started as the image without the overlay, with uvicorn's"
    " access log; `observed` as the overlay starts it, with every trace kept and exported. At a fixed pace a request's time is counted"
    " from when it was due, so that no delay is omitted: 200 per second read the example resource, 1,000 per second ask a route that"
    " does nothing. Saturated by `wrk` with 16 connections. `assembled` is what a team would put together itself: the FastAPI"
    " instrumentation of opentelemetry-python-contrib, prometheus-fastapi-instrumentator, and a line of JSON in a middleware; it exports"
    " to the same receiver in the same batches. The goals compare with that: a share of the throughput of the bare service says how"
    " little that service does, and not what observing costs. `all garbage searched` is the observed server without `gc.freeze`.",
    "exposition": "Scraped as Prometheus asks, while 500 other requests per second come. The delay is that of the slowest request that"
    " meets a scrape; `without` is the same between scrapes: what requests are delayed by anyway.",
    "footprint": "Of a process that has answered 1,000 requests; from its start to its first answer.",
    "growth": "Bytecode instructions per request, which are the same on every machine; the last route is asked. FastAPI's own search"
    " for the route grows with the service.",
    "freshness": "From the answer to a request, which comes at any time between two scrapes. Idle figures are over a minute.",
    "generator": "Of the program `cookiecutter`, from start to end.",
}


def main() -> None:
    """Write the page and its plot."""
    figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    DOCUMENT.write_text(page(figures), encoding="utf-8")
    plot(figures["groups"], PLOT)


def page(figures: dict[str, Any]) -> str:
    """Return the page."""
    groups: Results = figures["groups"]
    parts = [INTRODUCTION.format(cpus=figures["machine"]["cpus"]), *_goals(groups)]
    for name, title in TITLES.items():
        parts += [f"## {title}", NOTES[name], *_details(name, groups.get(name, {}))]
    measured = {f"measured: {each}": when for each, when in figures["measured"].items()}
    facts = {**measured, **figures["machine"], **figures["versions"]}
    parts += ["## Machine and versions", table(["what", "is"], facts.items())]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def goal_rows(groups: Results) -> list[tuple[str, str, str, str]]:
    """Return a row for each goal."""
    return [goal.row(groups) for goal in GOALS]


def _goals(groups: Results) -> list[str]:
    return ["## Goals", table(["what", "goal", "measured", ""], goal_rows(groups))]


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
        seen = {
            each: {"median_s": seconds, "p95_s": group["seen_p95_s"][each]}
            for each, seconds in group["seen_s"].items()
        }
        missing = ", ".join(group["missing"])
        note = []
        if missing:
            seconds = group["partial_start_s"]
            note = [
                f"Not running, for the image is missing: {missing}. The others are up after {seconds:.1f} s."
            ]
        return [rows_table(seen), rows_table(group["idle"]), *note]
    images = group["images"]
    sizes = (
        f"images not measured: {images}"
        if isinstance(images, str)
        else ", ".join(f"image `{k}` {v:.0f} MB" for k, v in images.items())
    )
    return [f"With {group['yes_s']:.2f} s, without {group['no_s']:.2f} s; {sizes}."]


def rows_table(rows: dict[str, dict[str, float]]) -> str:
    """Return a table of figures that have the same names in each row; a name ends with its unit."""
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
    """Draw what each variant adds to a request in process."""
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
        rows = {each: row for each, row in groups[name].items() if each != "bare"}
        values = [row["added_us"] for row in rows.values()]
        spread = [
            [row["added_us"] - row["added_low_us"] for row in rows.values()],
            [row["added_high_us"] - row["added_us"] for row in rows.values()],
        ]
        colours = ["#2a7de1" if each.startswith("ours") else "#9aa5b1" for each in rows]
        bars = axis.barh(list(rows), values, xerr=spread, color=colours, ecolor="#444")
        axis.bar_label(bars, fmt="%.0f", padding=4)
        axis.invert_yaxis()
        axis.set_title(TITLES[name], loc="left")
        axis.set_xlabel("µs of processor time added to a request; lines: quartiles of the rounds")
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    main()

"""The goals, and what the measured figures say of each."""

from collections.abc import Callable
from itertools import pairwise

from benchmarks.goal import Goal, Results

ALTERNATIVES = ("instrumentator", "starlette_exporter", "tutorial")


def _cheapest(results: Results) -> float:
    """Return the microseconds that the cheapest alternative adds."""
    return min(float(results["metrics"][name]["added_us"]) for name in ALTERNATIVES)


def _added(group: str, name: str) -> Callable[[Results], float]:
    return lambda results: float(results[group][name]["added_us"])


def _spread(group: str, name: str) -> Callable[[Results], str]:
    """Return a text with how far rounds differ, and what it is made of where that was measured."""

    def text(results: Results) -> str:
        rows = results[group]
        row = rows[name]
        said = f"In half of the rounds it adds {row['added_low_us']:.0f} to {row['added_high_us']:.0f} µs."
        if name == "ours":
            line = row["added_us"] - rows["ours_no_line"]["added_us"]
            span = rows["ours_no_line"]["added_us"] - rows["ours_metrics"]["added_us"]
            said += f" Of it {span:.0f} µs are the span and its export, {line:.0f} the line."
            said += f" The trace alone, in one span as here, is {rows['contrib_one_span']['added_us']:.0f} by contrib."
        if name == "ours_unkept":
            counted = rows["ours_metrics"]["added_us"]
            contrib = rows["contrib_unkept"]["added_us"]
            said += f" Of it {counted:.0f} µs are its metrics, the rest its ids and its line; contrib adds {contrib:.0f} without these."
        return said

    return text


def _values(group: str) -> Callable[[Results], str]:
    """Return a text with the figures that a goal of this group is made of."""

    def text(results: Results) -> str:
        rows = results[group].items()
        named = [f"{name}: {value:.3g}" for name, value in rows if isinstance(value, int | float)]
        nested = [
            f"{name}: " + ", ".join(f"{key} {value:.3g}" for key, value in row.items())
            for name, row in rows
            if isinstance(row, dict) and all(isinstance(x, int | float) for x in row.values())
        ]
        return "; ".join(named + nested) + "."

    return text


def _more(results: Results, sizes: list[str]) -> float:
    """Return the largest number of instructions that observing adds, by the smallest."""
    counts = [results["growth"][size] for size in sizes]
    kinds = counts[0].keys() - {"bare"}
    added = [[count[kind] - count["bare"] for count in counts] for kind in kinds]
    return float(max(max(each) / min(each) for each in added))


def _seen(place: str) -> Callable[[Results], float]:
    return lambda results: float(results["freshness"]["seen_s"][place])


def _idle_memory(results: Results) -> float:
    idle = results["freshness"]["idle"]
    return sum(float(idle[name]["memory_mb"]) for name in STORES)


def _idle_cpu(results: Results) -> float:
    idle = results["freshness"]["idle"]
    return sum(float(idle[name]["cpu_percent"]) for name in STORES)


def _parts(path: str) -> Callable[[Results], str]:
    """Return a text with what the processor time of an observed request is made of."""

    def text(results: Results) -> str:
        rows = results["http"][f"saturated, {path}"]
        steps = ["bare", "only counted", "and with its span", "and with its line", "observed"]
        cpu = [float(rows[step]["cpu_us"]) for step in steps]
        parts = [f"{more - less:.0f}" for less, more in pairwise(cpu)]
        tenth, large = (rows[name] for name in ("a tenth of the traces", "batches of 512"))
        return (
            f"Of the {cpu[-1] - cpu[0]:.0f} µs of processor time that a request takes more, {parts[0]}"
            f" are its metrics and its ids, {parts[1]} making its span, {parts[2]} its line, {parts[3]}"
            f" the export of the span. Tried: to keep a tenth of the traces, with a throughput of {tenth['ratio']:.2f}×,"
            f" and to export them in batches of 512, {large['ratio']:.2f}×."
        )

    return text


def _by_assembled(path: str) -> Callable[[Results], float]:
    def share(results: Results) -> float:
        rows = results["http"][f"saturated, {path}"]
        bare, observed, assembled = (
            float(rows[name]["cpu_us"]) for name in ("bare", "observed", "assembled")
        )
        return (observed - bare) / (assembled - bare)

    return share


def _latency(results: Results) -> str:
    rows = results["http"]["200 per second"]
    bare, core, observed = (rows[name]["median_ms"] for name in ("bare", "core image", "observed"))
    return (
        f"That is {(observed - bare) * 1000:.0f} µs in the median; the core image, which adds an access log only,"
        f" differs from bare by {(core - bare) * 1000:.0f} µs. What it is made of was measured saturated. "
        + _parts("item")(results)
    )


def _scrape(results: Results) -> str:
    row = results["exposition"]["3000"]
    return (
        f"In the median scrape it is {row['delay_ms']:.1f} ms, in 95 % of them"
        f" {row['delay_p95_ms']:.1f} ms. Between scrapes it is {row['delay_without_ms']:.1f},"
        f" {row['delay_without_p95_ms']:.1f} and at most {row['delay_without_max_ms']:.1f} ms."
        " A scrape computes in turns of 0.2 ms (sys.setswitchinterval), of which a request waits for several; the row with turns of"
        " 5 ms, which are Python's own, shows what that buys. To leave out the search for garbage meanwhile changed nothing."
    )


def _idle_parts(results: Results) -> str:
    idle = results["freshness"]["idle"]
    parts = [
        f"{name} {idle[name]['cpu_percent']:.1f} % ({idle[name]['health_checks_percent']:.1f} %)"
        for name in STORES
    ]
    return f"{', '.join(parts)}; in parentheses its health checks, each of which starts a program."


STORES = ("prometheus", "loki", "promtail", "tempo")
ROUTES = ["10 routes, nested 1", "100 routes, nested 1", "1000 routes, nested 1"]
NESTED = ["10 routes, nested 1", "10 routes, nested 3", "10 routes, nested 5"]

GOALS = [
    Goal(
        "metrics",
        "metrics middleware adds",
        15,
        " µs",
        _added("metrics", "ours_metrics"),
        rest=_spread("metrics", "ours_metrics"),
    ),
    Goal(
        "metrics",
        "a request with it, by a bare one",
        1.15,
        "×",
        lambda r: 1 + r["metrics"]["ours_metrics"]["added_us"] / r["metrics"]["bare"]["cpu_us"],
        rest=_spread("metrics", "ours_metrics"),
    ),
    Goal(
        "metrics",
        "its addition, by that of the cheapest alternative",
        0.25,
        "×",
        lambda r: r["metrics"]["ours_metrics"]["added_us"] / _cheapest(r),
        rest=_spread("metrics", "ours_metrics"),
    ),
    Goal(
        "complete",
        "metrics, trace and line, by what contrib adds for the trace alone",
        0.45,
        "×",
        lambda r: r["complete"]["ours"]["added_us"] / r["complete"]["contrib"]["added_us"],
        rest=_spread("complete", "ours"),
    ),
    Goal(
        "complete",
        "the same when the caller does not keep the trace",
        30,
        " µs",
        _added("complete", "ours_unkept"),
        rest=_spread("complete", "ours_unkept"),
    ),
    Goal(
        "http",
        "median latency at 200 requests per second, by bare",
        1.05,
        "×",
        lambda r: r["http"]["200 per second"]["observed"]["ratio"],
        rest=_latency,
    ),
    *(
        Goal(
            "http",
            f"processor time that {what} takes more, by that of the assembled one",
            0.25,
            "×",
            _by_assembled(path),
            rest=_parts(path),
        )
        for path, what in {"item": "the example resource", "nothing": "an empty route"}.items()
    ),
    Goal(
        "exposition",
        "longest delay of any request by a scrape of 3,000 series",
        5,
        " ms",
        lambda r: r["exposition"]["3000"]["delay_max_ms"],
        rest=_scrape,
    ),
    Goal(
        "footprint",
        "memory of the backend, added",
        25,
        " MB",
        lambda r: r["footprint"]["observed"]["resident_mb"] - r["footprint"]["bare"]["resident_mb"],
        rest=_values("footprint"),
    ),
    Goal(
        "footprint",
        "start of the backend, added",
        0.4,
        " s",
        lambda r: r["footprint"]["observed"]["start_s"] - r["footprint"]["bare"]["start_s"],
        rest=_values("footprint"),
    ),
    Goal(
        "growth",
        "added at 10 to 1,000 routes, most by least",
        1.05,
        "×",
        lambda r: _more(r, ROUTES),
    ),
    Goal(
        "growth", "added 1 to 5 routers deep, most by least", 1.05, "×", lambda r: _more(r, NESTED)
    ),
    Goal("freshness", "a metric is seen after", 6, " s", _seen("metric")),
    Goal("freshness", "a log line is seen after", 2, " s", _seen("log")),
    Goal("freshness", "a trace is found by its id after", 1, " s", _seen("trace by id")),
    Goal("freshness", "a trace is found by search after", 3, " s", _seen("trace in search")),
    Goal(
        "freshness",
        "`up --wait`, with all images there",
        30,
        " s",
        lambda r: r["freshness"]["start_s"],
    ),
    Goal(
        "freshness", "idle memory of Prometheus, Loki, Promtail and Tempo", 700, " MB", _idle_memory
    ),
    Goal(
        "freshness",
        "idle processor use of these four, of one core",
        5,
        " %",
        _idle_cpu,
        rest=_idle_parts,
    ),
    Goal(
        "generator",
        "time to generate with it, by without",
        1.1,
        "×",
        lambda r: r["generator"]["ratio"],
        rest=_values("generator"),
    ),
    Goal(
        "generator",
        "size of the image, added",
        40,
        " MB",
        lambda r: r["generator"]["images"]["observability"] - r["generator"]["images"]["core"],
        rest=_values("generator"),
    ),
]

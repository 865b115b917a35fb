"""The list of goals."""

from collections.abc import Callable

from benchmarks import explain
from benchmarks.goal import Goal, Results

ALTERNATIVES = ("instrumentator", "starlette_exporter", "tutorial")
ROUTES = ["10 routes, nesting 1", "100 routes, nesting 1", "1000 routes, nesting 1"]
NESTED = ["10 routes, nesting 1", "10 routes, nesting 3", "10 routes, nesting 5"]


def _overhead(group: str, name: str) -> Callable[[Results], float]:
    return lambda results: float(results[group][name]["overhead_us"])


def _relative_to_cheapest(results: Results) -> float:
    rows = results["metrics"]
    cheapest = min(float(rows[name]["overhead_us"]) for name in ALTERNATIVES)
    return float(rows["ours_metrics"]["overhead_us"]) / cheapest


def _relative_to_assembled(route: str) -> Callable[[Results], float]:
    def ratio(results: Results) -> float:
        rows = results["http"][f"saturated, {route}"]
        return float(rows["observed"]["overhead_us"]) / float(rows["assembled"]["overhead_us"])

    return ratio


def _footprint(figure: str) -> Callable[[Results], float]:
    def added(results: Results) -> float:
        rows = results["footprint"]
        return float(rows["observed"][figure]) - float(rows["baseline"][figure])

    return added


def _growth(sizes: list[str]) -> Callable[[Results], float]:
    """Return the largest number of added instructions, relative to the smallest."""

    def ratio(results: Results) -> float:
        counts = [results["growth"][size] for size in sizes]
        kinds = counts[0].keys() - {"baseline"}
        added = [[count[kind] - count["baseline"] for count in counts] for kind in kinds]
        return float(max(max(each) / min(each) for each in added))

    return ratio


def _delay(signal: str) -> Callable[[Results], float]:
    return lambda results: float(results["freshness"]["median_s"][signal])


def _idle(figure: str) -> Callable[[Results], float]:
    def total(results: Results) -> float:
        idle = results["freshness"]["idle"]
        return sum(float(idle[name][figure]) for name in explain.STORES)

    return total


GOALS = [
    Goal(
        "metrics",
        "CPU overhead of the metrics",
        15,
        " µs",
        _overhead("metrics", "ours_metrics"),
        explain=explain.metrics,
    ),
    Goal(
        "metrics",
        "CPU time of a request with metrics, relative to the baseline",
        1.15,
        "×",
        lambda r: (
            1 + r["metrics"]["ours_metrics"]["overhead_us"] / r["metrics"]["baseline"]["cpu_us"]
        ),
        explain=explain.metrics,
    ),
    Goal(
        "metrics",
        "CPU overhead of the metrics, relative to the cheapest alternative",
        0.25,
        "×",
        _relative_to_cheapest,
        explain=explain.metrics,
    ),
    Goal(
        "complete",
        "CPU overhead of metrics, traces and access log, relative to the traces of contrib",
        0.45,
        "×",
        lambda r: r["complete"]["ours"]["overhead_us"] / r["complete"]["contrib"]["overhead_us"],
        explain=explain.complete,
    ),
    Goal(
        "complete",
        "CPU overhead when the caller's trace is not sampled",
        30,
        " µs",
        _overhead("complete", "ours_not_sampled"),
        explain=explain.not_sampled,
    ),
    Goal(
        "http",
        "median latency at 200 requests per second, relative to the baseline",
        1.05,
        "×",
        lambda r: r["http"]["200 requests per second"]["observed"]["ratio"],
        explain=explain.latency,
    ),
    Goal(
        "http",
        "CPU overhead on the example resource, relative to the assembled service",
        0.25,
        "×",
        _relative_to_assembled("example resource"),
        explain=explain.parts,
    ),
    Goal(
        "http",
        "CPU overhead on an empty route, relative to the assembled service",
        0.25,
        "×",
        _relative_to_assembled("empty route"),
        explain=explain.parts,
    ),
    Goal(
        "exposition",
        "longest request delay during a scrape of 3,000 series",
        5,
        " ms",
        lambda r: r["exposition"]["3000"]["delay_max_ms"],
        explain=explain.scrape,
    ),
    Goal(
        "footprint",
        "memory added to the backend",
        25,
        " MB",
        _footprint("rss_mb"),
        explain=explain.values("footprint"),
    ),
    Goal(
        "footprint",
        "start-up time added to the backend",
        0.4,
        " s",
        _footprint("start_s"),
        explain=explain.values("footprint"),
    ),
    Goal(
        "growth",
        "instructions added with 10 to 1,000 routes, largest relative to smallest",
        1.05,
        "×",
        _growth(ROUTES),
    ),
    Goal(
        "growth",
        "instructions added with 1 to 5 nested routers, largest relative to smallest",
        1.05,
        "×",
        _growth(NESTED),
    ),
    Goal("freshness", "time until a request is counted in Prometheus", 6, " s", _delay("metric")),
    Goal("freshness", "time until a log line is found", 2, " s", _delay("log")),
    Goal("freshness", "time until a trace is found by ID", 1, " s", _delay("trace by ID")),
    Goal("freshness", "time until a trace is found by search", 3, " s", _delay("trace by search")),
    Goal(
        "freshness",
        "start-up time of the stack (`up --wait`) with all images present",
        30,
        " s",
        lambda r: r["freshness"]["start_s"],
    ),
    Goal(
        "freshness",
        "idle memory of Prometheus, Loki, Promtail and Tempo",
        700,
        " MB",
        _idle("memory_mb"),
    ),
    Goal(
        "freshness",
        "idle CPU usage of these four services, relative to one core",
        5,
        " %",
        _idle("cpu_percent"),
        explain=explain.idle_cpu,
    ),
    Goal(
        "generator",
        "time to generate a project with observability, relative to one without",
        1.1,
        "×",
        lambda r: r["generator"]["ratio"],
        explain=explain.values("generator"),
    ),
    Goal(
        "generator",
        "size added to the image",
        40,
        " MB",
        lambda r: r["generator"]["images"]["observability"] - r["generator"]["images"]["core"],
        explain=explain.values("generator"),
    ),
]

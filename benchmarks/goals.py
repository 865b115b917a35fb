"""The goals."""

from collections.abc import Callable

from benchmarks import explain
from benchmarks.goal import Goal, Results

ALTERNATIVES = ("instrumentator", "starlette_exporter", "tutorial")
ROUTES = ["10 routes, nested 1", "100 routes, nested 1", "1000 routes, nested 1"]
NESTED = ["10 routes, nested 1", "10 routes, nested 3", "10 routes, nested 5"]


def _added(group: str, name: str) -> Callable[[Results], float]:
    return lambda results: float(results[group][name]["added_us"])


def _of_cheapest(results: Results) -> float:
    rows = results["metrics"]
    cheapest = min(float(rows[name]["added_us"]) for name in ALTERNATIVES)
    return float(rows["ours_metrics"]["added_us"]) / cheapest


def _of_assembled(path: str) -> Callable[[Results], float]:
    def ratio(results: Results) -> float:
        rows = results["http"][f"saturated, {path}"]
        return float(rows["observed"]["added_us"]) / float(rows["assembled"]["added_us"])

    return ratio


def _footprint(figure: str) -> Callable[[Results], float]:
    def added(results: Results) -> float:
        rows = results["footprint"]
        return float(rows["observed"][figure]) - float(rows["bare"][figure])

    return added


def _growth(sizes: list[str]) -> Callable[[Results], float]:
    """Return the largest number of added instructions, relative to the smallest."""

    def ratio(results: Results) -> float:
        counts = [results["growth"][size] for size in sizes]
        kinds = counts[0].keys() - {"bare"}
        added = [[count[kind] - count["bare"] for count in counts] for kind in kinds]
        return float(max(max(each) / min(each) for each in added))

    return ratio


def _seen(place: str) -> Callable[[Results], float]:
    return lambda results: float(results["freshness"]["seen_s"][place])


def _idle(figure: str) -> Callable[[Results], float]:
    def total(results: Results) -> float:
        idle = results["freshness"]["idle"]
        return sum(float(idle[name][figure]) for name in explain.STORES)

    return total


GOALS = [
    Goal(
        "metrics",
        "processor time added by the metrics",
        15,
        " µs",
        _added("metrics", "ours_metrics"),
        rest=explain.metrics,
    ),
    Goal(
        "metrics",
        "processor time of a request with metrics, relative to the bare service",
        1.15,
        "×",
        lambda r: 1 + r["metrics"]["ours_metrics"]["added_us"] / r["metrics"]["bare"]["cpu_us"],
        rest=explain.metrics,
    ),
    Goal(
        "metrics",
        "processor time added by the metrics, relative to the cheapest alternative",
        0.25,
        "×",
        _of_cheapest,
        rest=explain.metrics,
    ),
    Goal(
        "complete",
        "processor time added by metrics, trace and access log, relative to the trace of contrib",
        0.45,
        "×",
        lambda r: r["complete"]["ours"]["added_us"] / r["complete"]["contrib"]["added_us"],
        rest=explain.complete,
    ),
    Goal(
        "complete",
        "processor time added when the caller's trace is not sampled",
        30,
        " µs",
        _added("complete", "ours_not_sampled"),
        rest=explain.not_sampled,
    ),
    Goal(
        "http",
        "median latency at 200 requests per second, relative to the bare service",
        1.05,
        "×",
        lambda r: r["http"]["200 per second"]["observed"]["ratio"],
        rest=explain.latency,
    ),
    Goal(
        "http",
        "processor time added to the example resource, relative to the assembled service",
        0.25,
        "×",
        _of_assembled("item"),
        rest=explain.parts,
    ),
    Goal(
        "http",
        "processor time added to an empty route, relative to the assembled service",
        0.25,
        "×",
        _of_assembled("nothing"),
        rest=explain.parts,
    ),
    Goal(
        "exposition",
        "longest delay of a request by a scrape of 3,000 series",
        5,
        " ms",
        lambda r: r["exposition"]["3000"]["delay_max_ms"],
        rest=explain.scrape,
    ),
    Goal(
        "footprint",
        "memory added to the backend",
        25,
        " MB",
        _footprint("resident_mb"),
        rest=explain.values("footprint"),
    ),
    Goal(
        "footprint",
        "start-up time added to the backend",
        0.4,
        " s",
        _footprint("start_s"),
        rest=explain.values("footprint"),
    ),
    Goal(
        "growth",
        "instructions added at 10 to 1,000 routes, largest relative to smallest",
        1.05,
        "×",
        _growth(ROUTES),
    ),
    Goal(
        "growth",
        "instructions added in 1 to 5 nested routers, largest relative to smallest",
        1.05,
        "×",
        _growth(NESTED),
    ),
    Goal("freshness", "time until a request is counted in Prometheus", 6, " s", _seen("metric")),
    Goal("freshness", "time until a log line is found", 2, " s", _seen("log")),
    Goal("freshness", "time until a trace is found by its id", 1, " s", _seen("trace by id")),
    Goal("freshness", "time until a trace is found by search", 3, " s", _seen("trace in search")),
    Goal(
        "freshness",
        "start of the stack (`up --wait`) when all images are present",
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
        "idle processor use of these four, of one core",
        5,
        " %",
        _idle("cpu_percent"),
        rest=explain.idle_cpu,
    ),
    Goal(
        "generator",
        "time to generate a project with observability, relative to one without",
        1.1,
        "×",
        lambda r: r["generator"]["ratio"],
        rest=explain.values("generator"),
    ),
    Goal(
        "generator",
        "size added to the image",
        40,
        " MB",
        lambda r: r["generator"]["images"]["observability"] - r["generator"]["images"]["core"],
        rest=explain.values("generator"),
    ),
]

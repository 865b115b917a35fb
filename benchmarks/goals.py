"""The goals, and what the measured figures say of each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

ALTERNATIVES = ("instrumentator", "starlette_exporter", "tutorial")
NOT_MEASURED = "not measured"

Results = dict[str, Any]  # of each group; a group that could not run has one member, NOT_MEASURED


@dataclass(frozen=True)
class Goal:
    """One line of the report.

    Attributes:
        group: Key in the results.
        what: Is measured.
        limit: That the value may not exceed, or must reach.
        unit: Of both.
        value: Takes the results; a missing figure is a `KeyError` or a `TypeError`.
        at_least: The limit must be reached.
        rest: What the cost is made of, told when the goal is not met.
    """

    group: str
    what: str
    limit: float
    unit: str
    value: Callable[[Results], float]
    at_least: bool = False
    rest: Callable[[Results], str] = lambda _: ""

    def row(self, results: Results) -> tuple[str, str, str, str]:
        """Return what is measured, the goal, the figure and the verdict."""
        goal = f"{'≥' if self.at_least else '≤'} {self.limit:g}{self.unit}"
        group = results.get(self.group, {NOT_MEASURED: "the group did not run"})
        if NOT_MEASURED in group:
            return self.what, goal, "", f"not measured: {group[NOT_MEASURED]}"
        try:
            value = self.value(results)
        except (KeyError, TypeError):
            return self.what, goal, "", "not measured: " + _missing(group)
        met = value >= self.limit if self.at_least else value <= self.limit
        verdict = "met" if met else f"**not met**. {self.rest(results)}".rstrip()
        return self.what, goal, f"{value:.3g}{self.unit}", verdict


def _missing(group: Results) -> str:
    texts = [value for value in group.values() if isinstance(value, str)]
    missing = [f"the image of {name} is missing" for name in group.get("missing", [])]
    return "; ".join([*texts, *missing]) or "the figure is missing"


def _cheapest(results: Results) -> float:
    """Return the microseconds that the cheapest alternative adds."""
    return min(float(results["metrics"][name]["added_us"]) for name in ALTERNATIVES)


def _added(group: str, name: str) -> Callable[[Results], float]:
    return lambda results: float(results[group][name]["added_us"])


def _more(results: Results, sizes: list[str]) -> float:
    """Return the largest number of instructions that observing adds, by the smallest."""
    counts = [results["growth"][size]["instructions"] for size in sizes]
    added = [count["metrics"] - count["bare"] for count in counts]
    return float(max(added) / min(added))


def _seen(place: str) -> Callable[[Results], float]:
    return lambda results: float(results["freshness"]["seen_s"][place])


def _five(results: Results) -> float:
    idle = results["freshness"]["idle"]
    return sum(float(idle[name]["resident_mb"]) for name in FIVE_WITHOUT_GRAFANA)


def _idle_cpu(results: Results) -> float:
    idle = results["freshness"]["idle"]
    return sum(float(each["cpu_percent"]) for name, each in idle.items() if name != "backend")


def _parts(path: str) -> Callable[[Results], str]:
    """Return a text with what the processor time of an observed request is made of."""

    def text(results: Results) -> str:
        rows = results["http"][f"saturated, {path}"]
        cpu = {name: float(row["cpu_us"]) for name, row in rows.items()}
        export = cpu["observed"] - cpu["observed, nothing exported"]
        line = cpu["observed"] - cpu["observed, no line"]
        rest = cpu["observed"] - cpu["bare"] - export - line
        tenth = rows["observed, a tenth of the traces"]["ratio"]
        return (
            f"Of the {cpu['observed'] - cpu['bare']:.0f} µs that a request takes more,"
            f" {export:.0f} are the export of its span, {line:.0f} its line, {rest:.0f} its span and"
            f" its metrics. With a tenth of the traces kept it is {tenth:.2f} of bare."
        )

    return text


def _scrape(results: Results) -> str:
    row = results["exposition"]["3000"]
    return (
        f"In the median scrape it is {row['delay_ms']:.1f} ms, in 95 % of them"
        f" {row['delay_p95_ms']:.1f} ms. Between scrapes it is {row['delay_without_ms']:.1f},"
        f" {row['delay_without_p95_ms']:.1f} and at most {row['delay_without_max_ms']:.1f} ms."
    )


def _idle_parts(results: Results) -> str:
    idle = results["freshness"]["idle"]
    parts = sorted(idle.items(), key=lambda item: -item[1]["cpu_percent"])
    return ", ".join(f"{name} {row['cpu_percent']:.1f} %" for name, row in parts[:5]) + "."


FIVE_WITHOUT_GRAFANA = ("prometheus", "loki", "promtail", "tempo")
ROUTES = ["10 routes, nested 1", "100 routes, nested 1", "1000 routes, nested 1"]
NESTED = ["10 routes, nested 1", "10 routes, nested 3", "10 routes, nested 5"]

GOALS = [
    Goal("metrics", "metrics middleware adds", 15, " µs", _added("metrics", "ours_metrics")),
    Goal(
        "metrics",
        "a request with it, by a bare one",
        1.15,
        "×",
        lambda r: 1 + r["metrics"]["ours_metrics"]["added_us"] / r["metrics"]["bare"]["us"],
    ),
    Goal(
        "metrics",
        "its addition, by that of the cheapest alternative",
        0.25,
        "×",
        lambda r: r["metrics"]["ours_metrics"]["added_us"] / _cheapest(r),
    ),
    Goal(
        "complete",
        "metrics, trace and line, by what contrib adds for the trace alone",
        0.5,
        "×",
        lambda r: r["complete"]["ours"]["added_us"] / r["complete"]["contrib"]["added_us"],
    ),
    Goal(
        "complete",
        "the same when the caller does not keep the trace",
        30,
        " µs",
        _added("complete", "ours_unkept"),
    ),
    Goal(
        "http",
        "median latency at 200 requests per second, by bare",
        1.05,
        "×",
        lambda r: r["http"]["200 per second"]["observed"]["ratio"],
        rest=_parts("item"),
    ),
    Goal(
        "http",
        "throughput of the example resource, by bare",
        0.85,
        "×",
        lambda r: r["http"]["saturated, item"]["observed"]["ratio"],
        at_least=True,
        rest=_parts("item"),
    ),
    Goal(
        "http",
        "throughput of a route that does nothing, by bare",
        0.85,
        "×",
        lambda r: r["http"]["saturated, nothing"]["observed"]["ratio"],
        at_least=True,
        rest=_parts("nothing"),
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
        30,
        " MB",
        lambda r: r["footprint"]["observed"]["resident_mb"] - r["footprint"]["bare"]["resident_mb"],
    ),
    Goal(
        "footprint",
        "start of the backend, added",
        0.4,
        " s",
        lambda r: r["footprint"]["observed"]["start_s"] - r["footprint"]["bare"]["start_s"],
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
    Goal("freshness", "idle memory of Prometheus, Loki, Promtail and Tempo", 700, " MB", _five),
    Goal(
        "freshness",
        "idle processor use of the stack, of one core",
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
    ),
    Goal(
        "generator",
        "size of the image, added",
        40,
        " MB",
        lambda r: r["generator"]["images"]["observability"] - r["generator"]["images"]["core"],
    ),
]

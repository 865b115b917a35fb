"""Explains the goals that are not met: how far the rounds differ, and what the value consists of."""

from collections.abc import Callable
from itertools import pairwise

from benchmarks.goal import Results

STORES = ("prometheus", "loki", "promtail", "tempo")


def metrics(results: Results) -> str:
    """Explain the processor time of the metrics."""
    return _quartiles(results["metrics"]["ours_metrics"])


def complete(results: Results) -> str:
    """Explain the processor time of metrics, trace and access log."""
    rows = results["complete"]
    ours, no_log, counted, one_span = (
        float(rows[name]["added_us"])
        for name in ("ours", "ours_no_log", "ours_metrics", "contrib_one_span")
    )
    return (
        f"{_quartiles(rows['ours'])} The span and its export are {no_log - counted:.0f} µs of this, the access log is"
        f" {ours - no_log:.0f} µs. contrib, limited to one span as here, adds {one_span:.0f} µs for the trace alone."
    )


def not_sampled(results: Results) -> str:
    """Explain the processor time when the caller's trace is not sampled."""
    rows = results["complete"]
    counted, contrib = (
        float(rows[name]["added_us"]) for name in ("ours_metrics", "contrib_not_sampled")
    )
    return (
        f"{_quartiles(rows['ours_not_sampled'])} The metrics are {counted:.0f} µs of this; the rest is for the trace id"
        f" and the access log. contrib adds {contrib:.0f} µs without metrics and access log."
    )


def _quartiles(row: dict[str, float]) -> str:
    return f"Half of the rounds add {row['added_low_us']:.0f} to {row['added_high_us']:.0f} µs."


def parts(results: Results) -> str:
    """Explain what the processor time that is added to an empty route consists of."""
    rows = results["http"]["saturated, nothing"]
    steps = ["bare", "metrics only", "metrics, span", "metrics, span, access log", "observed"]
    cpu = [float(rows[step]["added_us"]) for step in steps]
    counted, span, log, export = (more - less for less, more in pairwise(cpu))
    tenth, large = (
        float(rows[name]["ratio"]) for name in ("sampling ratio 0.1", "export batches of 512")
    )
    return (
        f"On the empty route, {cpu[-1]:.0f} µs of processor time are added: {counted:.0f} by the metrics,"
        f" {span:.0f} by the span, {log:.0f} by the access log, {export:.0f} by the export of the span. A sampling ratio"
        f" of 0.1 raises the throughput from {rows['observed']['ratio']:.2f}× to {tenth:.2f}×; export batches of 512"
        f" give {large:.2f}×."
    )


def latency(results: Results) -> str:
    """Explain the median latency at a low rate."""
    rows = results["http"]["200 per second"]
    return (
        f"For the core image, which adds an access log only, it is {rows['core image']['ratio']:.2f}×; for the assembled"
        f" service {rows['assembled']['ratio']:.2f}×. {parts(results)}"
    )


def scrape(results: Results) -> str:
    """Explain the delay by a large scrape."""
    row = results["exposition"]["3000"]
    return (
        f"The median over all scrapes is {row['delay_ms']:.1f} ms, the 95th percentile"
        f" {row['delay_p95_ms']:.1f} ms. Between scrapes these are {row['delay_without_ms']:.1f} and"
        f" {row['delay_without_p95_ms']:.1f} ms, and at most {row['delay_without_max_ms']:.1f} ms."
        " During a scrape a thread runs for up to 0.2 ms at a time (`sys.setswitchinterval`), and a request may wait for several"
        " such turns. The row `turns of 5 ms`, Python's own interval, shows the difference. Disabling garbage collection meanwhile"
        " changed nothing."
    )


def idle_cpu(results: Results) -> str:
    """Explain the processor use of the idle stack."""
    idle = results["freshness"]["idle"]
    services = [
        f"{name} {idle[name]['cpu_percent']:.1f} % ({idle[name]['health_checks_percent']:.1f} %)"
        for name in STORES
    ]
    return (
        f"{', '.join(services)}; in parentheses: its health checks, each of which starts a program."
    )


def values(group: str) -> Callable[[Results], str]:
    """Return a function that lists the figures of a group."""

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

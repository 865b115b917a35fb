"""Explanations of goals that are not met: the variation between rounds, and what contributes to the value."""

from collections.abc import Callable
from itertools import pairwise

from benchmarks.goal import Results

STORES = ("prometheus", "loki", "promtail", "tempo")


def metrics(results: Results) -> str:
    """Explain the overhead of the metrics."""
    return _quartiles(results["metrics"]["ours_metrics"])


def complete(results: Results) -> str:
    """Explain the overhead of metrics, traces and access log."""
    rows = results["complete"]
    ours, no_log, counted, one_span = (
        float(rows[name]["overhead_us"])
        for name in ("ours", "ours_no_log", "ours_metrics", "contrib_one_span")
    )
    return (
        f"{_quartiles(rows['ours'])} The span and its export account for {no_log - counted:.0f} µs, the access log for"
        f" {ours - no_log:.0f} µs. With one span per request, as here, contrib adds {one_span:.0f} µs for the trace alone."
    )


def not_sampled(results: Results) -> str:
    """Explain the overhead when the caller's trace is not sampled."""
    rows = results["complete"]
    counted, contrib = (
        float(rows[name]["overhead_us"]) for name in ("ours_metrics", "contrib_not_sampled")
    )
    return (
        f"{_quartiles(rows['ours_not_sampled'])} The metrics account for {counted:.0f} µs, the trace ID and"
        f" the access log for the rest. contrib adds {contrib:.0f} µs without metrics and access log."
    )


def _quartiles(row: dict[str, float]) -> str:
    return f"Interquartile range of the overhead: {row['overhead_q1_us']:.0f} to {row['overhead_q3_us']:.0f} µs."


def parts(results: Results) -> str:
    """Explain what contributes to the overhead on an empty route."""
    rows = results["http"]["saturated, empty route"]
    steps = ["baseline", "metrics only", "metrics, span", "metrics, span, access log", "observed"]
    cpu = [float(rows[step]["overhead_us"]) for step in steps]
    counted, span, log, export = (more - less for less, more in pairwise(cpu))
    tenth, large = (
        float(rows[name]["ratio"]) for name in ("sampling ratio 0.1", "export batches of 512")
    )
    return (
        f"On the empty route, the CPU overhead is {cpu[-1]:.0f} µs: {counted:.0f} for the metrics, {span:.0f} for the"
        f" span, {log:.0f} for the access log and {export:.0f} for the span export. A sampling ratio of 0.1 raises the throughput from"
        f" {rows['observed']['ratio']:.2f}× to {tenth:.2f}× of the baseline; export batches of 512 give {large:.2f}×."
    )


def latency(results: Results) -> str:
    """Explain the median latency at a low rate."""
    rows = results["http"]["200 requests per second"]
    return (
        f"The core image, which adds only an access log, has {rows['core image']['ratio']:.2f}×, and the assembled service"
        f" {rows['assembled']['ratio']:.2f}×. {parts(results)}"
    )


def scrape(results: Results) -> str:
    """Explain the delay during a large scrape."""
    row = results["exposition"]["3000"]
    return (
        f"The median over all scrapes is {row['delay_ms']:.1f} ms, the 95th percentile {row['delay_p95_ms']:.1f} ms. Between"
        f" scrapes, the median is {row['baseline_delay_ms']:.1f} ms, the 95th percentile"
        f" {row['baseline_delay_p95_ms']:.1f} ms and the maximum {row['baseline_delay_max_ms']:.1f} ms. During a scrape, the"
        " thread switch interval (`sys.setswitchinterval`) is 0.2 ms, and a request may wait for several such intervals. The row"
        " `switch interval 5 ms` shows the effect of Python's default. Disabling garbage collection during scrapes made no difference."
    )


def idle_cpu(results: Results) -> str:
    """Explain the CPU usage of the idle stack."""
    idle = results["freshness"]["idle"]
    services = [
        f"{name} {idle[name]['cpu_percent']:.1f} % ({idle[name]['health_checks_percent']:.1f} %)"
        for name in STORES
    ]
    return (
        f"{', '.join(services)}; in parentheses: the health checks, each of which starts a process."
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

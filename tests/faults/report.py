"""The figures of a run of the faults: on the terminal, and as docs/reliability.md."""

import json
import os
import platform
import subprocess
from datetime import date
from typing import Any

FAULT_HEADER = (
    "| service | fault | requests | wrong | p99 | back after: metric, log, trace, service | lost | memory | |",
    "|---|---|--:|--:|--:|---|---|--:|---|",
)
FIGURE_HEADER = ("| what | figure | |", "|---|---|---|")
INTRODUCTION = """\
# Reliability

What was done to a generated project with its stack, and what came of it. `make test-faults` does all of it again and writes
this page; `make test` does a part of it.

{versions}

## Faults

The backend gets {rate:g} requests per second from a client that does not wait for slow answers, all through the fault and until every
signal is back. Its p99 when nothing is wrong is {undisturbed:.1f} ms.

- **wrong**: answers with another status than without the fault, or none at all.
- **p99**: of all requests since the fault began, and how many times that of the undisturbed run.
- **back after**: seconds from the end of the fault (from its begin for what happens once: killed, restarted) until a new request is seen in
  Prometheus, Loki and Tempo, and until the service itself answers.
- **lost**: of all requests those that never reach Prometheus; of all log lines those that are missing or there twice in Loki; of the
  requests before the fault those whose trace is gone. In brackets: requests during the fault that have no trace. They are counted, and
  raise `SpanExportFailing` when there are too many.
- **memory**: MiB by which the backend grew.
"""


def rows_of(reports: list[Any], name: str) -> list[tuple[dict[str, Any], str]]:
    """Return what tests recorded under a name, each with what became of the test."""
    outcomes = {"passed": "", "failed": "**failed**"}
    return [
        (json.loads(value), outcomes[report.outcome])
        for report in reports
        for key, value in report.user_properties
        if key == name and report.outcome in outcomes
    ]


def fault_line(row: dict[str, Any], outcome: str) -> str:
    """Return a fault's line of the table."""
    back = ", ".join(
        f"{row['back'][each]:.1f}" if each in row["back"] else "-"
        for each in ("metric", "log", "trace", "service")
    )
    lost = ", ".join(f"{name} {number}" for name, number in row["lost"].items() if number) or "0"
    lost += f" ({row['spans']})" if row["spans"] else ""
    return (
        f"| {row['service']} | {row['fault']} | {row['requests']} | {row['wrong']} "
        f"| {row['p99']:.1f} ms, {row['ratio']:.2f}x | {back} | {lost} "
        f"| {row['memory']:+.1f} | {outcome} |"
    )


def figure_line(row: dict[str, Any], outcome: str) -> str:
    """Return a figure's line of the list."""
    return f"| {row['what']} | {row['figure']} | {outcome} |"


def tables(reports: list[Any]) -> tuple[list[str], list[str]]:
    """Return the lines of both tables, without their headers."""
    faults = [fault_line(*each) for each in rows_of(reports, "fault")]
    figures = [figure_line(*each) for each in rows_of(reports, "figure")]
    return faults, figures


def page(reports: list[Any], skipped: list[str], facts: dict[str, Any]) -> str:
    """Return the page.

    Args:
        reports: Of the tests.
        skipped: Why tests did not run.
        facts: ``undisturbed`` p99 in ms, ``rate`` in 1/s, ``images`` by service.
    """
    faults, figures = tables(reports)
    lines = [
        INTRODUCTION.format(versions=versions(facts["images"]), **facts),
        *FAULT_HEADER,
        *faults,
    ]
    lines += ["", "## Figures", "", *FIGURE_HEADER, *figures]
    if skipped:
        lines += ["", "## Not run", "", *(f"- {reason}" for reason in skipped)]
    return "\n".join(lines) + "\n"


def versions(images: dict[str, str]) -> str:
    """Return a sentence with the day, the machine and what ran."""
    server = ["docker", "version", "--format", "{{.Server.Version}}"]
    engine = subprocess.run(server, capture_output=True, text=True, check=True).stdout.strip()
    names = ", ".join(sorted(set(images.values())))
    return (
        f"Run on {date.today().isoformat()} on {os.cpu_count()} cores, {platform.system()} "
        f"{platform.release().split('-')[0]}, Docker {engine}, Python {platform.python_version()} for the load, with {names}."
    )

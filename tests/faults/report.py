"""The figures of the faults: on the terminal, kept in docs/reliability.json, and shown in docs/reliability.md.

Nothing on the page is written by hand: `page` makes it of what is kept.
"""

import json
import os
import platform
import subprocess
from datetime import date
from pathlib import Path
from typing import Any

from tests.faults.observe import LOOKED_UP

Kept = dict[str, Any]

OUTCOMES = {"passed": "", "failed": "**failed**"}

FAULT_HEADER = (
    "| service | fault | requests | wrong | p99 | back after: metric, log, trace, service | lost | memory | |",
    "|---|---|--:|--:|--:|---|---|--:|---|",
)
FIGURE_HEADER = ("| what | figure | |", "|---|---|---|")
INTRODUCTION = """\
# Reliability

What was done to a generated project with its stack, and what came of it. `make test-faults` does all of it again and writes
this page; `make test` does a part of it, and `make test-faults ARGS="-k soak"` one, whose figures then replace the older ones.

{versions}

## Faults

The backend gets {rate:g} requests per second from a client that does not wait for slow answers, all through the fault and until every
signal is back. Its p99 when nothing is wrong is {undisturbed:.1f} ms, the median of several times; the highest was {highest:.1f} ms. A fault
fails if p99 is more than twice the highest, if anything else is answered than without it, if a signal takes 30 s or more to come back, if
what may not be lost is lost, or if the backend grows by 20 MiB.

- **wrong**: answers with another status than without the fault, or none at all.
- **p99**: of all requests since the fault began, and how many times that of the undisturbed run.
- **back after**: seconds from the end of the fault (from its begin for what happens once: killed, restarted) until a new request is seen in
  Prometheus, Loki and Tempo, and until the service itself answers.
- **lost**: of all requests those that never reach Prometheus; of all log lines those that are missing or there twice in Loki; of the
  requests before the fault those whose trace is gone, of which at most {looked_up} are looked up. In brackets: of as many requests during
  the fault those that have no trace. They are counted, and raise `SpanExportFailing` when there are too many.
- **memory**: MiB by which the backend grew.
"""


def tests_of(stats: dict[str, list[Any]]) -> dict[str, Kept]:
    """Return what pytest says of each test of a fault: outcome, day, and what it recorded."""
    today = date.today().isoformat()
    tests = {}
    for outcome in ("passed", "skipped", "failed", "error"):
        for report in stats.get(outcome, []):
            folder, _, name = report.nodeid.rpartition("tests/faults/")
            if folder or not name:
                continue
            recorded: dict[str, list[Any]] = {"fault": [], "figure": []}
            for key, value in report.user_properties:
                recorded[key].append(json.loads(value))
            reason = report.longrepr[2].removeprefix("Skipped: ") if outcome == "skipped" else ""
            kept = "failed" if outcome == "error" else outcome
            tests[name] = {"outcome": kept, "day": today, "reason": reason, **recorded}
    return tests


def keep(file: Path, tests: dict[str, Kept], facts: Kept) -> Kept:
    """Add what a run gave to what is kept, and write the page beside it."""
    kept: Kept = {"facts": {}, "tests": {}}
    if file.exists():
        kept = json.loads(file.read_text(encoding="utf-8"))
    kept["facts"] |= facts
    kept["tests"] = dict(sorted((kept["tests"] | tests).items()))
    file.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    if kept["facts"].keys() >= {"machine", "undisturbed"}:  # else only a part has ever run
        file.with_suffix(".md").write_text(page(kept), encoding="utf-8")
    return kept


def fault_line(row: Kept, outcome: str) -> str:
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


def figure_line(row: Kept, outcome: str) -> str:
    """Return a figure's line of the list."""
    return f"| {row['what']} | {row['figure']} | {outcome} |"


def tables(tests: dict[str, Kept]) -> tuple[list[str], list[str]]:
    """Return the lines of both tables, without their headers."""
    ran = [test for test in tests.values() if test["outcome"] in OUTCOMES]
    faults = [fault_line(row, OUTCOMES[test["outcome"]]) for test in ran for row in test["fault"]]
    figures = [
        figure_line(row, OUTCOMES[test["outcome"]]) for test in ran for row in test["figure"]
    ]
    return faults, figures


def page(kept: Kept) -> str:
    """Return the page of what is kept."""
    faults, figures = tables(kept["tests"])
    facts, days = kept["facts"], sorted({test["day"] for test in kept["tests"].values()})
    about = f"Run on {' to '.join(dict.fromkeys([days[0], days[-1]]))} on {facts['machine']}."
    lines = [
        INTRODUCTION.format(versions=about, looked_up=LOOKED_UP, **facts),
        *FAULT_HEADER,
        *faults,
    ]
    lines += ["", "## Figures", "", *FIGURE_HEADER, *figures, "", "## Every test", ""]
    for outcome in ("passed", "failed", "skipped"):
        names = [name for name, test in kept["tests"].items() if test["outcome"] == outcome]
        reasons = dict.fromkeys(kept["tests"][name]["reason"] for name in names)
        why = "" if outcome != "skipped" else ": " + "; ".join(reason for reason in reasons)
        lines += [f"- {len(names)} {outcome}{why if names else ''}"]
    return "\n".join(lines) + "\n"


def machine(images: dict[str, str]) -> str:
    """Return in words what ran, and on what."""
    server = ["docker", "version", "--format", "{{.Server.Version}}"]
    engine = subprocess.run(server, capture_output=True, text=True, check=True).stdout.strip()
    names = ", ".join(sorted(set(images.values())))
    kernel = platform.release().split("-")[0]
    return (
        f"{os.cpu_count()} cores, {platform.system()} {kernel}, Docker {engine}, with Python "
        f"{platform.python_version()} for the load, and {names}"
    )

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

from tests.faults.observe import LOOKED_UP, RECOVERY_SECONDS, SLOWER_MS, TIMES_SLOWER

Kept = dict[str, Any]

OUTCOMES = {"passed": "", "failed": "**failed**"}

FAULT_HEADER = (
    "| service | fault | requests | wrong | p99 | undisturbed: median, highest "
    "| recovered after: metric, log, trace, service | lost | memory | |",
    "|---|---|--:|--:|--:|--:|---|---|--:|---|",
)
FIGURE_HEADER = ("| what | figure | |", "|---|---|---|")
INTRODUCTION = """\
# Reliability

Results of fault injection against the running stack of a generated project. `make test-faults` runs every test again and writes this
page. `make test` runs a few of them. `make test-faults ARGS="-k soak"` runs a part and replaces the figures of that part only.

{runs}

## Faults

A client sends {rate:g} requests per second to the backend, without waiting for slow responses, during the fault and until every signal
has recovered. Each run first measures p99 without a fault, over several windows of the same length. A row shows the median and
the highest of these windows, and the median is what its p99 is compared with: a part that is measured later has windows of its own.

A fault fails if p99 is more than {slower:g} times the undisturbed median plus {more:g} ms, if any response differs from the response
without the fault, if a signal takes {recovery:g} s or longer to recover, if data is lost that the fault must not cost, or if the memory
of the backend grows by 20 MiB.

- **wrong**: responses with another status than without the fault, and requests without a response.
- **p99**: of all requests since the fault began, and its ratio to the undisturbed median.
- **recovered after**: seconds from the end of the fault (from its start for killed and restarted) until a new request is
  in Prometheus, Loki and Tempo, and until the service itself responds.
- **lost**: requests that never reach Prometheus; log lines that are missing or duplicated in Loki; requests before the fault whose
  trace is gone (at most {looked_up} are looked up). In parentheses: requests during the fault without a trace, of as many. These are
  counted, and `SpanExportFailing` fires when there are too many.
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
    """Add the results of a run to those that are kept, and write the page beside them.

    A skipped test does not replace a result: the images of an earlier run may be missing now.
    """
    kept: Kept = {"machines": {}, "tests": {}}
    if file.exists():
        kept = json.loads(file.read_text(encoding="utf-8"))
    new = {n: t for n, t in tests.items() if t["outcome"] in OUTCOMES or n not in kept["tests"]}
    kept["tests"] = dict(sorted((kept["tests"] | new).items()))
    kept |= {name: fact for name, fact in facts.items() if name != "machine"}
    if "machine" in facts:
        kept["machines"][date.today().isoformat()] = facts["machine"]
    file.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    if kept["machines"]:  # else no test has run that needs the stack
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
        f"| {row['p99']:.1f} ms, {row['p99'] / row['undisturbed']:.2f}x "
        f"| {row['undisturbed']:.1f}, {row['highest']:.1f} ms | {back} | {lost} "
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
    days = {test["day"] for test in kept["tests"].values() if test["outcome"] in OUTCOMES}
    runs = [
        f"Run on {day} on {kept['machines'][day]}."
        for day in sorted(days & kept["machines"].keys())
    ]
    limits = {"slower": TIMES_SLOWER, "more": SLOWER_MS, "recovery": RECOVERY_SECONDS}
    lines = [
        INTRODUCTION.format(
            runs="\n\n".join(runs), rate=kept["rate"], looked_up=LOOKED_UP, **limits
        ),
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

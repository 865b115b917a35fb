"""The results of fault injection: saved in docs/reliability.json, from which docs/reliability.md is generated."""

import json
import os
import platform
import subprocess
from datetime import date
from pathlib import Path
from typing import Any

from tests.faults.observe import P99_FACTOR, P99_MARGIN_MS, RECOVERY_SECONDS, TRACE_SAMPLE

Json = dict[str, Any]

OUTCOMES = {"passed": "", "failed": "**failed**"}

FAULT_HEADER = (
    "| service | fault | requests | errors | p99 | baseline: median, highest "
    "| recovery: metric, log, trace, service | lost | memory | |",
    "|---|---|--:|--:|--:|--:|---|---|--:|---|",
)
RESULT_HEADER = ("| test | result | |", "|---|---|---|")
INTRODUCTION = """\
# Reliability

Results of fault injection against the running stack of a generated project. `make test-faults` runs all tests and writes this
page. `make test` runs a few of them. `make test-faults ARGS="-k soak"` runs a part and replaces only the results of that part.

{runs}

## Faults

A client sends {rate:g} requests per second to the backend during the fault and until every signal has recovered. It does not wait for
slow responses. Each run first measures the baseline: p99 without a fault, over several windows of the same length. A row shows the
median and the highest of these windows. Its p99 is compared with the median. Tests that ran separately have their own baseline.

A test fails if p99 exceeds {factor:g} times the baseline median plus {margin:g} ms, if any response differs from the response
without the fault, if the recovery of a signal takes {recovery:g} s or longer, if data is lost that should survive the fault, or if the
memory of the backend grows by 20 MiB or more.

- **errors**: responses with an unexpected status, and requests without a response.
- **p99**: of all requests since the fault began, and its ratio to the baseline median.
- **recovery**: seconds from the end of the fault (from its start for killed and restarted) until a new request is
  in Prometheus, Loki and Tempo, and until the service itself responds.
- **lost**: requests that never reach Prometheus; log lines that are missing or duplicated in Loki; requests before the fault whose
  trace is missing (at most {trace_sample} are looked up). In parentheses: the same for requests during the fault. If
  too many are missing, the alert `SpanExportFailing` fires.
- **memory**: growth of the backend's memory in MiB.
"""


def collect(stats: dict[str, list[Any]]) -> dict[str, Json]:
    """Return the outcome, the day and the recorded results of each fault test that pytest has run."""
    today = date.today().isoformat()
    tests = {}
    for outcome in ("passed", "skipped", "failed", "error"):
        for report in stats.get(outcome, []):
            folder, _, name = report.nodeid.rpartition("tests/faults/")
            if folder or not name:
                continue
            recorded: dict[str, list[Any]] = {"fault": [], "result": []}
            for key, value in report.user_properties:
                recorded[key].append(json.loads(value))
            reason = report.longrepr[2].removeprefix("Skipped: ") if outcome == "skipped" else ""
            saved = "failed" if outcome == "error" else outcome
            tests[name] = {"outcome": saved, "day": today, "reason": reason, **recorded}
    return tests


def save(file: Path, tests: dict[str, Json], facts: Json) -> Json:
    """Merge the results of a run into the file, and write the page next to it.

    A skipped test does not replace an earlier result, because its image may be missing only now.
    """
    results: Json = {"machines": {}, "tests": {}}
    if file.exists():
        results = json.loads(file.read_text(encoding="utf-8"))
    new = {n: t for n, t in tests.items() if t["outcome"] in OUTCOMES or n not in results["tests"]}
    results["tests"] = dict(sorted((results["tests"] | new).items()))
    results |= {name: fact for name, fact in facts.items() if name != "machine"}
    if "machine" in facts:
        results["machines"][date.today().isoformat()] = facts["machine"]
    file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if results["machines"]:  # empty if no test that requires the stack has run
        file.with_suffix(".md").write_text(page(results), encoding="utf-8")
    return results


def fault_row(row: Json, outcome: str) -> str:
    """Return a row of the table of faults."""
    recovery = ", ".join(
        f"{row['recovery'][each]:.1f}" if each in row["recovery"] else "-"
        for each in ("metric", "log", "trace", "service")
    )
    lost = ", ".join(f"{name} {number}" for name, number in row["lost"].items() if number) or "0"
    lost += f" ({row['missing_traces']})" if row["missing_traces"] else ""
    return (
        f"| {row['service']} | {row['fault']} | {row['requests']} | {row['errors']} "
        f"| {row['p99']:.1f} ms, {row['p99'] / row['baseline_p99']:.2f}x "
        f"| {row['baseline_p99']:.1f}, {row['baseline_highest']:.1f} ms | {recovery} | {lost} "
        f"| {row['memory_growth']:+.1f} | {outcome} |"
    )


def result_row(row: Json, outcome: str) -> str:
    """Return a row of the table of other results."""
    return f"| {row['name']} | {row['result']} | {outcome} |"


def tables(tests: dict[str, Json]) -> tuple[list[str], list[str]]:
    """Return the rows of both tables, without their headers."""
    ran = [test for test in tests.values() if test["outcome"] in OUTCOMES]
    faults = [fault_row(row, OUTCOMES[test["outcome"]]) for test in ran for row in test["fault"]]
    others = [result_row(row, OUTCOMES[test["outcome"]]) for test in ran for row in test["result"]]
    return faults, others


def page(results: Json) -> str:
    """Return the Markdown page."""
    faults, others = tables(results["tests"])
    days = {test["day"] for test in results["tests"].values() if test["outcome"] in OUTCOMES}
    runs = [
        f"Run on {day} on {results['machines'][day]}."
        for day in sorted(days & results["machines"].keys())
    ]
    limits = {"factor": P99_FACTOR, "margin": P99_MARGIN_MS, "recovery": RECOVERY_SECONDS}
    lines = [
        INTRODUCTION.format(
            runs="\n\n".join(runs), rate=results["rate"], trace_sample=TRACE_SAMPLE, **limits
        ),
        *FAULT_HEADER,
        *faults,
    ]
    lines += ["", "## Other results", "", *RESULT_HEADER, *others, "", "## Test outcomes", ""]
    for outcome in ("passed", "failed", "skipped"):
        names = [name for name, test in results["tests"].items() if test["outcome"] == outcome]
        reasons = dict.fromkeys(results["tests"][name]["reason"] for name in names)
        reason = "" if outcome != "skipped" else ": " + "; ".join(each for each in reasons)
        lines += [f"- {len(names)} {outcome}{reason if names else ''}"]
    return "\n".join(lines) + "\n"


def machine(images: dict[str, str]) -> str:
    """Describe this machine and the images."""
    server = ["docker", "version", "--format", "{{.Server.Version}}"]
    server_version = subprocess.run(
        server, capture_output=True, text=True, check=True
    ).stdout.strip()
    names = ", ".join(sorted(set(images.values())))
    kernel = platform.release().split("-")[0]
    return (
        f"{os.cpu_count()} cores, {platform.system()} {kernel}, Docker {server_version}, Python "
        f"{platform.python_version()} for the load generator, and {names}"
    )

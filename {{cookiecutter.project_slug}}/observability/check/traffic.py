"""Send a mix of requests to fill the dashboards: ``make obs-traffic``.

The mix has reads, writes, calls to another instance and client errors; with DEMO_ROUTES in .env also
slow and failing requests. A seed determines their order. Runs in the container of obs_check.py. Prints
a line every few seconds, and a table at the end. Exit code 0 if the backend responded, else 1.
"""

import argparse
import http.client
import json
import random
import sys
import urllib.parse
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from statistics import median
from time import monotonic, sleep

from obs_check import PATH, URLS

PREFIX = PATH.rpartition("/")[0]
AT_ONCE = 16
TIMEOUT_SECONDS = 10.0
SECONDS_MAX = 3600
RATE_MAX = 50  # requests per second
REPORT_SECONDS = 5.0


@dataclass
class Kind:
    """One kind of request.

    Attributes:
        share: Weight in the mix.
        request: Returns method, path and body, chosen with a random number generator.
        results: Status and seconds of each request; status 0 means no response.
    """

    share: int
    request: Callable[[random.Random], tuple[str, str, object]]
    results: list[tuple[int, float]] = field(default_factory=list)


def mix(demo: bool) -> dict[str, Kind]:
    """Return the kinds of requests; those to demo routes only if these exist."""
    kinds = {
        "list": Kind(30, lambda _: ("GET", f"{PATH}?limit=5", None)),
        "read": Kind(20, lambda r: ("GET", f"{PATH}/{r.randint(1, 5)}", None)),
        "create": Kind(12, lambda r: ("POST", PATH, {"name": f"Traffic {r.randrange(16**12):x}"})),
        "upstream": Kind(12, lambda r: ("GET", f"{PREFIX}/upstream/items/{r.randint(1, 5)}", None)),
        "missing": Kind(4, lambda _: ("GET", f"{PATH}/987654321", None)),
        "invalid": Kind(4, lambda _: ("POST", PATH, {})),
        "no route": Kind(2, lambda _: ("GET", "/no/such/route", None)),
    }
    if demo:
        kinds["nested"] = Kind(8, lambda _: ("GET", f"{PREFIX}/demo/nested", None))
        kinds["slow"] = Kind(
            5, lambda r: ("GET", f"{PREFIX}/demo/slow?seconds={r.uniform(0.2, 1.5):.2f}", None)
        )
        kinds["fail"] = Kind(3, lambda _: ("GET", f"{PREFIX}/demo/fail", None))
    return kinds


def ask(method: str, path: str, body: object) -> int:
    """Send one request and return the status of the response, 0 if there is none."""
    address = urllib.parse.urlsplit(URLS["backend"]).netloc
    connection = http.client.HTTPConnection(address, timeout=TIMEOUT_SECONDS)
    try:
        sent = None if body is None else json.dumps(body)
        connection.request(method, path, sent, {"content-type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def measure(kind: Kind, request: tuple[str, str, object]) -> None:
    """Send one request and record its status and duration."""
    started = monotonic()
    kind.results.append((ask(*request), monotonic() - started))


def send(kinds: dict[str, Kind], seconds: float, rate: float, seed: int) -> None:
    """Send requests at a rate for this many seconds, and print the progress."""
    chance = random.Random(seed)  # noqa: S311 (not a secret)
    choices, weights = list(kinds.values()), [kind.share for kind in kinds.values()]
    started = reported = monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for number in range(round(seconds * rate)):
            sleep(max(0.0, started + number / rate - monotonic()))
            (kind,) = chance.choices(choices, weights)
            pool.submit(measure, kind, kind.request(chance))
            if monotonic() - reported >= REPORT_SECONDS:
                reported = monotonic()
                print(f"{reported - started:5.0f} s  {number + 1} requests", flush=True)


def table(kinds: dict[str, Kind]) -> str:
    """Return a table of the results by kind."""
    lines = [f"{'kind':<10}{'requests':>9}{'median':>11}{'longest':>11}  status"]
    for name, kind in kinds.items():
        if kind.results:
            counts = Counter(status for status, _ in kind.results)
            times = [seconds for _, seconds in kind.results]
            statuses = ", ".join(
                f"{status or 'none'}: {number}" for status, number in sorted(counts.items())
            )
            typical, longest = (f"{1000 * each:.0f} ms" for each in (median(times), max(times)))
            lines.append(f"{name:<10}{len(times):>9}{typical:>11}{longest:>11}  {statuses}")
    return "\n".join(lines)


def number(text: str, most: float) -> float:
    """Return a number above 0, up to a maximum, for argparse."""
    if not 0 < (value := float(text)) <= most:
        raise argparse.ArgumentTypeError(f"must be more than 0 and at most {most}, got {text}")
    return value


def main() -> int:
    """Send the requests and return the exit code."""
    parser = argparse.ArgumentParser(description="Send a mix of requests to the backend.")
    parser.add_argument("--seconds", type=lambda text: number(text, SECONDS_MAX), default=60.0)
    parser.add_argument("--rate", type=lambda text: number(text, RATE_MAX), default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    status = ask("GET", f"{PREFIX}/demo/slow?seconds=0", None)
    if not status:
        print(f"No response from {URLS['backend']}. Start it: make obs-up", file=sys.stderr)
        return 1
    if status != 200:
        print("For slow and failing requests, set DEMO_ROUTES=yes in .env, then make obs-up.")
    kinds = mix(demo=status == 200)
    print(f"Sending {options.rate:g} requests per second for {options.seconds:g} s.", flush=True)
    send(kinds, options.seconds, options.rate, options.seed)
    print(table(kinds))
    answered = any(status for kind in kinds.values() for status, _ in kind.results)
    return 0 if answered else 1


if __name__ == "__main__":
    sys.exit(main())

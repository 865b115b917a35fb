"""The memory and the start-up time that the overlay adds to the backend."""

import statistics
from pathlib import Path
from typing import Any

from benchmarks.load import paced
from benchmarks.servers import BASELINE, ITEM, OBSERVED, server, span_receiver

ROUNDS = 7
PER_SECOND, SECONDS = 200, 5


def measure(project: Path) -> dict[str, Any]:
    """Start both servers in alternating rounds; measure the memory after a load."""
    rounds: dict[str, list[tuple[float, float]]] = {BASELINE: [], OBSERVED: []}
    with span_receiver() as endpoint:
        for turn in range(ROUNDS):
            for name, found in rounds.items():
                with server(project, name, endpoint) as running:
                    if turn < 3:  # the memory varies little
                        paced(running.url + ITEM, PER_SECOND, SECONDS)
                        memory = running.rss_bytes() / 1e6
                    found.append((running.seconds, memory))
    return {
        name: {
            "start_s": statistics.median(seconds for seconds, _ in found),
            "rss_mb": statistics.median(memory for _, memory in found[:3]),
        }
        for name, found in rounds.items()
    }

"""Resource usage of the backend over time, and whether it keeps growing."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from tests.faults import observe
from tests.support.compose_stack import Stack
from tests.support.waiting import wait_until


@dataclass
class Resources:
    """Resource usage of the backend at one time."""

    memory: float  # MiB
    files: float
    threads: float
    series: float

    @classmethod
    def measure(cls, stack: Stack) -> "Resources":
        """Measure now, after waiting for a new scrape."""
        now = observe.Snapshot.take(stack).time
        wait_until(lambda: observe.scraped_since(stack, now), "a scrape")
        threads = stack.run(
            "exec", "-T", "backend", "sh", "-c", "ls /proc/*/task | grep -c '^[0-9]'"
        )
        query = 'scrape_samples_scraped{job="backend"}'
        (series,) = stack.query(query).values()
        files = observe.backend_metric(stack, "process_open_fds")
        return cls(observe.memory_mib(stack), files, int(threads.stdout), series)

    def __str__(self) -> str:
        return (
            f"{self.memory:.1f} MiB, {self.files:g} file descriptors, {self.threads:g} threads, "
            f"{self.series:g} series"
        )


# By how much the lowest value of the last third may exceed that of the second third.
ALLOWED_GROWTH = Resources(memory=1.5, files=4, threads=4, series=0)


def excessive_growth(samples: Sequence[Resources]) -> dict[str, float]:
    """Return the resources that grew too much from the second third of a run to the last, and by how much.

    The first third is warm-up: caches and pools fill up. The lowest values are compared, because queueing on a busy
    machine temporarily adds connections and threads, while a leak raises the lowest value, too.
    """
    third = len(samples) // 3
    second, last = samples[third : 2 * third], samples[2 * third :]
    growth = {
        name: min(getattr(each, name) for each in last)
        - min(getattr(each, name) for each in second)
        for name in asdict(ALLOWED_GROWTH)
    }
    return {name: more for name, more in growth.items() if more > getattr(ALLOWED_GROWTH, name)}

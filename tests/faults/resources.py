"""What the backend holds over time, and whether that still grows."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from tests.faults import observe
from tests.support.compose_stack import Stack
from tests.support.waiting import wait_until


@dataclass
class Resources:
    """What the backend holds at one time."""

    memory: float  # MiB
    files: float
    threads: float
    series: float

    @classmethod
    def of(cls, stack: Stack) -> "Resources":
        """Look now, and wait for a scrape that began after this."""
        now = observe.Before.of(stack).time
        wait_until(lambda: observe.new_metric(stack, now), "a scrape")
        threads = stack.run(
            "exec", "-T", "backend", "sh", "-c", "ls /proc/*/task | grep -c '^[0-9]'"
        )
        query = 'scrape_samples_scraped{job="backend"}'
        (series,) = stack.query(query).values()
        files = observe.backend_value(stack, "process_open_fds")
        return cls(observe.memory(stack), files, int(threads.stdout), series)

    def __str__(self) -> str:
        return (
            f"{self.memory:.1f} MiB, {self.files:g} file descriptors, {self.threads:g} threads, "
            f"{self.series:g} series"
        )


# By which the lowest value of the last third may exceed that of the second.
ALLOWED = Resources(memory=1.5, files=4, threads=4, series=0)


def grown(samples: Sequence[Resources]) -> dict[str, float]:
    """Return what grew from the second third of a run to the last, and by how much.

    The first third is left out: caches and pools fill up then. The lowest values are compared, because requests that
    queue on a busy machine only ever add connections and threads, while a leak raises the lowest value, too.
    """
    third = len(samples) // 3
    second, last = samples[third : 2 * third], samples[2 * third :]
    growth = {
        name: min(getattr(each, name) for each in last)
        - min(getattr(each, name) for each in second)
        for name in asdict(ALLOWED)
    }
    return {name: more for name, more in growth.items() if more > getattr(ALLOWED, name)}

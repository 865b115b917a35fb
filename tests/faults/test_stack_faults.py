"""A part of the stack fails under load: the backend does not notice, and everything comes back."""

import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from tests.faults import inject, observe
from tests.faults.inject import Fault
from tests.faults.load import running_load
from tests.support.compose_stack import Stack

BEFORE_SECONDS = 3
FAULT_SECONDS = 5
MEMORY_MIB = 20.0
SERVICES = [
    *("prometheus", "alertmanager", "node-exporter", "loki", "promtail", "docker-proxy"),
    *("tempo", "grafana"),
]
FAULTS: dict[str, tuple[Fault, list[str]]] = {
    "down at start": (inject.down_at_start, SERVICES),
    "killed": (inject.killed, SERVICES),
    "paused": (inject.paused, SERVICES),
    "restarted": (inject.restarted, SERVICES),
    "not there, nor its name": (inject.stopped, SERVICES),
    "out of memory": (inject.out_of_memory, SERVICES),
    "volume read-only": (inject.volume_read_only, list(inject.VOLUMES)),
    "port taken": (inject.port_taken, inject.published(SERVICES)),
    "wrong configuration": (inject.wrongly_configured, list(inject.CONFIGURATIONS)),
    "network cut": (inject.network_cut, ["prometheus", "loki", "tempo"]),
    "network slow": (inject.network_slow, ["prometheus", "loki", "tempo"]),
    # Last: what Loki logs ahead of writing is not whole after that, so that its next crash costs lines.
    "volume full": (inject.volume_full, list(inject.VOLUMES)),
}
# What cannot be helped: Tempo has written a part of a block when the disk is full.
MAY_LOSE = {("tempo", "volume full"): "trace"}
ONCE = (inject.killed, inject.restarted)  # nobody ends these
# Those of the short run: each way that a signal takes, cut at its end.
SHORT = {("killed", "prometheus"), ("killed", "loki"), ("paused", "tempo")}
CASES = [
    pytest.param(
        fault,
        service,
        id=f"{service} {fault}",
        marks=[] if (fault, service) in SHORT else pytest.mark.long,
    )
    for fault, (_, services) in FAULTS.items()
    for service in services
]


@pytest.mark.parametrize(("fault", "service"), CASES)
def test_the_backend_goes_on_and_everything_comes_back(
    faulty: Stack,
    undisturbed: observe.Undisturbed,
    record_property: Callable[[str, object], None],
    fault: str,
    service: str,
) -> None:
    faulty.need(service)
    row = disturb(faulty, undisturbed, fault, service)
    record_property("fault", row.as_property())
    assert row.wrong == 0
    assert row.p99 <= observe.slowest_p99(row.undisturbed)
    assert max(row.back.values()) < observe.RECOVERY_SECONDS
    lost = {name for name, number in row.lost.items() if number}
    assert lost <= {MAY_LOSE.get((service, fault))}
    assert row.memory < MEMORY_MIB
    if service != "tempo":
        assert row.spans == 0


def disturb(
    stack: Stack, undisturbed: observe.Undisturbed, fault: str, service: str
) -> observe.Row:
    """Do something to a service under load, undo it, and return what came of it."""
    row = observe.Row(fault, service)
    begin = FAULTS[fault][0]
    with ExitStack() as lasting:
        load = None
        if begin is not inject.down_at_start:  # which starts the backend
            load = lasting.enter_context(running_load(stack.url("backend")))
            load.go_on_for(BEFORE_SECONDS)
        before = observe.Before.of(stack)
        began = time.time()
        with begin(stack, service) as known:
            began = known or began
            load = load or lasting.enter_context(running_load(stack.url("backend")))
            if begin not in ONCE:
                load.go_on_for(FAULT_SECONDS)
            ending = time.time()
        since = began if begin in ONCE else time.time()
        row.back = observe.times_back(stack, load, service, since)
        load.go_on_for(max(0.0, FAULT_SECONDS - (time.time() - began)))
        row.memory = observe.memory(stack) - before.memory
        ended = time.time()
    observe.answered(row, load.since(began, ended), undisturbed)
    row.lost = observe.losses(stack, before, load.answers)
    if "trace" in observe.can_be_seen(stack):
        row.lost["trace"] = observe.missing_traces(stack, load.since(0, began - 1))
        row.spans = observe.missing_traces(stack, load.since(began, ending))
    return row

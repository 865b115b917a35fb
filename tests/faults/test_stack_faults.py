"""Fault injection in the stack under load: the backend is unaffected, and all signals recover."""

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
    "down at backend start": (inject.down_at_backend_start, SERVICES),
    "killed": (inject.killed, SERVICES),
    "paused": (inject.paused, SERVICES),
    "restarted": (inject.restarted, SERVICES),
    "stopped": (inject.stopped, SERVICES),
    "out of memory": (inject.out_of_memory, SERVICES),
    "volume read-only": (inject.volume_read_only, list(inject.VOLUMES)),
    "port in use": (inject.port_in_use, inject.with_host_port(SERVICES)),
    "invalid configuration": (inject.invalid_configuration, list(inject.CONFIGURATIONS)),
    "network disconnected": (inject.network_disconnected, ["prometheus", "loki", "tempo"]),
    "slow network": (inject.slow_network, ["prometheus", "loki", "tempo"]),
    # Last, because it damages Loki's write-ahead log, so that a later crash loses log lines.
    "volume full": (inject.volume_full, list(inject.VOLUMES)),
}
# Unavoidable: Tempo has written only a part of a block when the disk is full.
MAY_LOSE = {("tempo", "volume full"): "trace"}
INSTANT = (inject.killed, inject.restarted)  # they have no end
# The cases of `make test`: one for the store of each signal.
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
def test_the_backend_is_unaffected_and_all_signals_recover(
    fault_stack: Stack,
    baseline: observe.Baseline,
    record_property: Callable[[str, object], None],
    fault: str,
    service: str,
) -> None:
    fault_stack.require(service)
    result = run_with_fault(fault_stack, baseline, fault, service)
    record_property("fault", result.as_json())
    assert result.errors == 0
    assert result.p99 <= observe.p99_limit(result.baseline_p99)
    assert max(result.recovery.values()) < observe.RECOVERY_SECONDS
    lost = {name for name, number in result.lost.items() if number}
    assert lost <= {MAY_LOSE.get((service, fault))}
    assert result.memory_growth < MEMORY_MIB
    if service != "tempo":
        assert result.missing_traces == 0


def run_with_fault(
    stack: Stack, baseline: observe.Baseline, fault: str, service: str
) -> observe.FaultResult:
    """Inject a fault under load, end it, wait for recovery, and return the result."""
    result = observe.FaultResult(fault, service)
    inject_fault = FAULTS[fault][0]
    with ExitStack() as cleanup:
        load = None
        if inject_fault is not inject.down_at_backend_start:  # it restarts the backend
            load = cleanup.enter_context(running_load(stack.url("backend")))
            load.run_for(BEFORE_SECONDS)
        before = observe.Snapshot.take(stack)
        began = time.time()
        with inject_fault(stack, service) as exact:
            began = exact or began
            load = load or cleanup.enter_context(running_load(stack.url("backend")))
            if inject_fault not in INSTANT:
                load.run_for(FAULT_SECONDS)
            ending = time.time()
        since = began if inject_fault in INSTANT else time.time()
        result.recovery = observe.recovery_times(stack, load, service, since)
        load.run_for(max(0.0, FAULT_SECONDS - (time.time() - began)))
        result.memory_growth = observe.memory_mib(stack) - before.memory
        ended = time.time()
    observe.record_responses(result, load.since(began, ended), baseline)
    result.lost = observe.losses(stack, before, load.responses)
    if "trace" in observe.available_signals(stack):
        result.lost["trace"] = observe.missing_traces(stack, load.since(0, began - 1))
        result.missing_traces = observe.missing_traces(stack, load.since(began, ending))
    return result

"""What connections leave behind: descriptors and memory of each ztunnel before and after 20 times 1,000 connections."""

import time
from dataclasses import dataclass

from bench.effort import Effort, report_progress
from bench.pods import BenchLab, running_lab
from bench.report import Row, ratio_at_most
from bench.setups import (
    AMBIENT,
    CLIENT,
    ECHO_PORT,
    FAR,
    NEAR,
    NODES,
    build_echo_container,
    build_idle_container,
    build_namespace,
    build_pod,
)

CONNECTIONS = 1000
"""Of each batch; half of them to the same node and half to the other."""

WAYS = {"in sequence": 1, "all open at once": CONNECTIONS}
"""How many of a batch are open at once, by what that is called. The second one makes buffers and tunnels grow first."""

GROWTH = 1.10
"""What may be left when everything is closed, as a factor of what was there before."""

SETTLE_SECONDS = 8.0
"""How long closed connections may take to be let go before what is left counts."""

LOOK_AGAIN_SECONDS = 0.5

HOLD_TIMEOUT_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Usage:
    """What one ztunnel holds."""

    descriptors: int
    mebibytes: float


@dataclass(frozen=True, slots=True)
class Trace:
    """What one ztunnel holds before all, when the first batch has been closed, and when the last has."""

    before: Usage
    first: Usage
    after: Usage


def run(effort: Effort) -> list[Row]:
    """Measure each ztunnel before and after all batches; raises BenchError when a connection fails."""
    documents = [
        build_namespace(AMBIENT),
        build_pod(AMBIENT, CLIENT, NODES[0], [build_idle_container()]),
        build_pod(AMBIENT, NEAR, NODES[0], [build_echo_container()]),
        build_pod(AMBIENT, FAR, NODES[1], [build_echo_container()]),
    ]
    with running_lab("bench-connections", documents, ()) as lab:
        return [row for way in WAYS for row in _measure(lab, way, effort.connection_batches)]


def build_rows(process: str, way: str, trace: Trace) -> list[Row]:
    """What is left after all batches against what there was before, and against what one batch left."""
    before, first, after = trace.before, trace.first, trace.after
    aim = ratio_at_most(GROWTH)
    name = f"{CONNECTIONS} connections {way}, {process}"
    return [
        Row(f"{name}, descriptors: after all vs before", "descriptors", after.descriptors, before.descriptors, aim),
        Row(f"{name}, PSS: after all vs before", "MiB", after.mebibytes, before.mebibytes, aim),
        Row(f"{name}, PSS: after all vs after one batch", "MiB", after.mebibytes, first.mebibytes),
    ]


def _measure(lab: BenchLab, way: str, batches: int) -> list[Row]:
    report_progress(f"{CONNECTIONS} connections {way}, {batches} times")
    _open_and_close(lab, at_once=1, connections=2)  # the tunnels stand, as they do again at the end
    before = _look(lab)
    _open_and_close(lab, WAYS[way], CONNECTIONS)
    first = _settle(lab, before)
    per_second = _open_and_close(lab, WAYS[way], CONNECTIONS * batches)
    after = _settle(lab, before)
    rows = [row for name in before for row in build_rows(name, way, Trace(before[name], first[name], after[name]))]
    return [*rows, Row(f"{CONNECTIONS} connections {way}: opened and closed", "1/s", per_second)]


def _open_and_close(lab: BenchLab, at_once: int, connections: int) -> float:
    """Open and close connections; returns how many a second."""
    addresses = [lab.address(AMBIENT, pod) for pod in (NEAR, FAR)]
    arguments = [str(ECHO_PORT), str(at_once), str(connections // at_once), *addresses]
    found = lab.run_program(AMBIENT, CLIENT, "hold", *arguments, timeout_seconds=HOLD_TIMEOUT_SECONDS)
    return found["count"] / found["seconds"]


def _look(lab: BenchLab) -> dict[str, Usage]:
    """Every ztunnel, by name."""
    names = [f"ztunnel/{node}" for node in NODES]
    return {name: Usage(lab.process_descriptors(name), lab.process_memory(name).pss_mebibytes) for name in names}


def _settle(lab: BenchLab, before: dict[str, Usage]) -> dict[str, Usage]:
    """What is held once it is back to about `before`, or what is still held after SETTLE_SECONDS."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        found = _look(lab)
        if all(_is_back(found[name], before[name]) for name in before) or time.monotonic() > deadline:
            return found
        time.sleep(LOOK_AGAIN_SECONDS)


def _is_back(now: Usage, before: Usage) -> bool:
    return now.descriptors <= before.descriptors * GROWTH and now.mebibytes <= before.mebibytes * GROWTH

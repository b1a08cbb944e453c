"""The benches that there are."""

from collections.abc import Callable
from dataclasses import dataclass

from bench import connections, l4, memory
from bench.effort import Effort
from bench.report import Row


@dataclass(frozen=True, slots=True)
class Bench:
    """A bench by name; `run` raises BenchError."""

    name: str
    summary: str
    run: Callable[[Effort], list[Row]]


BENCHES = {
    bench.name: bench
    for bench in (
        Bench("l4", "throughput, latency, connections and memory beside no mesh and a pair of Envoys", l4.run),
        Bench("connections", "what 20 times 1,000 connections leave behind in each ztunnel", connections.run),
        Bench("memory", "every process of an idle mesh, beside an Envoy in each pod", memory.run),
    )
}

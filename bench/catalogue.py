"""The benches that there are."""

from collections.abc import Callable
from dataclasses import dataclass

from bench import cluster, connections, curves, growth, idle, l4, memory, scale, soak, state, upgrade
from bench.effort import Effort
from bench.report import Row


@dataclass(frozen=True, slots=True)
class Bench:
    """A bench by name; `run` raises BenchError."""

    name: str
    summary: str
    run: Callable[[Effort], list[Row]]
    is_in_all: bool = True


BENCHES = {
    bench.name: bench
    for bench in (
        Bench(
            "l4",
            "throughput, latency, connections and memory beside no mesh, Envoys and HAProxies",
            l4.run,
        ),
        Bench("idle", "memory of ztunnels with 9,000 idle connections, beside Envoys with as many", idle.run),
        Bench("state", "memory, time and disturbance of 10 to 100,000 workloads known", state.run),
        Bench("scale", "the controller with 100,000 workloads, 1,000 agents and 5,000 routes", scale.run),
        Bench("cluster", "the controller with 10,000 pods of a real API server and 300 agents", cluster.run),
        Bench("upgrade", "what clients notice of 20 replaced ztunnels, and of killed ones", upgrade.run),
        Bench("curves", "memory, latency and throughput by size, as pictures", curves.run, is_in_all=False),
        Bench("growth", "the controller by workloads and by agents, as pictures", growth.run, is_in_all=False),
        Bench("soak", "ten minutes of load and churn: wrong answers, memory, descriptors", soak.run, is_in_all=False),
        Bench("connections", "what 20 times 1,000 connections leave behind in each ztunnel", connections.run),
        Bench("memory", "every process of an idle mesh, beside an Envoy in each pod", memory.run),
    )
}

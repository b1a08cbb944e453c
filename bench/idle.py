"""What idle connections take: memory of each ztunnel with 9,000 of them, beside Envoys with as many."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.effort import QUICK, Effort, report_progress
from bench.holding import held_connections
from bench.pods import BenchLab, running_lab
from bench.report import Row, ours_at_most
from bench.setups import (
    AMBIENT,
    CLIENT,
    FAR,
    NODES,
    SIDECAR,
    build_echo_container,
    build_idle_container,
    build_namespace,
    build_pod,
)
from bench.sidecar import sidecar_container, write_sidecar_files

CONNECTIONS = 9000
"""Both legs of each count, and a process may have 20,000 descriptors on machines like ours."""
QUICK_CONNECTIONS = 1000

IDLE_MEBIBYTES = 16
ADDED_MEBIBYTES = 27
SETTLE_SECONDS = 6.0
"""What opening them needed has been returned by then."""


def run(effort: Effort) -> list[Row]:
    """Measure before and while they are open; raises BenchError when one cannot be opened."""
    count = QUICK_CONNECTIONS if effort is QUICK else CONNECTIONS
    with tempfile.TemporaryDirectory(prefix="ambit-bench-") as name:
        envoy = sidecar_container(write_sidecar_files(Path(name)))
        documents = [
            build_namespace(AMBIENT),
            build_pod(AMBIENT, CLIENT, NODES[0], [build_idle_container()]),
            build_pod(AMBIENT, FAR, NODES[1], [build_echo_container()]),
            build_namespace(SIDECAR),
            build_pod(SIDECAR, CLIENT, NODES[0], [build_idle_container(), envoy]),
            build_pod(SIDECAR, FAR, NODES[1], [build_echo_container(), envoy]),
        ]
        with running_lab("bench-idle", documents, ("nft",)) as lab:
            return _measure(lab, count)


def _measure(lab: BenchLab, count: int) -> list[Row]:
    ours = {f"ztunnel/{node}": _ztunnel(lab, node) for node in NODES}
    peers = {pod: _envoy(lab, pod) for pod in (CLIENT, FAR)}
    rows = []
    before = {name: look() for name, look in (ours | peers).items()}
    for name in ours:
        rows.append(Row(f"PSS idle: {name}", "MiB", before[name], aim=ours_at_most(IDLE_MEBIBYTES)))
    added = _hold(lab, AMBIENT, count, ours, before)
    added_by_peer = _hold(lab, SIDECAR, count, peers, before)
    for (name, grown), peer in zip(added.items(), added_by_peer.values(), strict=True):
        title = f"PSS added by {count} idle connections: {name} vs an Envoy"
        rows.append(Row(title, "MiB", grown, peer, ours_at_most(ADDED_MEBIBYTES)))
    return rows


def _hold(
    lab: BenchLab, namespace: str, count: int, looks: dict[str, Callable[[], float]], before: dict[str, float]
) -> dict[str, float]:
    """How much each process has grown while so many connections are open."""
    report_progress(f"{count} connections in namespace {namespace}")
    with held_connections(lab, namespace, lab.address(namespace, FAR), count):
        time.sleep(SETTLE_SECONDS)
        return {name: look() - before[name] for name, look in looks.items()}


def _ztunnel(lab: BenchLab, node: str) -> Callable[[], float]:
    return lambda: lab.process_memory(f"ztunnel/{node}").pss_mebibytes


def _envoy(lab: BenchLab, pod: str) -> Callable[[], float]:
    return lambda: lab.envoy_memory(SIDECAR, pod).pss_mebibytes

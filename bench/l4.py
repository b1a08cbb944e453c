"""How fast bytes, rounds and connections go through the mesh, beside no mesh, Envoy sidecars and HAProxies."""

import tempfile
import time
from pathlib import Path

from bench import haproxy
from bench.certificates import read_mutual_tls_files
from bench.effort import Effort, report_progress
from bench.loads import (
    CLOSED_FAILURES,
    CLOSED_REQUESTS,
    CONNECTIONS,
    KEPT_REQUESTS,
    LATENCY_P50,
    LATENCY_P99,
    THROUGHPUT_1,
    THROUGHPUT_8,
    Loads,
)
from bench.pods import BenchLab, running_lab, write_nginx_configuration
from bench.report import Aim, Row, ours_at_most, ratio_at_least, ratio_at_most
from bench.samples import Measure, Samples, collect
from bench.setups import (
    AMBIENT_ACROSS,
    AMBIENT_SAME_NODE,
    CLIENT,
    ECHO_PORT,
    ENVOY_PAIR,
    FAR,
    HAPROXY,
    HAPROXY_PAIR,
    HTTP_PORT,
    IPERF_PORT,
    NO_MESH,
    NO_MESH_SAME_NODE,
    NODES,
    SIDECAR,
    Setup,
    as_source,
    build_idle_container,
    build_namespace,
    build_paths,
    build_pod,
    build_server_containers,
)
from bench.sidecar import write_sidecar_files

SETUPS = (NO_MESH, NO_MESH_SAME_NODE, AMBIENT_SAME_NODE, AMBIENT_ACROSS, ENVOY_PAIR, HAPROXY_PAIR)

IDLE_MEBIBYTES = 16
"""The most that a ztunnel's PSS may be before any load."""

LOADED_MEBIBYTES = 24
"""The most that a ztunnel's PSS may be after the load."""

SETTLE_SECONDS = 2.0
"""Before memory is read: what only the start or the load needed has been returned by then, or is kept for good."""

AGAINST_PEER: dict[Measure, Aim] = {
    THROUGHPUT_1: ratio_at_least(1.15),
    THROUGHPUT_8: ratio_at_least(1.15),
    LATENCY_P50: ratio_at_most(1),
    LATENCY_P99: ratio_at_most(1),
    CONNECTIONS: ratio_at_least(3),
    KEPT_REQUESTS: ratio_at_least(1.5),
    CLOSED_REQUESTS: ratio_at_least(5),
}
"""Across nodes against the Envoy pair, in the order of the report."""

AGAINST_PLAIN_ACROSS: dict[Measure, Aim] = {CONNECTIONS: ratio_at_least(0.6)}
"""Across nodes against no mesh."""

AGAINST_PLAIN_SAME_NODE: dict[Measure, Aim] = {THROUGHPUT_1: ratio_at_least(0.55)}
"""On one node against no mesh: one hop, which encrypts nothing."""

ADDED_ACROSS = ratio_at_most(0.65)
ADDED_SAME_NODE = ours_at_most(25)
"""What a round trip may take longer, against what the Envoy pair adds and in microseconds."""

PROGRAMS = ("iperf3", "wrk", "nginx", "nft", "haproxy")

PORTS = (IPERF_PORT, ECHO_PORT, HTTP_PORT)


def run(effort: Effort) -> list[Row]:
    """Measure, and compare with the Envoy pair and with no mesh; raises BenchError."""
    with tempfile.TemporaryDirectory(prefix="ambit-bench-") as name:
        folder = Path(name)
        nginx, sidecar = write_nginx_configuration(folder), write_sidecar_files(folder)
        tls = haproxy.write_certificates(folder, read_mutual_tls_files(folder))
        server = haproxy.haproxy_container(haproxy.write_server_configuration(folder, tls, PORTS))
        documents = [
            *build_paths(nginx, sidecar),
            build_namespace(HAPROXY),
            build_pod(HAPROXY, FAR, NODES[1], [*build_server_containers(nginx), server]),
        ]
        with running_lab("bench-l4", documents, PROGRAMS) as lab:
            # It has to know where the server is.
            address = lab.address(HAPROXY, FAR)
            client = haproxy.haproxy_container(haproxy.write_client_configuration(folder, tls, PORTS, address))
            lab.apply(as_source([build_pod(HAPROXY, CLIENT, NODES[0], [build_idle_container(), client])]))
            idle = memory_rows(lab, "idle", IDLE_MEBIBYTES)
            report_progress(f"in columns: {'; '.join(setup.title for setup in SETUPS)}")
            samples = collect(Loads(lab, effort).probes(), SETUPS, effort.rounds, report_progress)
            return build_rows(samples) + idle + memory_rows(lab, "after the load", LOADED_MEBIBYTES)


def build_rows(samples: Samples) -> list[Row]:
    """All comparisons that the samples allow, those with an aim first."""
    measured = [measure for measure in AGAINST_PEER if samples.has(measure)]
    rows = [compare(samples, measure, AMBIENT_ACROSS, ENVOY_PAIR, AGAINST_PEER[measure]) for measure in measured]
    rows.append(_added_latency(samples, AMBIENT_ACROSS, NO_MESH, ENVOY_PAIR, aim=ADDED_ACROSS))
    rows.append(_added_latency(samples, AMBIENT_SAME_NODE, NO_MESH_SAME_NODE, aim=ADDED_SAME_NODE))
    if samples.has(CLOSED_FAILURES):
        rows.append(_failures(samples))
    for ours, plain, aims in (
        (AMBIENT_ACROSS, NO_MESH, AGAINST_PLAIN_ACROSS),
        (AMBIENT_SAME_NODE, NO_MESH_SAME_NODE, AGAINST_PLAIN_SAME_NODE),
    ):
        rows += [compare(samples, measure, ours, plain, aims.get(measure)) for measure in measured]
    rows += [compare(samples, measure, AMBIENT_ACROSS, HAPROXY_PAIR) for measure in measured]
    rows.append(_added_latency(samples, AMBIENT_ACROSS, NO_MESH, HAPROXY_PAIR))
    return sorted(rows, key=lambda row: row.aim is None)


def compare(samples: Samples, measure: Measure, ours: Setup, peer: Setup, aim: Aim | None = None) -> Row:
    """One measure on two set-ups, by their medians."""
    title = f"{measure.title}: {ours.title} vs {peer.title}"
    return Row(title, measure.unit, samples.median(measure, ours), samples.median(measure, peer), aim)


def memory_rows(lab: BenchLab, when: str, mebibytes: float) -> list[Row]:
    """The larger ztunnel against the larger Envoy.

    In a lab every Python process shares one interpreter's pages, which flatters PSS; RSS is what a ztunnel that shares
    nothing with anybody would take.
    """
    time.sleep(SETTLE_SECONDS)
    ours = [lab.process_memory(f"ztunnel/{node}") for node in NODES]
    peer = [lab.envoy_memory(SIDECAR, pod) for pod in (CLIENT, FAR)]
    pss, peer_pss = (max(memory.pss_mebibytes for memory in memories) for memories in (ours, peer))
    rss, peer_rss = (max(memory.rss_mebibytes for memory in memories) for memories in (ours, peer))
    return [
        Row(f"PSS {when}: ztunnel vs one Envoy", "MiB", pss, peer_pss, ours_at_most(mebibytes)),
        Row(f"RSS {when}: ztunnel vs one Envoy", "MiB", rss, peer_rss),
    ]


def _failures(samples: Samples) -> Row:
    """Of the worst round: a median would hide a failure that happens once."""
    title = f"{CLOSED_FAILURES.title}, worst round: {AMBIENT_ACROSS.title} vs {ENVOY_PAIR.title}"
    ours, peer = (samples.highest(CLOSED_FAILURES, setup) for setup in (AMBIENT_ACROSS, ENVOY_PAIR))
    return Row(title, CLOSED_FAILURES.unit, ours, peer, ours_at_most(0))


def _added_latency(
    samples: Samples, ours: Setup, base: Setup, peer: Setup | None = None, *, aim: Aim | None = None
) -> Row:
    """What the mesh adds to a round trip over the same way without it."""
    without = samples.median(LATENCY_P50, base)
    added = samples.median(LATENCY_P50, ours) - without
    if peer is None:
        return Row(f"added latency p50: {ours.title}", LATENCY_P50.unit, added, aim=aim)
    added_by_peer = samples.median(LATENCY_P50, peer) - without
    return Row(f"added latency p50: {ours.title} vs {peer.title}", LATENCY_P50.unit, added, added_by_peer, aim)

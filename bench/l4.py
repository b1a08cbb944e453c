"""How fast bytes, rounds and connections go through the mesh, beside no mesh and a pair of Envoy sidecars."""

import tempfile
import time
from pathlib import Path

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
from bench.samples import Better, Measure, Samples, collect
from bench.setups import (
    AMBIENT_ACROSS,
    AMBIENT_SAME_NODE,
    CLIENT,
    ENVOY_PAIR,
    FAR,
    NO_MESH,
    NO_MESH_SAME_NODE,
    NODES,
    SIDECAR,
    Setup,
    build_paths,
)
from bench.sidecar import write_sidecar_files

SETUPS = (NO_MESH, NO_MESH_SAME_NODE, AMBIENT_SAME_NODE, AMBIENT_ACROSS, ENVOY_PAIR)

ZTUNNEL_MEBIBYTES = 24
"""The most that a ztunnel may take, before and after load."""

SETTLE_SECONDS = 2.0
"""Before memory is read: what only the start or the load needed has been returned by then, or is kept for good."""

AIMED_AT = (THROUGHPUT_1, THROUGHPUT_8, LATENCY_P50, LATENCY_P99, CONNECTIONS)
"""What must be at least as good across nodes as the Envoy pair's."""

REPORTED = (*AIMED_AT, KEPT_REQUESTS, CLOSED_REQUESTS)

PROGRAMS = ("iperf3", "wrk", "nginx", "nft")


def run(effort: Effort) -> list[Row]:
    """Measure, and compare with the Envoy pair and with no mesh; raises BenchError."""
    with tempfile.TemporaryDirectory(prefix="ambit-bench-") as name:
        folder = Path(name)
        documents = build_paths(write_nginx_configuration(folder), write_sidecar_files(folder))
        with running_lab("bench-l4", documents, PROGRAMS) as lab:
            idle = memory_rows(lab, "idle")
            report_progress(f"in columns: {'; '.join(setup.title for setup in SETUPS)}")
            samples = collect(Loads(lab, effort).probes(), SETUPS, effort.rounds, report_progress)
            return build_rows(samples) + idle + memory_rows(lab, "after the load")


def build_rows(samples: Samples) -> list[Row]:
    """All comparisons that the samples allow, those with an aim first."""
    measured = [measure for measure in REPORTED if samples.has(measure)]
    rows = [
        compare(samples, measure, AMBIENT_ACROSS, ENVOY_PAIR, _as_good(measure) if measure in AIMED_AT else None)
        for measure in measured
    ]
    rows.append(_added_latency(samples, AMBIENT_ACROSS, NO_MESH, with_peer=True))
    if samples.has(CLOSED_FAILURES):
        rows.append(compare(samples, CLOSED_FAILURES, AMBIENT_ACROSS, ENVOY_PAIR))
    rows += [compare(samples, measure, AMBIENT_ACROSS, NO_MESH) for measure in measured]
    rows += [compare(samples, measure, AMBIENT_SAME_NODE, NO_MESH_SAME_NODE) for measure in measured]
    rows.append(_added_latency(samples, AMBIENT_SAME_NODE, NO_MESH_SAME_NODE, with_peer=False))
    return rows


def compare(samples: Samples, measure: Measure, ours: Setup, peer: Setup, aim: Aim | None = None) -> Row:
    """One measure on two set-ups, by their medians."""
    title = f"{measure.title}: {ours.title} vs {peer.title}"
    return Row(title, measure.unit, samples.median(measure, ours), samples.median(measure, peer), aim)


def memory_rows(lab: BenchLab, when: str) -> list[Row]:
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
        Row(f"PSS {when}: ztunnel vs one Envoy", "MiB", pss, peer_pss, ours_at_most(ZTUNNEL_MEBIBYTES)),
        Row(f"RSS {when}: ztunnel vs one Envoy", "MiB", rss, peer_rss),
    ]


def _as_good(measure: Measure) -> Aim:
    return ratio_at_least(1) if measure.better is Better.HIGHER else ratio_at_most(1)


def _added_latency(samples: Samples, ours: Setup, base: Setup, *, with_peer: bool) -> Row:
    """What the mesh adds to a round trip over the same way without it."""
    without = samples.median(LATENCY_P50, base)
    added = samples.median(LATENCY_P50, ours) - without
    if not with_peer:
        return Row(f"added latency p50: {ours.title}", LATENCY_P50.unit, added)
    peer = samples.median(LATENCY_P50, ENVOY_PAIR) - without
    return Row(f"added latency p50: {ours.title} vs {ENVOY_PAIR.title}", LATENCY_P50.unit, added, peer)

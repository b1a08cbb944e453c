"""What the mesh's processes take when nothing happens, with 1 and with 10 pods, beside an Envoy in each pod."""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.effort import Effort, report_progress
from bench.pods import BenchLab, Memory, running_lab
from bench.report import Aim, Row, ours_at_most
from bench.setups import (
    AMBIENT,
    NODES,
    SIDECAR,
    Document,
    as_source,
    build_idle_container,
    build_namespace,
    build_pod,
)
from bench.sidecar import SidecarFiles, sidecar_container, write_sidecar_files

POD_COUNTS = (1, 10)

SETTLE_SECONDS = {"quick": 2.0, "full": 10.0}
"""After the last pod came: what only its start needed has been returned by then."""

AIMS = {"ztunnel": ours_at_most(24), "cni": ours_at_most(40)}
"""Per process, in MiB; a controller's share grows with the mesh and has none."""


def run(effort: Effort) -> list[Row]:
    """Measure with few and with more pods, half of them on each node; raises BenchError."""
    with tempfile.TemporaryDirectory(prefix="ambit-bench-") as name:
        files = write_sidecar_files(Path(name))
        start = [build_namespace(AMBIENT), build_namespace(SIDECAR)]
        rows: list[Row] = []
        with running_lab("bench-memory", start, ("nft",)) as lab:
            for count in POD_COUNTS:
                report_progress(f"{count} pods of each kind")
                lab.apply(as_source(_build_pods(count, files)))
                time.sleep(SETTLE_SECONDS[effort.name])
                rows += build_rows(count, process_memories(lab), sidecar_memories(lab, count))
        return rows


def build_rows(pods: int, processes: dict[str, Memory], sidecars: Sequence[Memory]) -> list[Row]:
    """Each process, then what carries the pods' bytes on all nodes against all sidecars."""
    when = "1 pod" if pods == 1 else f"{pods} pods"
    rows = [
        Row(f"PSS idle, {when}: {name}", "MiB", memory.pss_mebibytes, aim=_aim(name))
        for name, memory in processes.items()
    ]
    carrying = [memory for name, memory in processes.items() if not name.startswith("controller")]
    title = f"idle, {when}: ztunnel and cni on {len(NODES)} nodes vs an Envoy in each pod"
    ours, peer = (sum(memory.pss_mebibytes for memory in memories) for memories in (carrying, sidecars))
    return [*rows, Row(f"PSS {title}", "MiB", ours, peer)]


def process_memories(lab: BenchLab) -> dict[str, Memory]:
    """Every process of the mesh, by name."""
    return {process.name: lab.process_memory(process.name) for process in lab.lab.status().processes}


def sidecar_memories(lab: BenchLab, pods: int) -> list[Memory]:
    """Every pod's Envoy."""
    return [lab.envoy_memory(SIDECAR, f"pod-{number}") for number in range(pods)]


def _build_pods(count: int, files: SidecarFiles) -> list[Document]:
    documents: list[Document] = []
    for number in range(count):
        name, node = f"pod-{number}", NODES[number % len(NODES)]
        documents.append(build_pod(AMBIENT, name, node, [build_idle_container()]))
        documents.append(build_pod(SIDECAR, name, node, [build_idle_container(), sidecar_container(files)]))
    return documents


def _aim(process: str) -> Aim | None:
    return AIMS.get(process.partition("/")[0])

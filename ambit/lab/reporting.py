"""The lab's status, gathered from what stands."""

from ambit.lab.children import proportional_memory_bytes
from ambit.lab.cluster import Cluster
from ambit.lab.processes import KeptProcess
from ambit.lab.status import LabStatus, ProcessStatus


def build_status(cluster: Cluster, *, is_up: bool) -> LabStatus:
    """Everything that `ambit lab status` shows; `pid`s are the lab's own, for the client to translate."""
    return LabStatus(
        lab=cluster.name,
        is_up=is_up,
        folder=str(cluster.host.folder.path),
        nodes=[node.status() for node in cluster.nodes.values()],
        pods=[pod.status() for _, pod in sorted(cluster.pods.items())],
        services=[
            service.status(len(cluster.selected_pods(service))) for _, service in sorted(cluster.services.items())
        ],
        processes=[_process_status(node, process) for node, process in cluster.processes()],
    )


def _process_status(node: str, process: KeptProcess) -> ProcessStatus:
    pid = process.pid
    return ProcessStatus(
        name=process.spec.name,
        node=node,
        pid=pid,
        lab_pid=pid,
        state=str(process.state),
        restarts=process.restarts,
        draining=len(process.leaving),
        pss_bytes=proportional_memory_bytes(pid) if pid is not None else None,
    )

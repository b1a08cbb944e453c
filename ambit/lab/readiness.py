"""Waiting until a lab works: its processes answer, its pods run and are enrolled, and what they declare listens."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path

from ambit.lab import http
from ambit.lab.cluster import Cluster
from ambit.lab.http import TcpEndpoint
from ambit.lab.mesh_processes import CONTROLLER_ADMIN_PORT, ZTUNNEL_READINESS_PORT
from ambit.lab.pods import Pod, listening_tcp_ports
from ambit.lab.processes import KeptProcess
from ambit.lab.tasks import run_together
from mesh.kit.errors import RefusedError, TransientError

PROCESS_TIMEOUT_SECONDS = 30.0
"""Starting takes one or two seconds; a loaded machine with many nodes may take some more."""

POD_TIMEOUT_SECONDS = 15.0
"""From all processes being ready to the last pod's enrolment."""

PORT_TIMEOUT_SECONDS = 5.0
"""How long a program may take to listen where its pod says so; after that it is only a warning."""

CRASHES_TO_GIVE_UP = 3
"""A process that has ended this often without ever being ready will not come up."""

LOOK_AGAIN_SECONDS = 0.02

Progress = Callable[[str], Awaitable[None]]


async def wait_until_up(cluster: Cluster, progress: Progress) -> list[str]:
    """Wait for everything, and return warnings.

    Raises TransientError, with the end of its log, for a process that does not come up.
    """
    await _wait_for_processes(cluster, progress)
    warnings = await wait_for_pods(cluster.pods.values())
    if cluster.pods:
        await progress(f"{len(cluster.pods)} pods run")
    return warnings


async def wait_for_pods(pods: Iterable[Pod]) -> list[str]:
    """Wait until pods run, are enrolled if their labels say so, and listen; returns warnings of what does not."""
    pods = list(pods)
    unfinished = await _wait_for_all(pods, _has_settled, POD_TIMEOUT_SECONDS)
    warnings = [
        f"pod {_name(pod)} is not ready: {pod.status().message or pod.announced.enrolment}" for pod in unfinished
    ]
    running = [pod for pod in pods if pod not in unfinished]
    deaf = await _wait_for_all(running, lambda pod: not _missing_ports(pod), PORT_TIMEOUT_SECONDS)
    for pod in deaf:
        ports = ", ".join(str(port) for port in sorted(_missing_ports(pod)))
        warnings.append(f"pod {_name(pod)} declares port {ports}, but nothing listens there")
    return warnings


async def replace_ztunnel(cluster: Cluster, process: KeptProcess) -> None:
    """Let a new ztunnel take the place of a node's, as a rolling update does; the old one drains beside it.

    Raises RefusedError for another process, TransientError when the new one does not become ready.
    """
    for node in cluster.nodes.values():
        if node.ztunnel is process:
            endpoint = TcpEndpoint(str(node.underlay_address), ZTUNNEL_READINESS_PORT)
            await process.replace(partial(http.is_ready, endpoint), PROCESS_TIMEOUT_SECONDS)
            return
    raise RefusedError(f"{process.spec.name} cannot be replaced while it runs; only ztunnels can (stop and start it)")


async def _wait_for_processes(cluster: Cluster, progress: Progress) -> None:
    """Wait for controller, agents and ztunnels, side by side."""
    pages: list[tuple[KeptProcess, TcpEndpoint | Path]] = [
        (cluster.controller, TcpEndpoint("127.0.0.1", CONTROLLER_ADMIN_PORT))
    ]
    for node in cluster.nodes.values():
        pages.append((node.agent, node.enrolment.agent_socket))
        pages.append((node.ztunnel, TcpEndpoint(str(node.underlay_address), ZTUNNEL_READINESS_PORT)))
    await run_together(
        {process.spec.name: _wait_for_process(process, endpoint, progress) for process, endpoint in pages}
    )


async def _wait_for_process(process: KeptProcess, endpoint: TcpEndpoint | Path, progress: Progress) -> None:
    try:
        async with asyncio.timeout(PROCESS_TIMEOUT_SECONDS):
            while not await http.is_ready(endpoint):
                if process.restarts >= CRASHES_TO_GIVE_UP:
                    raise TransientError(f"{process.spec.name} keeps failing:\n{_end_of_log(process)}")
                await asyncio.sleep(LOOK_AGAIN_SECONDS)
    except TimeoutError as error:
        raise TransientError(
            f"{process.spec.name} is not ready after {PROCESS_TIMEOUT_SECONDS:.0f} s:\n{_end_of_log(process)}"
        ) from error
    await progress(f"{process.spec.name} is ready")


async def _wait_for_all(pods: list[Pod], is_done: Callable[[Pod], bool], timeout_seconds: float) -> list[Pod]:
    """The pods of which `is_done` did not become true in time."""
    missing = pods
    try:
        async with asyncio.timeout(timeout_seconds):
            # Looked at from outside, as /proc tells nobody when a program starts to listen.
            while missing := [pod for pod in missing if not is_done(pod)]:  # noqa: ASYNC110
                await asyncio.sleep(LOOK_AGAIN_SECONDS)
    except TimeoutError:
        pass
    return missing


def _has_settled(pod: Pod) -> bool:
    """Whether there is nothing to wait for any more: it runs (or has ended), and its agent did what labels say."""
    if pod.phase in ("Succeeded", "Failed"):
        return True
    return pod.is_ready and pod.announced.is_as_labels_say


def _missing_ports(pod: Pod) -> set[int]:
    declared = pod.declared_tcp_ports()
    return declared - listening_tcp_ports(pod.sandbox.namespace) if declared and pod.is_ready else set()


def _end_of_log(process: KeptProcess, lines: int = 15) -> str:
    try:
        text = process.spec.log.read_text(errors="replace")
    except OSError:
        return process.last_failure
    return "\n".join(f"  {line}" for line in text.splitlines()[-lines:])


def _name(pod: Pod) -> str:
    return f"{pod.manifest.key.namespace}/{pod.manifest.key.name}"

"""The node agent as a process: its parts put together, started, and ended in order.

On SIGTERM the sockets go and the redirect rules stay: pods keep what they have, new ones wait for the next agent, and
nothing falls back to plaintext (facts on the CNI, 4.6).
"""

import asyncio
import logging
import signal
import socket
import time

from aiohttp import web

from cni.agent.enrolment import Enrolment
from cni.agent.journal import Journal
from cni.agent.pod_api import build_pod_api
from cni.agent.pod_kernel import ThreadedPodKernel
from cni.agent.unix_sockets import close_listener, listen_unix
from cni.agent.zds_server import ZdsServer
from cni.settings import AgentSettings
from mesh.kit.errors import AmbitError

log = logging.getLogger(__name__)

# A request under way when the agent is told to stop: one transaction and one ack fit.
_SHUTDOWN_SECONDS = 3.0


async def run_agent(settings: AgentSettings) -> None:
    """Serve until SIGTERM or SIGINT. Raises FatalError when a socket cannot be opened."""
    started = time.monotonic()
    journal, zds = Journal(settings.journal_path), ZdsServer(settings.zds)
    enrolment = Enrolment(settings.enrolment, ThreadedPodKernel(), zds, journal.store)
    async with asyncio.TaskGroup() as tasks:
        stop = _watch_signals()
        await _restore(journal, enrolment)
        endless = [
            tasks.create_task(zds.serve(enrolment), name="zds server"),
            tasks.create_task(enrolment.watch_pending(asyncio.sleep), name="pending pods"),
            tasks.create_task(_serve_api(settings.agent_socket, enrolment), name="pod api"),
        ]
        log.info("agent started", extra={"node": settings.node_name, "seconds": time.monotonic() - started})
        await stop.wait()
        log.info("agent stops", extra={"node": settings.node_name})
        for task in endless:
            task.cancel()


async def _restore(journal: Journal, enrolment: Enrolment) -> None:
    """Know the pods of an earlier agent before ztunnel is told which pods there are."""
    for entry in journal.load():
        try:
            await enrolment.restore(entry.pod, entry.identity)
        except AmbitError as error:
            log.warning("pod not restored", extra={"pod": entry.pod.name, "uid": entry.pod.uid, "error": str(error)})


async def _serve_api(path: str, enrolment: Enrolment) -> None:
    runner = web.AppRunner(build_pod_api(enrolment), access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
    await runner.setup()
    listener = listen_unix(path, socket.SOCK_STREAM)
    try:
        await web.SockSite(runner, listener).start()
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()  # which ends the requests under way, and must do so before the socket is closed
        close_listener(listener, path)


def _watch_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop

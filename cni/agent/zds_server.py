"""The socket at which ztunnels connect, and the choice among those that have: Add to the newest, Del to all.

During an upgrade the old ztunnel still serves its connections while the new one takes the pods over; then both are
here. Source: facts on the CNI, 5.
"""

import asyncio
import logging
import socket
from dataclasses import dataclass

from cni.agent.unix_sockets import close_listener, listen_unix
from cni.agent.zds_connection import (
    Pods,
    ZdsConnection,
    ZdsProtocolError,
    ZtunnelGoneError,
    ZtunnelSlowError,
    ZtunnelUnavailableError,
)

log = logging.getLogger(__name__)

# After an accept that failed, mostly for want of file descriptors: trying again at once would only fill the log.
_ACCEPT_PAUSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ZdsSettings:
    """path: where ztunnel connects; a stock one does so at the default.

    answer_seconds: deadline of each answer (facts on the CNI, 5).
    request_seconds: how long a pod's announcement waits behind others' before it is reported as pending.
    max_connections: the old and the new ztunnel, and room for mistakes.
    """

    path: str = "/var/run/ztunnel/ztunnel.sock"
    answer_seconds: float = 5.0
    request_seconds: float = 10.0
    max_connections: int = 8


class ZdsServer:
    """All connected ztunnels."""

    def __init__(self, settings: ZdsSettings) -> None:
        self._settings = settings
        self._connections: list[ZdsConnection] = []

    def count_ztunnels(self) -> int:
        """How many are connected and have said hello."""
        return len(self._connections)

    async def serve(self, pods: Pods) -> None:
        """Endless: listen, and talk to every ztunnel that connects. Cancelled, it closes all and removes the socket.

        Raises SocketPathError.
        """
        listener = listen_unix(self._settings.path, socket.SOCK_SEQPACKET)
        places = asyncio.Semaphore(self._settings.max_connections)
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    await places.acquire()
                    connected = await _accept(listener)
                    task = tasks.create_task(self._talk(connected, pods), name="ztunnel")
                    task.add_done_callback(lambda _: places.release())
        finally:
            close_listener(listener, self._settings.path)

    async def add(self, uid: str) -> None:
        """Hand a pod to the newest ztunnel. Raises TransientError: there is none, it refused, it takes too long."""
        if not self._connections:
            raise ZtunnelUnavailableError(f"no ztunnel is connected at {self._settings.path}: is it running?")
        try:
            async with asyncio.timeout(self._settings.request_seconds):
                await self._connections[-1].add(uid)
        except TimeoutError:
            raise ZtunnelUnavailableError(f"no answer within {self._settings.request_seconds} s") from None

    async def remove(self, uid: str) -> None:
        """Tell every ztunnel that a pod is gone. One that cannot be told learns it when it connects again."""
        async with asyncio.TaskGroup() as tasks:
            for connection in tuple(self._connections):
                tasks.create_task(self._remove(connection, uid), name="ztunnel remove")

    async def _remove(self, connection: ZdsConnection, uid: str) -> None:
        try:
            async with asyncio.timeout(self._settings.request_seconds):
                await connection.remove(uid)
        except (TimeoutError, ZtunnelUnavailableError) as error:
            log.warning("ztunnel could not be told of a pod's end", extra={"uid": uid, "error": str(error)})

    async def _talk(self, connected: socket.socket, pods: Pods) -> None:
        connection = ZdsConnection(connected, pods, self._settings.answer_seconds)
        try:
            await connection.run(lambda: self._welcome(connection))
        except* ZtunnelGoneError:
            log.info("ztunnel disconnected")
        except* (ZdsProtocolError, ZtunnelSlowError, OSError) as group:
            log.warning("ztunnel dropped", extra={"error": "; ".join(str(error) for error in group.exceptions)})
        finally:
            if connection in self._connections:
                self._connections.remove(connection)

    def _welcome(self, connection: ZdsConnection) -> None:
        self._connections.append(connection)
        log.info("ztunnel connected", extra={"ztunnels": len(self._connections)})


async def _accept(listener: socket.socket) -> socket.socket:
    """The next connection. Whatever is wrong with one, or with the process for the moment, does not end the server."""
    while True:
        try:
            connected, _ = await asyncio.get_running_loop().sock_accept(listener)
        except OSError as error:
            log.error("ztunnel not accepted", extra={"error": str(error)})
            await asyncio.sleep(_ACCEPT_PAUSE_SECONDS)
        else:
            return connected

"""A ZDS client that plays ztunnel: it speaks the real protocol over the real socket, and answers as a test tells it."""

import asyncio
import os
import socket
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from mesh.wire import zds_pb2

_MAX_PACKET_BYTES = 1024
# Nothing here takes long; a test that waits this long has failed.
_DEADLINE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Request:
    """What the agent sent: its kind, the pod, and the inode of the namespace that came along."""

    kind: str
    uid: str = ""
    pod: tuple[str, str, str] = ("", "", "")
    inode: int | None = None


class ZdsClient:
    """One connection to the agent."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    @classmethod
    async def connect(cls, path: str, hello: bytes | None = None) -> Self:
        """Connect and say `hello`; version 1 unless told otherwise."""
        client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, path)
        connected = cls(client)
        await connected.send(zds_pb2.ZdsHello(version=zds_pb2.V1).SerializeToString() if hello is None else hello)
        return connected

    async def send(self, packet: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._socket, packet)

    async def acknowledge(self, error: str = "") -> None:
        await self.send(zds_pb2.WorkloadResponse(ack=zds_pb2.Ack(error=error)).SerializeToString())

    async def receive(self) -> Request | None:
        """The next request; None when the agent has closed the connection."""
        async with asyncio.timeout(_DEADLINE_SECONDS):
            await self._wait_until_readable()
        packet, descriptors, flags, _ = socket.recv_fds(self._socket, _MAX_PACKET_BYTES, 4)
        assert not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)
        if not packet:
            return None
        return _parse(zds_pb2.WorkloadRequest.FromString(packet), descriptors)

    async def expect(self, error: str = "") -> Request:
        """The next request, acknowledged."""
        request = await self.receive()
        assert request is not None, "the agent closed the connection"
        await self.acknowledge(error)
        return request

    async def expect_snapshot(self) -> list[Request]:
        """Acknowledge everything up to the end of the snapshot; return the pods in it."""
        pods: list[Request] = []
        while (request := await self.expect()).kind != "snapshot_sent":
            pods.append(request)
        return pods

    def has_request(self) -> bool:
        """Whether a request has arrived that nobody has read."""
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return False

    def close(self) -> None:
        self._socket.close()

    async def _wait_until_readable(self) -> None:
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self._socket, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(self._socket)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _parse(message: zds_pb2.WorkloadRequest, descriptors: list[int]) -> Request:
    inodes = [os.fstat(descriptor).st_ino for descriptor in descriptors]
    for descriptor in descriptors:
        os.close(descriptor)
    kind = message.WhichOneof("payload")
    assert kind is not None
    if kind == "add":
        assert len(inodes) == 1, "an Add carries exactly one namespace"
        info = message.add.workload_info
        return Request(kind, message.add.uid, (info.name, info.namespace, info.service_account), inodes[0])
    assert not inodes, f"a {kind} carries no namespace"
    return Request(kind, getattr(message, "del").uid if kind == "del" else "")

"""One ztunnel's connection: the dialogue of ZDS, from its hello to its end.

    ztunnel: hello            agent: add A (+ its namespace)     ztunnel: ack
                              add B (+ its namespace)                     ack
                              snapshot sent                               ack
                              add or del, whenever there is one           ack

One request is under way at a time, because an ack says only "the last one". So a ztunnel that does not answer in time
is disconnected: its late ack would be taken for the next one's. It connects again and gets the snapshot anew; meanwhile
its pods work on. Source: facts on the CNI, 5; facts on ztunnel, 6.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from google.protobuf.message import DecodeError

from cni.agent.enrolment import KnownPod
from mesh.kit.errors import AmbitError, TransientError
from mesh.wire import zds_pb2

log = logging.getLogger(__name__)

# One packet; a stock ztunnel and a stock agent read no more than this (facts on the CNI, 5).
MAX_PACKET_BYTES = 1024
# Requests that wait for their turn. A node has 110 pods by default, and all may come at once after a restart.
MAX_WAITING_REQUESTS = 256


class ZtunnelUnavailableError(TransientError):
    """There is no ztunnel that could take a pod now, or it went away, or has too much to do."""

    reason = "ztunnel_unavailable"


class ZtunnelRefusedPodError(TransientError):
    """A ztunnel could not set up its listeners in a pod. It may later."""

    reason = "ztunnel_refused_pod"


class ZdsProtocolError(AmbitError):
    """A ztunnel said something that the protocol does not have here."""

    reason = "zds_protocol"


class ZtunnelSlowError(AmbitError):
    """A ztunnel did not say hello, or did not answer, in time."""

    reason = "ztunnel_slow"


class ZtunnelGoneError(AmbitError):
    """A ztunnel closed its connection: it stopped, or was killed."""

    reason = "ztunnel_gone"


class Pods(Protocol):
    """The pods that ztunnel has to know, and what it says about them."""

    def list_captured(self) -> list[str]: ...
    def find_captured(self, uid: str) -> KnownPod | None: ...
    def record_answer(self, offered: KnownPod, error: str) -> None: ...


@dataclass(slots=True, eq=False)
class _Request:
    """Something to tell ztunnel about a pod; `answer` becomes its ack's error, empty when it accepts."""

    uid: str
    is_removal: bool
    answer: asyncio.Future[str] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class ZdsConnection:
    """The agent's end of one ztunnel's connection."""

    def __init__(self, connected: socket.socket, pods: Pods, answer_seconds: float) -> None:
        """Take over `connected`, a non-blocking SOCK_SEQPACKET. `answer_seconds`: deadline of hello and each ack."""
        self._socket = connected
        self._pods = pods
        self._answer_seconds = answer_seconds
        self._requests: asyncio.Queue[_Request] = asyncio.Queue(MAX_WAITING_REQUESTS)
        self._awaited: asyncio.Future[bytes] | None = None

    async def run(self, on_hello: Callable[[], None]) -> None:
        """Hold the dialogue until it ends; close the connection then.

        Calls `on_hello` when the peer has shown that it is a ztunnel: from then on requests may be made. Raises an
        exception group of the reasons why it ended.
        """
        self._awaited = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._receive(), name="zds receive")
                tasks.create_task(self._converse(self._awaited, on_hello), name="zds converse")
        finally:
            self._close()

    async def add(self, uid: str) -> None:
        """Hand over a pod; return once it is accepted. Raises TransientError when it is not."""
        error = await self._enqueue(_Request(uid, is_removal=False))
        if error:
            raise ZtunnelRefusedPodError(f"ztunnel refused it: {error}")

    async def remove(self, uid: str) -> None:
        """Tell that a pod is gone; return once that is acknowledged. Raises TransientError when it cannot be."""
        error = await self._enqueue(_Request(uid, is_removal=True))
        if error:
            log.warning("ztunnel did not let go of a pod", extra={"uid": uid, "error": error})

    async def _enqueue(self, request: _Request) -> str:
        try:
            self._requests.put_nowait(request)
        except asyncio.QueueFull:
            raise ZtunnelUnavailableError(f"ztunnel has {MAX_WAITING_REQUESTS} pods waiting") from None
        return await request.answer

    # -------------------------------------------------------------------------------------------------- the dialogue

    async def _converse(self, hello: asyncio.Future[bytes], on_hello: Callable[[], None]) -> None:
        check_hello(await self._await(hello, "hello"))
        uids = self._pods.list_captured()
        on_hello()  # with no await in between: a pod is either in this list, or is queued behind it
        for uid in uids:
            await self._send_add(uid)
        await self._exchange(zds_pb2.WorkloadRequest(snapshot_sent=zds_pb2.SnapshotSent()))
        log.info("ztunnel has its pods", extra={"pods": len(uids)})
        while True:
            await self._serve(await self._requests.get())

    async def _serve(self, request: _Request) -> None:
        try:
            answer = await (self._send_del(request.uid) if request.is_removal else self._send_add(request.uid))
        except BaseException:
            _fail(request)
            raise
        if not request.answer.done():  # whoever asked may have given up waiting
            request.answer.set_result(answer)

    async def _send_add(self, uid: str) -> str:
        known = self._pods.find_captured(uid)
        if known is None:
            return ""  # withdrawn meanwhile
        pod = known.announcement
        info = zds_pb2.WorkloadInfo(name=pod.name, namespace=pod.namespace, service_account=pod.service_account)
        message = zds_pb2.WorkloadRequest(add=zds_pb2.AddWorkload(uid=uid, workload_info=info))
        with known.namespace.duplicate() as namespace:  # ours stays the same namespace while we wait
            error = await self._exchange(message, (namespace.fileno(),))
        self._pods.record_answer(known, error)
        return error

    async def _send_del(self, uid: str) -> str:
        message = zds_pb2.WorkloadRequest()
        getattr(message, "del").uid = uid  # a field whose name is a word of Python
        return await self._exchange(message)

    async def _exchange(self, message: zds_pb2.WorkloadRequest, descriptors: Sequence[int] = ()) -> str:
        """Send a request and wait for its ack; return the ack's error."""
        self._awaited = awaited = asyncio.get_running_loop().create_future()
        await self._send(message.SerializeToString(), descriptors)
        return parse_ack(await self._await(awaited, message.WhichOneof("payload") or ""))

    async def _await(self, packet: asyncio.Future[bytes], what: str) -> bytes:
        try:
            async with asyncio.timeout(self._answer_seconds):
                return await packet
        except TimeoutError:
            raise ZtunnelSlowError(f"ztunnel: no answer to {what!r} within {self._answer_seconds} s") from None

    # ---------------------------------------------------------------------------------------------------- the socket

    async def _receive(self) -> None:
        """Hand each packet to whoever waits for one. Nobody waiting is an error; so the end is noticed at once."""
        loop = asyncio.get_running_loop()
        while packet := await loop.sock_recv(self._socket, MAX_PACKET_BYTES + 1):
            if len(packet) > MAX_PACKET_BYTES:
                raise ZdsProtocolError(f"ztunnel sent a packet of more than {MAX_PACKET_BYTES} bytes")
            if self._awaited is None or self._awaited.done():
                raise ZdsProtocolError("ztunnel sent a packet that nothing had asked for")
            self._awaited.set_result(packet)
        raise ZtunnelGoneError("ztunnel closed the connection")

    async def _send(self, packet: bytes, descriptors: Sequence[int]) -> None:
        while True:
            try:
                socket.send_fds(self._socket, [packet], list(descriptors))
            except BlockingIOError:
                await self._wait_until_writable()
            else:
                return

    async def _wait_until_writable(self) -> None:
        loop = asyncio.get_running_loop()
        writable: asyncio.Future[None] = loop.create_future()
        loop.add_writer(self._socket, _settle, writable)
        try:
            async with asyncio.timeout(self._answer_seconds):
                await writable
        except TimeoutError:
            raise ZtunnelSlowError(f"ztunnel: took no packet within {self._answer_seconds} s") from None
        finally:
            loop.remove_writer(self._socket)

    def _close(self) -> None:
        self._socket.close()
        while not self._requests.empty():
            _fail(self._requests.get_nowait())


def _settle(writable: asyncio.Future[None]) -> None:
    if not writable.done():
        writable.set_result(None)


def _fail(request: _Request) -> None:
    if not request.answer.done():
        request.answer.set_exception(ZtunnelUnavailableError("ztunnel went away before it answered"))


def check_hello(packet: bytes) -> None:
    """Check a ztunnel's first packet. Raises ZdsProtocolError."""
    try:
        hello = zds_pb2.ZdsHello.FromString(packet)
    except DecodeError as error:
        raise ZdsProtocolError("the peer's first packet is not a hello: is it a ztunnel?") from error
    if hello.version != zds_pb2.V1:
        raise ZdsProtocolError(f"ztunnel speaks version {hello.version} of ZDS; this agent speaks 1 only")


def parse_ack(packet: bytes) -> str:
    """The error in a ztunnel's answer, empty when it accepts. Raises ZdsProtocolError."""
    try:
        response = zds_pb2.WorkloadResponse.FromString(packet)
    except DecodeError as error:
        raise ZdsProtocolError("ztunnel's answer cannot be decoded") from error
    if response.WhichOneof("payload") != "ack":
        raise ZdsProtocolError("ztunnel's answer is no acknowledgement")
    return response.ack.error

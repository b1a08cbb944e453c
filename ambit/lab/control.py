"""The wire between a lab's clients and its supervisor: JSON messages on a unix stream socket, descriptors beside them.

A message is its length (4 bytes, big-endian) and a JSON object. A client sends one request, `{"operation": ..., ...}`,
with the descriptors it lends (SCM_RIGHTS). The supervisor answers with any number of `{"progress": text}` or
`{"event": name}`, then one `{"result": ...}` or `{"error": {"reason", "message"}}`. A client that hangs up cancels its
request.
"""

import asyncio
import json
import os
import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mesh.kit.errors import AmbitError

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
Message = dict[str, Json]

MAX_MESSAGE_BYTES = 64 << 20
"""A directory of manifests travels as one message; more than this is a mistake."""

MAX_DESCRIPTORS = 3
"""stdin, stdout and stderr of an exec."""

_LENGTH = struct.Struct(">I")


class BrokenConversationError(AmbitError):
    """The other side hung up or does not speak this protocol."""

    reason = "lab_unreachable"


@dataclass(slots=True)
class Received:
    """One message and the descriptors that came with it, now the receiver's to close."""

    message: Message
    descriptors: list[int] = field(default_factory=list)

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors.clear()


def encode(message: Message) -> bytes:
    """The message's bytes on the wire; raises BrokenConversationError when it is too large."""
    body = json.dumps(message, separators=(",", ":")).encode()
    if len(body) > MAX_MESSAGE_BYTES:
        raise BrokenConversationError(f"a message of {len(body)} bytes is too large (limit {MAX_MESSAGE_BYTES})")
    return _LENGTH.pack(len(body)) + body


def send(connection: socket.socket, message: Message, descriptors: Iterable[int] = ()) -> None:
    """Send a message from a client (blocking); raises BrokenConversationError."""
    data = encode(message)
    try:
        sent = socket.send_fds(connection, [data], list(descriptors))
        # Not when nothing is left: the answer may be here already, and the other end closed.
        if sent < len(data):
            connection.sendall(data[sent:])
    except OSError as error:
        raise BrokenConversationError(f"the lab's supervisor hung up: {error}") from error


def receive(connection: socket.socket) -> Message | None:
    """Receive a message in a client (blocking), None at the end; raises BrokenConversationError, TimeoutError."""
    head = _receive_exactly(connection, _LENGTH.size)
    if not head:
        return None
    body = _receive_exactly(connection, _checked_length(head))
    return _decode(body)


class Conversation:
    """The supervisor's end of one connection."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._sending = asyncio.Lock()

    async def receive(self) -> Received | None:
        """The next message, None when the client has hung up; raises BrokenConversationError."""
        descriptors: list[int] = []
        try:
            head = await self._receive_exactly(_LENGTH.size, descriptors)
            if not head:
                return None
            body = await self._receive_exactly(_checked_length(head), descriptors)
            return Received(_decode(body), descriptors)
        except BaseException:
            Received({}, descriptors).close()
            raise

    async def send(self, message: Message) -> None:
        """Send a message; a client that has hung up raises BrokenConversationError."""
        async with self._sending:
            try:
                await asyncio.get_running_loop().sock_sendall(self._connection, encode(message))
            except OSError as error:
                raise BrokenConversationError(f"the client hung up: {error}") from error

    async def wait_for_hang_up(self) -> None:
        """Return when the client has closed its end (it must send nothing meanwhile)."""
        try:
            while await self._receive_some(1, []):
                pass
        except OSError:
            pass

    def close(self) -> None:
        self._connection.close()

    async def _receive_exactly(self, count: int, descriptors: list[int]) -> bytes:
        parts: list[bytes] = []
        missing = count
        while missing:
            try:
                part = await self._receive_some(missing, descriptors)
            except OSError as error:
                raise BrokenConversationError(f"the client hung up: {error}") from error
            if not part:
                if parts:
                    raise BrokenConversationError("the client hung up in the middle of a message")
                return b""
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    async def _receive_some(self, count: int, descriptors: list[int]) -> bytes:
        while True:
            try:
                data, lent, _, _ = socket.recv_fds(
                    self._connection, min(count, 1 << 16), MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                await _readable(self._connection)
                continue
            descriptors.extend(lent)
            return data


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(connection, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(connection)


def _receive_exactly(connection: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        try:
            part = connection.recv(count - len(data))
        except TimeoutError:
            raise
        except OSError as error:
            raise BrokenConversationError(f"the lab's supervisor hung up: {error}") from error
        if not part:
            if data:
                raise BrokenConversationError("the lab's supervisor hung up in the middle of a message")
            return b""
        data += part
    return bytes(data)


def _checked_length(head: bytes) -> int:
    (length,) = _LENGTH.unpack(head)
    if length > MAX_MESSAGE_BYTES:
        raise BrokenConversationError(f"a message of {length} bytes is announced (limit {MAX_MESSAGE_BYTES})")
    return int(length)


def _decode(body: Sequence[int] | bytes) -> Message:
    try:
        message = json.loads(bytes(body))
    except ValueError as error:
        raise BrokenConversationError("what came is not JSON") from error
    if not isinstance(message, dict):
        raise BrokenConversationError("a message must be a JSON object")
    return message

"""A gRPC call, as those see it who serve it. Messages are raw bytes. Used from one event loop only."""

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Sequence
from enum import IntEnum
from typing import NoReturn

from dataplane import GrpcCall
from mesh.kit.errors import TransientError

log = logging.getLogger(__name__)

# A client whose messages come faster than they are looked at lets others have their turn after so many.
MAX_MESSAGES_AT_ONCE = 16


class StatusCode(IntEnum):
    """What a call ends with (gRPC, "Status codes"), as far as it is used here."""

    OK = 0
    INVALID_ARGUMENT = 3
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class CallEndedError(TransientError):
    """The client has ended the call, or its connection has."""

    reason = "call_ended"


class AbortedError(Exception):
    """The handler has ended its call with a status; it unwinds, and means nothing else."""


class Call:
    """One call. Its handler's task is cancelled when the client ends it.

    Whoever sets `on_message` is given the messages that way, one by one, and None when the client has ended its side;
    else they are for `read`. What `on_message` raises ends the call, as a bug of ours.
    """

    def __init__(self, native: GrpcCall, send_all: "SendAll") -> None:
        self.native = native
        self.path = native.path
        self.peer = native.peer
        self.send_all = send_all
        self.on_message: Callable[[bytes | None], None] | None = None
        self.is_writable = True
        self._has_ended_side = False
        self._reading: asyncio.Future[None] | None = None
        self._writing: asyncio.Future[None] | None = None

    def find_header(self, name: str) -> str | None:
        """The first value of a header that is text; `name` is lower-case."""
        return next((value for key, value in self.native.metadata if key == name), None)

    async def read(self) -> bytes | None:
        """The next message; None when the client has ended its side."""
        while (message := self.native.take()) is None:
            if self.native.is_at_end:
                return None
            self._reading = asyncio.get_running_loop().create_future()
            await self._reading
        return message

    async def write(self, parts: Sequence[bytes]) -> None:
        """Send a message of these parts; returns when its bytes are on their way. Raises CallEndedError."""
        try:
            self.is_writable = self.native.send(parts)
        except TransientError as error:
            raise CallEndedError(str(error)) from error
        await self.wait_until_writable()

    async def wait_until_writable(self) -> None:
        """Wait until what was sent is on its way."""
        while not self.is_writable:
            self._writing = asyncio.get_running_loop().create_future()
            await self._writing

    def finish(self, code: StatusCode = StatusCode.OK, message: str = "") -> None:
        """End the call, after what was sent. The first status counts."""
        self.native.finish(code, message)

    def abort(self, code: StatusCode, message: str) -> NoReturn:
        """End the call with an error. Raises AbortedError, which ends its handler."""
        self.finish(code, message)
        raise AbortedError(message)

    def end_by_bug(self, error: Exception) -> None:
        """End the call with what its client cannot help."""
        log.error("call failed", extra={"path": self.path, "peer": self.peer}, exc_info=error)
        self.finish(StatusCode.INTERNAL, "internal error: the controller's log says more")

    def note_readable(self) -> None:
        """For the server: there is something to read."""
        _wake(self._reading)
        if self.on_message is None:
            return
        try:
            self._give_messages(self.on_message)
        except Exception as error:  # noqa: BLE001  # one call's bug must not end the others
            self.end_by_bug(error)

    def note_writable(self) -> None:
        """For the server: what was sent is on its way."""
        self.is_writable = True
        _wake(self._writing)

    def start_giving(self, on_message: Callable[[bytes | None], None]) -> None:
        """Give messages to `on_message`, those first that have come already."""
        self.on_message = on_message
        self._give_messages(on_message)

    def _give_messages(self, on_message: Callable[[bytes | None], None]) -> None:
        for _ in range(MAX_MESSAGES_AT_ONCE):
            message = self.native.take()
            if message is None:
                if self.native.is_at_end and not self._has_ended_side:
                    self._has_ended_side = True
                    on_message(None)
                return
            on_message(message)
        asyncio.get_running_loop().call_soon(self.note_readable)


SendAll = Callable[[Sequence[tuple[Call, Sequence[bytes]]]], None]
"""Sends messages, each to its call, all of one server; a call that has ended is passed over. Afterwards `is_writable`
says which of the calls have to wait."""

Handler = Callable[[Call], Awaitable[None]]
"""Serves one call. When it returns, the call ends well, if it has not ended before."""


def serve_one(handle: Callable[[bytes, Call], Awaitable[bytes]]) -> Handler:
    """A handler of a method with one message each way."""

    @functools.wraps(handle)
    async def serve(call: Call) -> None:
        request = await call.read()
        if request is None:
            call.abort(StatusCode.INTERNAL, "the call ended without a message")
        await call.write([await handle(request, call)])

    return serve


def _wake(future: "asyncio.Future[None] | None") -> None:
    if future is not None and not future.done():
        future.set_result(None)

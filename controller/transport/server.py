"""The server: listens, starts a task for each call, and tells calls what happened to them."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from controller.transport.calls import AbortedError, Call, CallEndedError, Handler
from dataplane import GrpcCall, GrpcIdentity, GrpcServer
from mesh.kit.errors import FatalError, TransientError


@dataclass(frozen=True, slots=True)
class TransportSettings:
    """How connections are carried. Times are in seconds.

    max_message_bytes    larger requests are refused
    keepalive            how often a client is asked whether it is there, and how long it may take to answer
    max_age              after about how long a connection's client is told to make a new one, and how long the calls
                         on it may go on; None: never
    threads              that carry connections
    """

    max_message_bytes: int
    keepalive: tuple[float, float] = (30.0, 10.0)
    max_age: tuple[float, float] | None = None
    threads: int = 1


class Server:
    """A gRPC server of these handlers, by path (`/package.Service/Method`)."""

    def __init__(self, handlers: Mapping[str, Handler], settings: TransportSettings) -> None:
        self._handlers = handlers
        self._native = GrpcServer(
            paths=list(handlers),
            max_message_bytes=settings.max_message_bytes,
            keepalive=settings.keepalive,
            max_age=settings.max_age,
            threads=settings.threads,
        )
        self._identity: GrpcIdentity | None = None
        self._calls: dict[int, tuple[Call, asyncio.Task[None]]] = {}

    def set_certificate(self, pair: tuple[bytes, bytes]) -> None:
        """Show this key and chain, in PEM, from the next handshake on. Raises InvalidInputError."""
        if self._identity is None:
            self._identity = GrpcIdentity(*pair)
        else:
            self._identity.replace(*pair)

    def listen(self, host: str, port: int) -> int:
        """Listen on an address: with TLS where there is a certificate. Gives the port. Raises FatalError."""
        try:
            return self._native.listen(host, port, self._identity)
        except TransientError as error:
            raise FatalError(f"{error}: is another controller running?") from error

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Serve calls for as long as the block runs. Whoever leaves it has called `stop`."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            loop.add_reader(self._native.fileno(), self._take_events, tasks)
            try:
                yield
            finally:
                loop.remove_reader(self._native.fileno())
                for _, task in self._calls.values():
                    task.cancel()

    async def stop(self, grace_seconds: float) -> None:
        """Tell clients to go elsewhere, and wait so long at most until the last has gone."""
        await asyncio.to_thread(self._native.close, grace_seconds)

    def send_all(self, messages: Sequence[tuple[Call, Sequence[bytes]]]) -> None:
        """See `calls.SendAll`."""
        results = self._native.send_all([(call.native, parts) for call, parts in messages])
        for (call, _), has_room in zip(messages, results, strict=True):
            if has_room is not None:
                call.is_writable = has_room

    def _take_events(self, tasks: asyncio.TaskGroup) -> None:
        opened, readable, writable, closed = self._native.take_events()
        for native in opened:
            self._open(native, tasks)
        for number in readable:
            self._calls[number][0].note_readable()
        for number in writable:
            self._calls[number][0].note_writable()
        for number in closed:
            _, task = self._calls.pop(number)
            task.cancel()

    def _open(self, native: GrpcCall, tasks: asyncio.TaskGroup) -> None:
        call = Call(native, self.send_all)
        task = tasks.create_task(self._run(call), name=f"{call.path} {call.peer}")
        self._calls[native.id] = call, task

    async def _run(self, call: Call) -> None:
        try:
            await self._handlers[call.path](call)
        except (AbortedError, CallEndedError):
            pass
        except Exception as error:  # noqa: BLE001  # one call's bug must not end the others
            call.end_by_bug(error)
        else:
            call.finish()

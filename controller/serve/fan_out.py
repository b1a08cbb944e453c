"""Who is sent what, and when: all clients that have something to be told are looked at together, once.

Whatever happens to a client (something was published, its answer came, a time is over) wakes it; on the next turn of
the loop all that are awake are asked for their responses, and these leave in one call of the transport. A client whose
turn takes longer has a task of its own for that: a large response waits for others, a client that is slow is waited
for, who knows its token has to be asked. Meanwhile it is left out here, so that it holds up nobody.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence

from controller.callers import Authentication, UnauthenticatedError, authenticate_node
from controller.metrics import ControllerMetrics, short_type
from controller.serve.forms import Form
from controller.serve.hub import Client, Hub
from controller.serve.session import ProtocolViolationError
from controller.serve.wire import DeltaResponse
from controller.transport.calls import Call
from mesh.kit.errors import AmbitError, TransientError

log = logging.getLogger(__name__)

# An agent that connects sends its first request in the same breath.
FIRST_REQUEST_SECONDS = 30.0
# From about half a megabyte on a response waits for its turn.
LARGE_RESPONSE_RESOURCES = 1_000


class ClosingError(TransientError):
    """The controller is about to end; clients go to another one, or wait for this one to come back."""

    reason = "closing"


class Stream:
    """One client's call, and where its sending stands. `header` is what proves its node.

    `end` ends the call, with an error or without; it is called once at most.
    """

    def __init__(
        self, client: Client, call: Call, form: Form, header: str | None, end: Callable[[AmbitError | None], None]
    ) -> None:
        self.client = client
        self.call = call
        self.form = form
        self.header = header
        self._end = end
        self.has_ended = False
        self.has_client_finished = False
        self.pending: DeltaResponse | None = None
        """What its task is to send first."""
        self.is_with_task = False
        self.task_turn = asyncio.Event()
        self.timer: asyncio.TimerHandle | None = None

    def end(self, error: AmbitError | None) -> None:
        """The call ends, if it has not."""
        if not self.has_ended:
            self.has_ended = True
            self._end(error)

    def leave_to_task(self, response: DeltaResponse | None = None) -> None:
        """Its task goes on: with this response, or with what is next."""
        self.pending = response
        self.is_with_task = True
        self.task_turn.set()


class FanOut:
    """Sends to all clients of one service. Used from one event loop only."""

    def __init__(self, hub: Hub, authentication: Authentication, metrics: ControllerMetrics) -> None:
        self._hub = hub
        self._authentication = authentication
        self._metrics = metrics
        self._awake: dict[Stream, None] = {}

    async def serve(self, stream: Stream) -> None:
        """Send to a client until its call ends, which cancels this. Raises what its token's check raises."""
        loop = asyncio.get_running_loop()
        stream.client.wake = lambda: self.wake(stream)
        stream.timer = loop.call_later(FIRST_REQUEST_SECONDS, self._check_first_request, stream)
        self.wake(stream)
        try:
            while True:
                await stream.task_turn.wait()
                stream.task_turn.clear()
                has_sent = await self._send_alone(stream)
                stream.is_with_task = False
                if has_sent:
                    self.wake(stream)
                elif stream.has_client_finished:
                    stream.end(None)
                else:
                    self._set_timer(stream, time.monotonic())
        finally:
            stream.has_ended = True
            if stream.timer is not None:
                stream.timer.cancel()

    def finish(self, stream: Stream) -> None:
        """The client has ended its side: it gets what there is for it now, and then the call ends."""
        stream.has_client_finished = True
        self.wake(stream)

    def wake(self, stream: Stream) -> None:
        """Look at this client on the next turn of the loop."""
        if not self._awake:
            asyncio.get_running_loop().call_soon(self._send_together)
        self._awake[stream] = None

    def _send_together(self) -> None:
        awake, self._awake = self._awake, {}
        messages: list[tuple[Call, Sequence[bytes]]] = []
        senders: list[Stream] = []
        sent = Counter[tuple[str, str]]()
        now = time.monotonic()
        for stream in awake:
            for response, parts in self._look_at(stream, now):
                messages.append((stream.call, parts))
                senders.append(stream)
                _count(sent, stream, response)
        if messages:
            senders[0].call.send_all(messages)  # that of their server: the clients of a service are all of one
            self._add(sent)
        for stream in senders:
            if not stream.call.is_writable and not stream.is_with_task:
                stream.leave_to_task()
        for stream in awake:
            if stream.has_client_finished and not stream.is_with_task:
                stream.end(None)

    def _look_at(self, stream: Stream, now: float) -> list[tuple[DeltaResponse, Sequence[bytes]]]:
        try:
            return [(response, stream.form.write(response)) for response in self._list_responses(stream, now)]
        except Exception as error:  # noqa: BLE001  # one client's bug must not be the others'
            stream.has_ended = True
            stream.call.end_by_bug(error)
            return []

    def _list_responses(self, stream: Stream, now: float) -> list[DeltaResponse]:
        """What is for this client at once. What is not, is left to its task."""
        responses: list[DeltaResponse] = []
        if self._hub.is_closing:
            stream.end(ClosingError("the controller is stopping"))
        if stream.has_ended or stream.is_with_task:
            return responses
        session = stream.client.session
        while session.pending_count <= LARGE_RESPONSE_RESOURCES:
            response = session.next_response(self._hub.version, now)
            if response is None:
                self._set_timer(stream, now)
                return responses
            if self._authentication.recall(stream.header) != stream.client.node:  # it may have been withdrawn since
                stream.leave_to_task(response)
                return responses
            responses.append(response)
        stream.leave_to_task()
        return responses

    async def _send_alone(self, stream: Stream) -> bool:
        """Gives whether something was sent; where not, there is nothing to do until something wakes the client."""
        await stream.call.wait_until_writable()
        response, stream.pending = stream.pending, None
        if response is not None:
            await self._send(stream, response)
        elif stream.client.session.pending_count > LARGE_RESPONSE_RESOURCES:
            async with self._hub.turns.take():
                response = stream.client.session.next_response(self._hub.version, time.monotonic())
                if response is None:
                    return False
                await self._send(stream, response)
        return True

    async def _send(self, stream: Stream, response: DeltaResponse) -> None:
        if await authenticate_node(stream.header, self._authentication) != stream.client.node:
            raise UnauthenticatedError("the token is another node's now: come again")
        sent = Counter[tuple[str, str]]()
        _count(sent, stream, response)
        await stream.call.write(stream.form.write(response))
        self._add(sent)

    def _set_timer(self, stream: Stream, now: float) -> None:
        """Look again when something that was held back may go. A timer that comes too early sets the next one."""
        deadline = stream.client.session.next_deadline(now)
        if deadline is None or (stream.timer is not None and stream.timer.when() <= deadline):
            return
        if stream.timer is not None:
            stream.timer.cancel()
        stream.timer = asyncio.get_running_loop().call_at(deadline, self._note_time, stream)

    def _note_time(self, stream: Stream) -> None:
        stream.timer = None
        self.wake(stream)

    def _check_first_request(self, stream: Stream) -> None:
        stream.timer = None
        if stream.client.session.node is None:
            stream.end(ProtocolViolationError(f"no request in {FIRST_REQUEST_SECONDS} seconds"))
        else:
            self.wake(stream)

    def _add(self, sent: Counter[tuple[str, str]]) -> None:
        for (kind, what), count in sent.items():
            if what == _RESPONSES:
                self._metrics.pushes.add(count, type=kind)
            else:
                self._metrics.pushed_resources.add(count, type=kind, change=what)


_RESPONSES = "responses"


def _count(sent: Counter[tuple[str, str]], stream: Stream, response: DeltaResponse) -> None:
    kind = short_type(response.type_url)
    sent[kind, _RESPONSES] += 1
    sent[kind, "updated"] += response.count
    sent[kind, "removed"] += len(response.removed)
    if log.isEnabledFor(logging.DEBUG):
        fields = {"node": stream.client.node, "type": kind, "updated": response.count, "removed": len(response.removed)}
        log.debug("xds response sent", extra=fields)

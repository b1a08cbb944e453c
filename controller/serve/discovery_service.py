"""ADS over gRPC, in both forms: carries a session's messages, and nothing else.

One task reads, one writes; both end with the stream. The method takes and gives raw bytes, because responses are put
together from what was serialised before.
"""

import asyncio
import logging
import time

import grpc
import grpc.aio

from controller.callers import (
    LOCAL_NODE,
    Authenticate,
    AuthenticationUnavailableError,
    CallContext,
    UnauthenticatedError,
    authenticate_node,
)
from controller.metrics import ControllerMetrics, short_type
from controller.serve.forms import Form, open_delta, open_state
from controller.serve.hub import Client, Hub
from controller.serve.session import ProtocolViolationError, RequestOutcome
from controller.serve.subscriptions import TooManyNamesError
from controller.serve.wire import DeltaRequest, DeltaResponse
from mesh.kit.errors import (
    AmbitError,
    InvalidInputError,
    RefusedError,
    TransientError,
    UnknownSummaryError,
    list_errors,
)

log = logging.getLogger(__name__)

SERVICE_NAME = "envoy.service.discovery.v3.AggregatedDiscoveryService"
METHOD_NAME = "DeltaAggregatedResources"
STATE_METHOD_NAME = "StreamAggregatedResources"
# An agent that connects sends its first request in the same breath.
FIRST_REQUEST_SECONDS = 30.0
# From about half a megabyte on a response waits for its turn.
LARGE_RESPONSE_RESOURCES = 1_000


class WrongNodeError(RefusedError):
    """The caller says that it is another node than its token says."""

    reason = "wrong_node"


class ClosingError(TransientError):
    """The controller is about to end; clients go to another one, or wait for this one to come back."""

    reason = "closing"


_STATUS: dict[type[AmbitError], grpc.StatusCode] = {
    UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    WrongNodeError: grpc.StatusCode.PERMISSION_DENIED,
    ProtocolViolationError: grpc.StatusCode.INVALID_ARGUMENT,
    InvalidInputError: grpc.StatusCode.INVALID_ARGUMENT,
    TooManyNamesError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    AuthenticationUnavailableError: grpc.StatusCode.UNAVAILABLE,
    UnknownSummaryError: grpc.StatusCode.FAILED_PRECONDITION,
    ClosingError: grpc.StatusCode.UNAVAILABLE,
}


class DiscoveryService:
    """The AggregatedDiscoveryService. ztunnel uses the delta form, gRPC's own client the other, Envoy either."""

    def __init__(self, hub: Hub, authenticate: Authenticate, metrics: ControllerMetrics) -> None:
        self._hub = hub
        self._authenticate = authenticate
        self._metrics = metrics

    def build_handler(self) -> "grpc.GenericRpcHandler[bytes, bytes]":
        """What to add to a gRPC server."""
        methods = {
            METHOD_NAME: grpc.stream_stream_rpc_method_handler(self._serve_delta),
            STATE_METHOD_NAME: grpc.stream_stream_rpc_method_handler(self._serve_state),
        }
        return grpc.method_handlers_generic_handler(SERVICE_NAME, methods)

    async def _serve_delta(self, _requests: object, context: CallContext) -> None:
        await self._serve_stream(context, open_delta())

    async def _serve_state(self, _requests: object, context: CallContext) -> None:
        await self._serve_stream(context, open_state())

    async def _serve_stream(self, context: CallContext, form: Form) -> None:
        peer = context.peer()
        try:
            await self._converse(context, peer, form)
        except grpc.aio.InternalError:
            log.debug("xds client vanished while we were writing", extra={"peer": peer})
        except AmbitError as error:
            self._metrics.stream_failures.add(reason=error.reason)
            level = logging.INFO if isinstance(error, TransientError) else logging.WARNING
            log.log(level, "xds stream ended", extra={"peer": peer, "reason": error.reason, "error": error})
            await context.abort(_STATUS.get(type(error), grpc.StatusCode.INTERNAL), str(error))

    async def _converse(self, context: CallContext, peer: str, form: Form) -> None:
        node = await authenticate_node(context, self._authenticate)
        with self._hub.connect(node, peer, time.time(), tells_all=form.is_state) as client:
            log.info("xds client connected", extra={"node": node, "peer": peer})
            try:
                async with asyncio.TaskGroup() as tasks:
                    sender = tasks.create_task(self._send_all(client, context, form), name=f"xds send {node}")
                    await self._receive_all(client, context, form)
                    sender.cancel()
            except BaseExceptionGroup as group:
                for error in list_errors(group):
                    raise error from group
                raise
            finally:
                log.info("xds client disconnected", extra={"node": node, "peer": peer})

    async def _receive_all(self, client: Client, context: CallContext, form: Form) -> None:
        deadline: float | None = FIRST_REQUEST_SECONDS
        while True:
            try:
                async with asyncio.timeout(deadline):
                    data: object = await context.read()
            except TimeoutError as error:
                raise ProtocolViolationError(f"no request in {FIRST_REQUEST_SECONDS} seconds") from error
            if not isinstance(data, bytes):
                return  # grpc.aio.EOF: the client has closed its side
            deadline = None
            request = form.read(data)
            self._check_node(client, request)
            self._hub.prepare(client, request)
            outcome = client.session.receive(request, time.monotonic())
            self._note(client, request, outcome)
            client.wake.set()

    def _check_node(self, client: Client, request: DeltaRequest) -> None:
        if client.node != LOCAL_NODE and request.node is not None and request.node.node_name != client.node:
            raise WrongNodeError(
                f"node metadata says NODE_NAME {request.node.node_name!r}, the token is that of {client.node!r}"
            )

    async def _send_all(self, client: Client, context: CallContext, form: Form) -> None:
        while True:
            client.wake.clear()
            if self._hub.is_closing:
                raise ClosingError("the controller is stopping")
            if client.session.pending_count > LARGE_RESPONSE_RESOURCES:
                async with self._hub.turns.take():
                    has_sent = await self._send_next(client, context, form)
            else:
                has_sent = await self._send_next(client, context, form)
            if not has_sent:
                await self._wait(client)

    async def _send_next(self, client: Client, context: CallContext, form: Form) -> bool:
        """Gives whether there was something to send."""
        response = client.session.next_response(self._hub.version, time.monotonic())
        if response is None:
            return False
        if await authenticate_node(context, self._authenticate) != client.node:  # it may have been withdrawn since
            raise UnauthenticatedError("the token is another node's now: come again")
        await context.write(form.write(response))
        self._count(client, response)
        return True

    async def _wait(self, client: Client) -> None:
        now = time.monotonic()
        deadline = client.session.next_deadline(now)
        try:
            async with asyncio.timeout(None if deadline is None else deadline - now):
                await client.wake.wait()
        except TimeoutError:
            pass  # something that was held back may go now

    def _note(self, client: Client, request: DeltaRequest, outcome: RequestOutcome) -> None:
        kind = short_type(request.type_url)
        match outcome:
            case RequestOutcome.OPENED | RequestOutcome.RESUMED:
                known = len(request.initial_versions)
                has_summary = request.summary is not None
                fields = {
                    "node": client.node,
                    "type_url": request.type_url,
                    "already_known": known,
                    "sums_up": has_summary,
                }
                log.info("xds subscription opened", extra=fields)
                if request.type_url not in self._hub.tables:
                    log.warning("xds type is not served, answered as empty", extra=fields)
            case RequestOutcome.NACK:
                self._metrics.rejects.add(type=kind)
                fields = {"node": client.node, "type_url": request.type_url, "error": request.error}
                log.warning("xds response refused by the client", extra=fields)
            case RequestOutcome.STALE:
                self._metrics.expired_nonces.add(type=kind)
            case RequestOutcome.ACK | RequestOutcome.CHANGED:
                pass
        if withheld := client.session.find_withheld(request):
            gateway = client.session.node.gateway if client.session.node else ""
            fields = {"node": client.node, "gateway": gateway, "names": withheld}
            log.warning(
                "xds client asks for certificates that are not there, or not for this Gateway here", extra=fields
            )

    def _count(self, client: Client, response: DeltaResponse) -> None:
        kind = short_type(response.type_url)
        self._metrics.pushes.add(type=kind)
        self._metrics.pushed_resources.add(response.count, type=kind, change="updated")
        self._metrics.pushed_resources.add(len(response.removed), type=kind, change="removed")
        fields = {
            "node": client.node,
            "type": kind,
            "updated": response.count,
            "removed": len(response.removed),
        }
        log.debug("xds response sent", extra=fields)

"""ADS over gRPC, in both forms: takes the clients' messages, and ends their calls.

Messages are raw bytes, because responses are put together from what was serialised before. What goes out is
`controller.serve.fan_out`'s.
"""

import logging
import time
from functools import partial

from controller.callers import (
    HEADER,
    LOCAL_NODE,
    Authentication,
    AuthenticationUnavailableError,
    UnauthenticatedError,
    authenticate_node,
)
from controller.metrics import ControllerMetrics, short_type
from controller.serve.fan_out import ClosingError, FanOut, Stream
from controller.serve.forms import Form, open_delta, open_state
from controller.serve.hub import Client, Hub
from controller.serve.session import ProtocolViolationError, RequestOutcome
from controller.serve.subscriptions import TooManyNamesError
from controller.serve.wire import DeltaRequest
from controller.transport.calls import Call, CallEndedError, Handler, StatusCode
from mesh.kit.errors import (
    AmbitError,
    InvalidInputError,
    RefusedError,
    TransientError,
    UnknownSummaryError,
)

log = logging.getLogger(__name__)

SERVICE_NAME = "envoy.service.discovery.v3.AggregatedDiscoveryService"
METHOD_NAME = "DeltaAggregatedResources"
STATE_METHOD_NAME = "StreamAggregatedResources"


class WrongNodeError(RefusedError):
    """The caller says that it is another node than its token says."""

    reason = "wrong_node"


_STATUS: dict[type[AmbitError], StatusCode] = {
    UnauthenticatedError: StatusCode.UNAUTHENTICATED,
    WrongNodeError: StatusCode.PERMISSION_DENIED,
    ProtocolViolationError: StatusCode.INVALID_ARGUMENT,
    InvalidInputError: StatusCode.INVALID_ARGUMENT,
    TooManyNamesError: StatusCode.RESOURCE_EXHAUSTED,
    AuthenticationUnavailableError: StatusCode.UNAVAILABLE,
    UnknownSummaryError: StatusCode.FAILED_PRECONDITION,
    ClosingError: StatusCode.UNAVAILABLE,
}


class DiscoveryService:
    """The AggregatedDiscoveryService. ztunnel uses the delta form, gRPC's own client the other, Envoy either."""

    def __init__(self, hub: Hub, authentication: Authentication, metrics: ControllerMetrics) -> None:
        self._hub = hub
        self._authentication = authentication
        self._metrics = metrics
        self._fan_out = FanOut(hub, authentication, metrics)

    def build_handlers(self) -> dict[str, Handler]:
        """What a gRPC server is to serve: one server, because what goes out goes out together."""
        return {
            f"/{SERVICE_NAME}/{METHOD_NAME}": self._serve_delta,
            f"/{SERVICE_NAME}/{STATE_METHOD_NAME}": self._serve_state,
        }

    async def _serve_delta(self, call: Call) -> None:
        await self._serve(call, open_delta())

    async def _serve_state(self, call: Call) -> None:
        await self._serve(call, open_state())

    async def _serve(self, call: Call, form: Form) -> None:
        try:
            await self._converse(call, form)
        except CallEndedError:
            log.debug("xds client vanished while we were writing", extra={"peer": call.peer})
        except AmbitError as error:
            self._end(call, error)

    def _end(self, call: Call, error: AmbitError | None) -> None:
        if error is None:
            call.finish()
            return
        self._metrics.stream_failures.add(reason=error.reason)
        level = logging.INFO if isinstance(error, TransientError) else logging.WARNING
        log.log(level, "xds stream ended", extra={"peer": call.peer, "reason": error.reason, "error": error})
        call.finish(_STATUS.get(type(error), StatusCode.INTERNAL), str(error))

    async def _converse(self, call: Call, form: Form) -> None:
        header = call.find_header(HEADER)
        node = await authenticate_node(header, self._authentication)
        with self._hub.connect(node, call.peer, time.time(), tells_all=form.is_state) as client:
            log.info("xds client connected", extra={"node": node, "peer": call.peer})
            stream = Stream(client, call, form, header, partial(self._end, call))
            try:
                call.start_giving(partial(self._receive, stream))
                await self._fan_out.serve(stream)
            finally:
                log.info("xds client disconnected", extra={"node": node, "peer": call.peer})

    def _receive(self, stream: Stream, data: bytes | None) -> None:
        if data is None:
            self._fan_out.finish(stream)
        if stream.has_ended or data is None:
            return
        client = stream.client
        try:
            request = stream.form.read(data)
            self._check_node(client, request)
            self._hub.prepare(client, request)
            outcome = client.session.receive(request, time.monotonic())
            self._note(client, request, outcome)
        except AmbitError as error:
            stream.end(error)
        else:
            self._fan_out.wake(stream)

    def _check_node(self, client: Client, request: DeltaRequest) -> None:
        if client.node != LOCAL_NODE and request.node is not None and request.node.node_name != client.node:
            raise WrongNodeError(
                f"node metadata says NODE_NAME {request.node.node_name!r}, the token is that of {client.node!r}"
            )

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

"""The certificate call of Istio's wire (istio.v1.auth.IstioCertificateService): who asks, for whom, and the answer."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from google.protobuf.message import DecodeError

from controller.authority.certificate_authority import MAX_LIFETIME, CertificateAuthority, InvalidLifetimeError
from controller.authority.certificate_requests import parse_request
from controller.authority.node_authorization import Refusal, decide_impersonation
from controller.callers import HEADER, Authentication, UnauthenticatedError, authenticate_node
from controller.metrics import ControllerMetrics
from controller.snapshot import Snapshot
from controller.transport.calls import Call, Handler, StatusCode, serve_one
from mesh.identity import InvalidIdentityError, SpiffeIdentity
from mesh.kit.errors import AmbitError, InvalidInputError, RefusedError, TransientError
from mesh.wire.citadel_pb2 import IstioCertificateRequest, IstioCertificateResponse

log = logging.getLogger(__name__)

SERVICE_NAME = "istio.v1.auth.IstioCertificateService"
METHOD_NAME = "CreateCertificate"
IDENTITY_FIELD = "ImpersonatedIdentity"


class ImpersonationRefusedError(RefusedError):
    """A node asked for an identity that it may not have. Its `reason` is the refusal's."""

    def __init__(self, refusal: Refusal, node: str, identity: SpiffeIdentity) -> None:
        super().__init__(f"{node} may not have {identity}: {refusal.message}")
        self.reason = refusal.reason


@dataclass(frozen=True, slots=True)
class Signing:
    """What the service needs: the authority, the present snapshot, the clock, who a token is, and the trust domain."""

    authority: CertificateAuthority
    read_snapshot: Callable[[], Snapshot]
    read_clock: Callable[[], datetime]
    authentication: Authentication
    trust_domain: str


class SigningService:
    """Issues certificates to nodes' agents, on behalf of the pods on their node."""

    def __init__(self, signing: Signing, metrics: ControllerMetrics) -> None:
        self._signing = signing
        self._metrics = metrics

    def build_handlers(self) -> dict[str, Handler]:
        """What a gRPC server is to serve."""
        return {f"/{SERVICE_NAME}/{METHOD_NAME}": serve_one(self._create_certificate)}

    async def _create_certificate(self, data: bytes, call: Call) -> bytes:
        self._metrics.csrs.add()
        node = identity = ""
        try:
            node = await authenticate_node(call.find_header(HEADER), self._signing.authentication)
            request = _parse_message(data)
            identity = request.metadata.fields[IDENTITY_FIELD].string_value
            chain = self._sign(request, node, identity)
        except AmbitError as error:
            fields = {"node": node, "identity": identity, "reason": error.reason, "error": error}
            log.warning("certificate refused", extra={**fields, "peer": call.peer})
            self._count_refusal(error)
            call.abort(_find_status(error), str(error))
        log.info("certificate issued", extra={"node": node, "identity": identity})
        self._metrics.issued.add()
        return IstioCertificateResponse(cert_chain=chain).SerializeToString()

    def _sign(self, request: IstioCertificateRequest, node: str, uri: str) -> list[str]:
        identity = SpiffeIdentity.parse(uri)
        decision = decide_impersonation(self._signing.read_snapshot(), node, identity, self._signing.trust_domain)
        if isinstance(decision, Refusal):
            raise ImpersonationRefusedError(decision, node, identity)
        key = parse_request(request.csr)
        lifetime = _parse_lifetime(request.validity_duration)
        return list(self._signing.authority.sign_workload(key, identity, lifetime, self._signing.read_clock()))

    def _count_refusal(self, error: AmbitError) -> None:
        if isinstance(error, UnauthenticatedError):
            self._metrics.authentication_failures.add()
        self._metrics.csr_refusals.add(reason=error.reason)


def _parse_lifetime(seconds: int) -> timedelta:
    """An int64 from the wire can be more than a timedelta holds."""
    if seconds > MAX_LIFETIME.total_seconds():
        raise InvalidLifetimeError(f"{seconds} seconds were asked for; at most {MAX_LIFETIME.days} days are given")
    return timedelta(seconds=max(seconds, 0))


def _parse_message(data: bytes) -> IstioCertificateRequest:
    try:
        return IstioCertificateRequest.FromString(data)
    except DecodeError as error:
        raise InvalidInputError("not an IstioCertificateRequest") from error


def _find_status(error: AmbitError) -> StatusCode:
    if isinstance(error, TransientError):
        return StatusCode.UNAVAILABLE
    if isinstance(error, UnauthenticatedError):
        return StatusCode.UNAUTHENTICATED
    if isinstance(error, InvalidIdentityError | InvalidInputError):
        return StatusCode.INVALID_ARGUMENT
    return StatusCode.PERMISSION_DENIED if isinstance(error, RefusedError) else StatusCode.INTERNAL

"""Istio's VirtualService: which requests to a host go where.

What is not carried out is refused by name. A route that took effect in part would send requests where nobody meant.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from controller.kinds.durations import Duration
from controller.kinds.meta import PortNumber, StrictModel, check_label, check_subdomain
from controller.kinds.networking import NetworkingObject
from controller.kinds.patterns import Regex
from controller.kinds.refusals import Unsupported
from controller.kinds.traffic import Percent, PortSelector, RuleHost, RuleScope, ServiceHost

MESH = "mesh"
"""The gateway that stands for all clients within the mesh."""
# gRPC's own, in the order of their numbers.
GrpcStatus = Literal[
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
]
GRPC_STATUSES: tuple[GrpcStatus, ...] = get_args(GrpcStatus)
# Of Envoy's router, HTTP and gRPC.
_RETRY_CONDITIONS = (
    *("5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "envoy-ratelimited"),
    *("retriable-4xx", "refused-stream", "retriable-status-codes", "retriable-headers", "http3-post-connect-failure"),
    *("cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"),
)


def _check_gateway(value: str) -> str:
    namespace, slash, name = value.rpartition("/")
    if slash and namespace != ".":
        check_label(namespace)
    if not slash and "." in name:
        raise PydanticCustomError("invalid_name", "may be the name of a Gateway, or NAMESPACE/NAME: write the latter")
    check_subdomain(name)
    return value


def _check_retry_on(value: str) -> str:
    for each in split_conditions(value):
        if each not in _RETRY_CONDITIONS and not (each.isascii() and each.isdigit() and 100 <= int(each[:4]) <= 599):
            raise PydanticCustomError(
                "retry_condition", "{each} is none of Envoy's conditions, and no status", {"each": each}
            )
    return value


GatewayName = Annotated[str, AfterValidator(_check_gateway)]
"""`mesh`, the name of a Gateway of the same namespace, or NAMESPACE/NAME."""


def split_conditions(text: str) -> list[str]:
    """The conditions of a `retryOn`."""
    return [part for each in text.split(",") if (part := each.strip())]


class StringMatch(StrictModel):
    """A text that is this, begins so, or matches a regular expression as a whole. An empty one is met by any."""

    exact: str | None = None
    prefix: str | None = None
    regex: Regex | None = None

    @model_validator(mode="after")
    def _check_one(self) -> "StringMatch":
        if sum(each is not None for each in (self.exact, self.prefix, self.regex)) > 1:
            raise PydanticCustomError("combination", "has one of exact, prefix and regex")
        return self


class RequestMatch(StrictModel):
    """Requests that meet all of it."""

    name: str | None = None
    uri: StringMatch | None = None
    scheme: StringMatch | None = None
    method: StringMatch | None = None
    authority: StringMatch | None = None
    headers: Mapping[str, StringMatch] | None = None
    without_headers: Mapping[str, StringMatch] | None = None
    query_params: Mapping[str, StringMatch] | None = None
    port: PortNumber | None = None
    ignore_uri_case: bool | None = None
    gateways: Sequence[GatewayName] | None = None
    source_labels: Unsupported = None
    source_namespace: Unsupported = None
    stat_prefix: str | None = None


class Destination(StrictModel):
    """A service, and a subset of it that a DestinationRule defines."""

    host: ServiceHost
    subset: str | None = None
    port: PortSelector | None = None


class HeaderOperations(StrictModel):
    """Headers that are set, added beside what is there, or taken away."""

    set: Mapping[str, str] | None = None
    add: Mapping[str, str] | None = None
    remove: Sequence[str] | None = None


class Headers(StrictModel):
    """What is done to a request's headers, and to its answer's."""

    request: HeaderOperations | None = None
    response: HeaderOperations | None = None


class RouteDestination(StrictModel):
    """A share of the requests."""

    destination: Destination
    weight: Annotated[int | None, Field(ge=0)] = None
    headers: Headers | None = None


class BytesDestination(StrictModel):
    """A share of the connections."""

    destination: Destination
    weight: Annotated[int | None, Field(ge=0)] = None


def _check_some_weight(routes: Sequence[RouteDestination] | Sequence[BytesDestination]) -> None:
    if len(routes) > 1 and not any(each.weight for each in routes):
        raise PydanticCustomError("combination", "several destinations need weights, not all of them 0")


class HttpRedirect(StrictModel):
    """An answer that sends the client elsewhere."""

    uri: str | None = None
    authority: str | None = None
    port: PortNumber | None = None
    derive_port: Literal["FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"] | None = None
    scheme: Literal["http", "https"] | None = None
    redirect_code: Literal[301, 302, 303, 307, 308] = 301


class HttpBody(StrictModel):
    """A body as text, or as bytes in base64."""

    string: str | None = None
    encoded: Annotated[str | None, Field(alias="bytes")] = None

    @model_validator(mode="after")
    def _check_bytes(self) -> "HttpBody":
        try:
            base64.b64decode(self.encoded or "", validate=True)
        except binascii.Error as error:
            raise PydanticCustomError("bytes_value", "bytes is no base64") from error
        return self

    @property
    def content(self) -> bytes:
        """The bytes."""
        return base64.b64decode(self.encoded) if self.encoded else (self.string or "").encode()


class DirectResponse(StrictModel):
    """An answer of the proxy's own."""

    status: Annotated[int, Field(ge=200, le=599)]
    body: HttpBody | None = None


class RegexRewrite(StrictModel):
    """A path by regular expression; `rewrite` may name its groups, as in `\\1`."""

    match: Regex
    rewrite: str


class HttpRewrite(StrictModel):
    """Another path, or what matched of it, and another host."""

    uri: str | None = None
    authority: str | None = None
    uri_regex_rewrite: RegexRewrite | None = None

    @model_validator(mode="after")
    def _check_one(self) -> "HttpRewrite":
        if self.uri is not None and self.uri_regex_rewrite is not None:
            raise PydanticCustomError("combination", "uri and uriRegexRewrite exclude each other")
        return self


class HttpRetry(StrictModel):
    """How often, after how long, and on what a request is tried again. 0 attempts is never."""

    attempts: Annotated[int, Field(ge=0)] = 0
    per_try_timeout: Duration | None = None
    retry_on: Annotated[str, AfterValidator(_check_retry_on)] | None = None
    backoff: Duration | None = None
    retry_remote_localities: Unsupported = None
    retry_ignore_previous_hosts: bool | None = None


class FaultDelay(StrictModel):
    """A pause before a share of the requests."""

    fixed_delay: Duration
    percentage: Percent | None = None
    percent: Annotated[int | None, Field(ge=0, le=100)] = None


class FaultAbort(StrictModel):
    """A failure instead of an answer, for a share of the requests."""

    http_status: Annotated[int | None, Field(ge=200, le=599)] = None
    grpc_status: GrpcStatus | None = None
    percentage: Percent | None = None

    @model_validator(mode="after")
    def _check_one(self) -> "FaultAbort":
        if (self.http_status is None) == (self.grpc_status is None):
            raise PydanticCustomError("combination", "has one of httpStatus and grpcStatus")
        return self


class FaultInjection(StrictModel):
    """Pauses and failures, to see what they do."""

    delay: FaultDelay | None = None
    abort: FaultAbort | None = None


class MirrorPolicy(StrictModel):
    """Where a share of the requests is copied to."""

    destination: Destination
    percentage: Percent | None = None


class CorsPolicy(StrictModel):
    """Which pages of other origins may read the answers."""

    allow_origins: Sequence[StringMatch] | None = None
    allow_methods: Sequence[str] | None = None
    allow_headers: Sequence[str] | None = None
    expose_headers: Sequence[str] | None = None
    max_age: Duration | None = None
    allow_credentials: bool | None = None
    unmatched_preflights: Unsupported = None


class Delegate(StrictModel):
    """Another VirtualService, without hosts, that says what is done."""

    name: str
    namespace: str | None = None


class HttpRoute(StrictModel):
    """What is done with the requests that any of its matches meets; with all, where it has none."""

    name: str | None = None
    match: Sequence[RequestMatch] | None = None
    route: Sequence[RouteDestination] | None = None
    redirect: HttpRedirect | None = None
    direct_response: DirectResponse | None = None
    delegate: Delegate | None = None
    rewrite: HttpRewrite | None = None
    timeout: Duration | None = None
    retries: HttpRetry | None = None
    fault: FaultInjection | None = None
    mirror: Destination | None = None
    mirror_percentage: Percent | None = None
    mirrors: Sequence[MirrorPolicy] | None = None
    cors_policy: CorsPolicy | None = None
    headers: Headers | None = None

    @model_validator(mode="after")
    def _check_action(self) -> "HttpRoute":
        given = [name for name in ("route", "redirect", "direct_response", "delegate") if getattr(self, name)]
        if len(given) != 1:
            raise PydanticCustomError("combination", "has exactly one of route, redirect, directResponse and delegate")
        if self.redirect and (self.rewrite or self.retries or self.timeout is not None):
            raise PydanticCustomError("combination", "a redirect has no rewrite, retries or timeout")
        _check_some_weight(self.route or ())
        if self.mirror and self.mirrors:
            raise PydanticCustomError("combination", "mirror and mirrors exclude each other")
        return self


class BytesMatch(StrictModel):
    """Connections to a port."""

    port: PortNumber | None = None
    gateways: Sequence[GatewayName] | None = None
    destination_subnets: Unsupported = None
    source_subnet: Unsupported = None
    source_labels: Unsupported = None
    source_namespace: Unsupported = None


class TlsMatch(BytesMatch):
    """Connections with TLS for one of these hosts."""

    sni_hosts: Annotated[Sequence[RuleHost], Field(min_length=1)]


class TcpRoute(StrictModel):
    """Where connections go whose bytes are no requests."""

    match: Sequence[BytesMatch] | None = None
    route: Annotated[Sequence[BytesDestination], Field(min_length=1)]

    @model_validator(mode="after")
    def _check_weights(self) -> "TcpRoute":
        _check_some_weight(self.route)
        return self


class TlsRoute(StrictModel):
    """Where connections with TLS go, which nobody on the way opens."""

    match: Annotated[Sequence[TlsMatch], Field(min_length=1)]
    route: Annotated[Sequence[BytesDestination], Field(min_length=1)]

    @model_validator(mode="after")
    def _check_weights(self) -> "TlsRoute":
        _check_some_weight(self.route)
        return self


class VirtualServiceSpec(StrictModel):
    """For which hosts, which routes, in order. Without hosts it is for others that delegate to it."""

    hosts: Sequence[RuleHost] = ()
    gateways: Sequence[GatewayName] | None = None
    http: Sequence[HttpRoute] | None = None
    tls: Sequence[TlsRoute] | None = None
    tcp: Sequence[TcpRoute] | None = None
    export_to: Sequence[RuleScope] | None = None

    @model_validator(mode="after")
    def _check_delegate(self) -> "VirtualServiceSpec":
        if not self.hosts and (self.gateways or self.tls or self.tcp):
            raise PydanticCustomError("combination", "without hosts it is a delegate, which has http rules alone")
        if not self.hosts and any(rule.delegate for rule in self.http or ()):
            raise PydanticCustomError("combination", "without hosts it is a delegate, and cannot delegate itself")
        return self


class VirtualService(NetworkingObject):
    """Where requests to a host go."""

    spec: VirtualServiceSpec

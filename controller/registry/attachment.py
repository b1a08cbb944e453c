"""What attaches to what: routes to the listeners of Gateways and to Services, and where their backends lead.

Each decision is a value with a reason, so that the same serves the proxies and the objects' status. The reasons are
Gateway API's.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from controller.kinds.core import Namespace, Service
from controller.kinds.gateway_api import (
    CLASSES,
    CONTROLLERS,
    GROUP,
    HBONE,
    BackendReference,
    Gateway,
    GatewayClass,
    Listener,
    ParentReference,
    ReferenceGrant,
    RouteNamespaces,
)
from controller.kinds.grpc_route import GRPCRoute
from controller.kinds.http_route import HTTPRoute, RouteRule
from controller.kinds.stream_routes import StreamRule, TCPRoute, TLSRoute
from controller.registry.entries import EntryHosts, build_host_service
from controller.registry.http import Target
from controller.registry.names import MeshSettings, name_host
from controller.registry.services import Discovery, is_served
from controller.snapshot import Snapshot
from mesh import ports

HOSTNAME_GROUP, HOSTNAME_KIND = "networking.istio.io", "Hostname"
"""Istio's backend that is no object: a host of a ServiceEntry."""
RequestRoute = HTTPRoute | GRPCRoute
"""What attaches to Gateways and Services."""
StreamRoute = TLSRoute | TCPRoute
"""What attaches to Gateways only, where bytes go on as they are."""
GatewayRoute = RequestRoute | StreamRoute
ROUTE_KINDS: tuple[type[HTTPRoute] | type[GRPCRoute] | type[TLSRoute] | type[TCPRoute], ...] = (
    HTTPRoute,
    GRPCRoute,
    TLSRoute,
    TCPRoute,
)
_REQUESTS = (HTTPRoute.KIND, GRPCRoute.KIND)
_KINDS = {
    "HTTP": _REQUESTS,
    "HTTPS": _REQUESTS,
    "TLS": (TLSRoute.KIND,),
    "TCP": (TCPRoute.KIND,),
}
"""Which routes the listeners of a protocol take; other protocols are not carried out."""
_BY_SERVER_NAME = {"HTTPS", "TLS"}
"""Protocols that share a port: what tells their listeners apart is the name of the server (SNI)."""


class Reason(Enum):
    """Why something is as it is."""

    ACCEPTED = "Accepted"
    NO_MATCHING_PARENT = "NoMatchingParent"
    NO_MATCHING_HOSTNAME = "NoMatchingListenerHostname"
    NOT_ALLOWED = "NotAllowedByListeners"
    UNSUPPORTED_PROTOCOL = "UnsupportedProtocol"
    PROTOCOL_CONFLICT = "ProtocolConflict"
    UNSUPPORTED_VALUE = "UnsupportedValue"
    HOSTNAME_CONFLICT = "HostnameConflict"
    RESOLVED = "ResolvedRefs"
    INVALID_KIND = "InvalidKind"
    INVALID_ROUTE_KINDS = "InvalidRouteKinds"
    INVALID_CERTIFICATE = "InvalidCertificateRef"
    INVALID_AUTHORITY = "InvalidCACertificateRef"
    BACKEND_NOT_FOUND = "BackendNotFound"
    NOT_PERMITTED = "RefNotPermitted"


@dataclass(frozen=True, slots=True)
class Attachment:
    """A route's, to one parent: the listeners of a Gateway, each with the hosts; or a port of a Service, or all."""

    reason: Reason
    message: str
    listeners: Mapping[str, tuple[str, ...]]

    @property
    def is_accepted(self) -> bool:
        """Whether the route serves there."""
        return self.reason is Reason.ACCEPTED


@dataclass(frozen=True, slots=True)
class Resolution:
    """Where a backend leads, or why nowhere."""

    reason: Reason
    message: str
    target: Target | None = None


def is_ours(snapshot: Snapshot, gateway: Gateway) -> bool:
    """Whether a Gateway is to be carried out by proxies of ours."""
    owner = snapshot.find(GatewayClass, "", gateway.spec.gateway_class_name)
    if owner is None:
        return gateway.spec.gateway_class_name in CLASSES
    return owner.spec.controller_name in CONTROLLERS


def find_gateway(reference: ParentReference, namespace: str) -> tuple[str, str] | None:
    """The namespace and name of the Gateway that a route of `namespace` means; None where it means none."""
    if (reference.group, reference.kind) != (GROUP, "Gateway"):
        return None
    return reference.namespace or namespace, reference.name


def find_parent_service(reference: ParentReference, namespace: str) -> tuple[str, str] | None:
    """The namespace and name of the Service that a route of `namespace` means; None where it means none."""
    if (reference.group, reference.kind) not in (("", "Service"), ("core", "Service")):
        return None
    return reference.namespace or namespace, reference.name


def check_listener(gateway: Gateway, listener: Listener) -> tuple[Reason, str]:
    """Whether a listener can serve beside the others of its Gateway; of two in conflict the first does."""
    if listener.protocol == HBONE and listener.port == ports.HBONE_PORT:
        return Reason.ACCEPTED, ""
    served: list[Listener] = []
    for each in gateway.spec.listeners:
        if each.port != listener.port:
            continue
        verdict = _check_support(each) or _check_beside(each, served)
        if each.name == listener.name:
            return verdict
        if verdict[0] is Reason.ACCEPTED:
            served.append(each)
    return Reason.ACCEPTED, ""


def _check_beside(listener: Listener, served: Sequence[Listener]) -> tuple[Reason, str]:
    for other in served:
        if not (other.protocol == listener.protocol or {other.protocol, listener.protocol} <= _BY_SERVER_NAME):
            return Reason.PROTOCOL_CONFLICT, f"listener {other.name} has the same port for {other.protocol}"
        if other.hostname == listener.hostname:
            return Reason.HOSTNAME_CONFLICT, f"listener {other.name} has the same port and hostname"
    return Reason.ACCEPTED, ""


def _check_support(listener: Listener) -> tuple[Reason, str] | None:
    """Why nothing of the kind is carried out; None where it is."""
    if listener.protocol not in _KINDS:
        known = ", ".join(sorted(_KINDS))
        return Reason.UNSUPPORTED_PROTOCOL, f"protocol {listener.protocol} is not carried out; {known} are"
    if listener.protocol == "HTTPS" and listener.passes_through:
        return Reason.UNSUPPORTED_VALUE, "requests cannot be seen where TLS passes through: write protocol TLS"
    return None


def list_kinds(listener: Listener) -> tuple[str, ...]:
    """The kinds of routes that may attach to a listener."""
    return tuple(kind for kind in _find_kinds(listener) if _is_allowed_kind(listener, kind))


def _find_kinds(listener: Listener) -> tuple[str, ...]:
    """Those of its protocol; where TLS ends, what is inside is TCP."""
    kinds = _KINDS.get(listener.protocol, ())
    is_ended = listener.protocol == "TLS" and not listener.passes_through
    return (*kinds, TCPRoute.KIND) if is_ended else kinds


def find_foreign_kinds(listener: Listener) -> tuple[str, ...]:
    """The kinds that a listener wants to allow, and cannot have."""
    known = _find_kinds(listener)
    given = listener.allowed_routes.kinds or ()
    return tuple(each.kind for each in given if each.group != GROUP or each.kind not in known)


def served_listeners(gateway: Gateway) -> Iterator[Listener]:
    """The listeners that can serve, and to which routes attach: to a waypoint's they do not."""
    listeners = (each for each in gateway.spec.listeners if each.protocol != HBONE)
    return (each for each in listeners if check_listener(gateway, each)[0] is Reason.ACCEPTED)


def attach(snapshot: Snapshot, route: GatewayRoute, reference: ParentReference, gateway: Gateway) -> Attachment:
    """Whether a route attaches to listeners of a Gateway, and there for which hosts."""
    named = [each for each in served_listeners(gateway) if _is_meant(reference, each)]
    if not named:
        return Attachment(Reason.NO_MATCHING_PARENT, f"no listener that can serve {_describe(reference)}", {})
    allowed = [each for each in named if _allows(snapshot, gateway, each, route)]
    if not allowed:
        message = f"allowedRoutes of no listener admit a {route.KIND} of namespace {route.namespace}"
        return Attachment(Reason.NOT_ALLOWED, message, {})
    hosts = {each.name: _intersect_all(each.hostname, tuple(route.hostnames)) for each in allowed}
    if not any(hosts.values()):
        return Attachment(Reason.NO_MATCHING_HOSTNAME, "no hostname is one of a listener's", {})
    return Attachment(Reason.ACCEPTED, "", {name: each for name, each in hosts.items() if each})


def list_backends(route: GatewayRoute) -> Iterator[tuple[tuple[str | int, ...], BackendReference]]:
    """All that a route points at, each with its field."""
    rules: Sequence[RouteRule | StreamRule] = route.rules
    for number, rule in enumerate(rules):
        for index, backend in enumerate(rule.backend_refs or ()):
            yield ("spec", "rules", number, "backendRefs", index), backend
        for index, each in enumerate((rule.filters if isinstance(rule, RouteRule) else None) or ()):
            if each.request_mirror:
                path = ("spec", "rules", number, "filters", index, "requestMirror", "backendRef")
                yield path, each.request_mirror.backend_ref


def resolve(
    snapshot: Snapshot,
    settings: MeshSettings,
    route: GatewayRoute,
    reference: BackendReference,
    hosts: EntryHosts | None = None,
) -> Resolution:
    """Where the backend leads that a route names. `hosts` are the snapshot's, where they are at hand."""
    namespace, kind = route.namespace, route.KIND
    if (reference.group, reference.kind) == (HOSTNAME_GROUP, HOSTNAME_KIND):
        return _resolve_host(hosts or EntryHosts(snapshot, settings), namespace, reference)
    if (reference.group or "core", reference.kind) != ("core", "Service"):
        return Resolution(Reason.INVALID_KIND, f"backend {reference.name} is a {reference.kind}, and no Service")
    place = reference.namespace or namespace
    if place != namespace and not is_granted(snapshot, (GROUP, kind, namespace), place, ("Service", reference.name)):
        message = f"no ReferenceGrant of namespace {place} lets a {kind} of {namespace} name Service {reference.name}"
        return Resolution(Reason.NOT_PERMITTED, message)
    service = snapshot.find(Service, place, reference.name)
    if service is None or not is_served(service):
        return Resolution(Reason.BACKEND_NOT_FOUND, f"there is no Service {place}/{reference.name}")
    ports = {port.port for port in service.spec.ports or () if port.protocol == "TCP"}
    if reference.port not in ports:
        message = f"Service {place}/{reference.name} has no port {reference.port or '(none is named)'}"
        return Resolution(Reason.BACKEND_NOT_FOUND, message)
    return Resolution(Reason.RESOLVED, "", Target(place, name_host(settings, place, reference.name), reference.port))


def _resolve_host(hosts: EntryHosts, namespace: str, reference: BackendReference) -> Resolution:
    """A host of a ServiceEntry: of the route's namespace, else of whichever shows it to all. No grant is asked for."""
    name = reference.name
    found = hosts.find(name, namespace)
    if found is None:
        return Resolution(Reason.BACKEND_NOT_FOUND, f"no ServiceEntry that {namespace} sees has the host {name}")
    service = build_host_service(found)
    if service.discovery is Discovery.CLIENT:
        message = f"host {name} has resolution NONE: only its clients know its addresses"
        return Resolution(Reason.BACKEND_NOT_FOUND, message)
    if all(port.number != reference.port for port in service.ports):
        message = f"host {name} has no port {reference.port or '(none is named)'}"
        return Resolution(Reason.BACKEND_NOT_FOUND, message)
    return Resolution(Reason.RESOLVED, "", Target(service.namespace, service.reference, reference.port or 0))


def covers(pattern: str, host: str) -> bool:
    """Whether every host that `host` stands for is one of `pattern`'s; `*` and `*.x` stand for many."""
    if pattern == "*" or pattern == host:
        return True
    return pattern.startswith("*.") and host.endswith(pattern[1:]) and len(host) > len(pattern) - 1


def find_narrower(first: str, second: str) -> str:
    """Of two of which one covers the other, what both stand for; else nothing."""
    if covers(first, second):
        return second
    return first if covers(second, first) else ""


def specificity(host: str) -> tuple[int, int]:
    """Sorts hosts: the most specific last."""
    return (0 if "*" in host else len(host), len(host))


def _intersect_all(own: str | None, hosts: tuple[str, ...]) -> tuple[str, ...]:
    if not hosts:
        return (own or "*",)
    listener = own or "*"
    found = [
        host if covers(listener, host) else listener
        for host in hosts
        if covers(listener, host) or covers(host, listener)
    ]
    return tuple(dict.fromkeys(found))


def _is_meant(reference: ParentReference, listener: Listener) -> bool:
    has_name = reference.section_name in (None, listener.name)
    return has_name and reference.port in (None, listener.port)


def _allows(snapshot: Snapshot, gateway: Gateway, listener: Listener, route: GatewayRoute) -> bool:
    allowed, kind, namespace = listener.allowed_routes, route.KIND, route.namespace
    if kind not in list_kinds(listener):
        return False
    return admits(snapshot, allowed.namespaces, gateway.namespace, namespace)


def admits(snapshot: Snapshot, allowed: RouteNamespaces, own: str, namespace: str) -> bool:
    """Whether what is in `namespace` may attach to a listener of a Gateway in `own`."""
    match allowed.from_:
        case "All":
            return True
        case "Same":
            return namespace == own
        case "Selector":
            owner = snapshot.find(Namespace, "", namespace)
            labels = {"kubernetes.io/metadata.name": namespace, **(owner.labels if owner else {})}
            return allowed.selector is not None and allowed.selector.matches(labels)
        case "None":
            return False


def _is_allowed_kind(listener: Listener, kind: str) -> bool:
    kinds = listener.allowed_routes.kinds
    return not kinds or any((each.group, each.kind) == (GROUP, kind) for each in kinds)


def is_granted(snapshot: Snapshot, source: tuple[str, str, str], place: str, target: tuple[str, str]) -> bool:
    """Whether a ReferenceGrant of namespace `place` lets `source` (group, kind, namespace) name a core object.

    `target` is the object's kind and name.
    """
    kind, name = target
    for grant in snapshot.objects_in(ReferenceGrant, place):
        is_from = any((each.group, each.kind, each.namespace) == source for each in grant.spec.from_)
        is_to = any(
            each.group in ("", "core") and each.kind == kind and each.name in (None, "", name) for each in grant.spec.to
        )
        if is_from and is_to:
            return True
    return False


def _describe(reference: ParentReference) -> str:
    parts = [f"is called {reference.section_name}"] if reference.section_name else []
    parts += [f"has port {reference.port}"] if reference.port else []
    return " and ".join(parts) or "is there"

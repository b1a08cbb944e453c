"""What has become of Gateways and routes, as Gateway API's conditions (facts of L7, 3.6)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from controller.kinds.core import Service
from controller.kinds.gateway_api import Gateway, Listener, ParentReference
from controller.registry.attachment import (
    Attachment,
    GatewayRoute,
    Reason,
    RequestRoute,
    Resolution,
    attach,
    check_listener,
    find_foreign_kinds,
    find_gateway,
    find_parent_service,
    is_ours,
    list_backends,
    resolve,
)
from controller.registry.certificates import ends_tls, find_secrets, judge_certificates
from controller.registry.names import MeshSettings
from controller.registry.services import is_served
from controller.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Condition:
    """One statement about an object. The message is empty where the reason says it all."""

    type: str
    is_true: bool
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class ParentConditions:
    """What has become of a route at one parent."""

    reference: ParentReference
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class ListenerConditions:
    """What has become of a listener, and how many routes are attached to it."""

    name: str
    attached_routes: int
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class GatewayConditions:
    """What has become of a Gateway."""

    conditions: tuple[Condition, ...]
    listeners: tuple[ListenerConditions, ...]


def judge_route(snapshot: Snapshot, settings: MeshSettings, route: GatewayRoute) -> Iterator[ParentConditions]:
    """At each parent that is ours to judge."""
    resolved = _judge_backends(snapshot, settings, route)
    for reference in route.spec.parent_refs or ():
        found = judge_parent(snapshot, route, reference)
        if found is not None:
            accepted = Condition("Accepted", found.is_accepted, found.reason.value, found.message)
            yield ParentConditions(reference, (accepted, resolved))


def judge_parent(snapshot: Snapshot, route: GatewayRoute, reference: ParentReference) -> Attachment | None:
    """Whether a route attaches to a parent; None where that is somebody else's, or is not there."""
    if (place := find_gateway(reference, route.namespace)) is not None:
        gateway = snapshot.find(Gateway, *place)
        if gateway is None or not is_ours(snapshot, gateway):
            return None
        return attach(snapshot, route, reference, gateway)
    if (place := find_parent_service(reference, route.namespace)) is not None:
        return _attach_to_service(snapshot, route, reference, place)
    return None


def _attach_to_service(
    snapshot: Snapshot, route: GatewayRoute, reference: ParentReference, place: tuple[str, str]
) -> Attachment | None:
    service = snapshot.find(Service, *place)
    if service is None or not is_served(service):
        return None
    if not isinstance(route, RequestRoute):
        message = f"a {route.KIND} counts at Gateways only, and not for Services"
        return Attachment(Reason.UNSUPPORTED_VALUE, message, {})
    if place[0] != route.namespace:
        message = f"only routes of namespace {place[0]} itself count for its Services"
        return Attachment(Reason.UNSUPPORTED_VALUE, message, {})
    ports = {port.port for port in service.spec.ports or () if port.protocol == "TCP"}
    if reference.port is not None and reference.port not in ports:
        return Attachment(Reason.NO_MATCHING_PARENT, f"the Service has no port {reference.port}", {})
    return Attachment(Reason.ACCEPTED, "", {})


def find_unresolved(
    snapshot: Snapshot, settings: MeshSettings, route: GatewayRoute
) -> Iterator[tuple[tuple[str | int, ...], Resolution]]:
    """The backends that lead nowhere, with their fields."""
    for path, reference in list_backends(route):
        found = resolve(snapshot, settings, route, reference)
        if found.target is None:
            yield path, found


def _judge_backends(snapshot: Snapshot, settings: MeshSettings, route: GatewayRoute) -> Condition:
    for _, found in find_unresolved(snapshot, settings, route):
        return Condition("ResolvedRefs", False, found.reason.value, found.message)
    return Condition("ResolvedRefs", True, Reason.RESOLVED.value)


def judge_gateway(snapshot: Snapshot, gateway: Gateway, routes: Sequence[GatewayRoute]) -> GatewayConditions:
    """Of the Gateway and each of its listeners. `routes` are those that may name it."""
    listeners = tuple(_judge_listener(snapshot, gateway, each, routes) for each in gateway.spec.listeners)
    is_served = any(each.conditions[0].is_true for each in listeners)
    reason = "Accepted" if is_served else "ListenersNotValid"
    message = "" if is_served else "none of its listeners can serve"
    programmed = "Programmed" if is_served else "Invalid"
    return GatewayConditions(
        (Condition("Accepted", is_served, reason, message), Condition("Programmed", is_served, programmed, message)),
        listeners,
    )


def _judge_listener(
    snapshot: Snapshot, gateway: Gateway, listener: Listener, routes: Sequence[GatewayRoute]
) -> ListenerConditions:
    reason, message = check_listener(gateway, listener)
    resolved = judge_references(snapshot, gateway, listener)
    is_accepted = reason not in (Reason.UNSUPPORTED_PROTOCOL, Reason.UNSUPPORTED_VALUE)
    is_conflicted = reason in (Reason.HOSTNAME_CONFLICT, Reason.PROTOCOL_CONFLICT)
    can_end_tls = not ends_tls(listener) or bool(find_secrets(snapshot, gateway, listener))
    is_served = reason is Reason.ACCEPTED and can_end_tls
    why = message or ("" if is_served else resolved[1])
    conditions = (
        Condition("Accepted", is_accepted, Reason.ACCEPTED.value if is_accepted else reason.value, message),
        Condition("Programmed", is_served, "Programmed" if is_served else "Invalid", why),
        Condition("ResolvedRefs", resolved[0] is Reason.RESOLVED, resolved[0].value, resolved[1]),
        Condition("Conflicted", is_conflicted, reason.value if is_conflicted else "NoConflicts", message),
    )
    attached = sum(_is_attached(snapshot, gateway, listener, route) for route in routes)
    return ListenerConditions(listener.name, attached, conditions)


def judge_references(snapshot: Snapshot, gateway: Gateway, listener: Listener) -> tuple[Reason, str]:
    """Whether all is there that a listener names: kinds of routes, and certificates."""
    if kinds := find_foreign_kinds(listener):
        message = f"a listener of protocol {listener.protocol} takes no {', '.join(kinds)}"
        return Reason.INVALID_ROUTE_KINDS, message
    return judge_certificates(snapshot, gateway, listener)


def _is_attached(snapshot: Snapshot, gateway: Gateway, listener: Listener, route: GatewayRoute) -> bool:
    for reference in route.spec.parent_refs or ():
        is_meant = find_gateway(reference, route.namespace) == (gateway.namespace, gateway.name)
        if is_meant and listener.name in attach(snapshot, route, reference, gateway).listeners:
            return True
    return False

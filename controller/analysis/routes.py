"""Routes that reach nobody, or nothing: the mistakes that show only when requests fail."""

from collections.abc import Iterator

from controller.analysis.findings import Finding
from controller.analysis.given import Given
from controller.kinds.core import Service
from controller.kinds.destination_rule import DestinationRule
from controller.kinds.gateway_api import Gateway, ParentReference
from controller.kinds.virtual_service import Destination, VirtualService
from controller.registry.attachment import (
    ROUTE_KINDS,
    GatewayRoute,
    Reason,
    RequestRoute,
    check_listener,
    covers,
    find_foreign_kinds,
    find_gateway,
    find_parent_service,
    is_ours,
    served_listeners,
)
from controller.registry.bindings import Traffic
from controller.registry.byte_routes import list_byte_destinations
from controller.registry.conditions import find_unresolved, judge_parent
from controller.registry.destinations import find_rules
from controller.registry.names import find_full_host, find_service_name, name_host
from controller.registry.policies import matches
from controller.registry.services import Discovery
from controller.registry.virtual_services import find_gateways, is_for_mesh, list_destinations
from controller.registry.waypoints import Waypoints


def check_routes(given: Given) -> Iterator[Finding]:
    """Routes that attach to nothing, or point at nothing."""
    for route in _list_routes(given):
        for index, reference in enumerate(route.spec.parent_refs or ()):
            yield from _check_parent(given, route, index, reference)
        if not route.spec.parent_refs:
            yield Finding("route-not-attached", route.key, ("spec",), "names no parentRefs: it is for nobody")
        for path, found in find_unresolved(given.snapshot, given.settings, route):
            yield Finding("route-backend-missing", route.key, path, f"{found.message}; {_describe_end(route)}")


def _describe_end(route: GatewayRoute) -> str:
    return "such requests get 500" if isinstance(route, RequestRoute) else "such connections are closed"


def _list_routes(given: Given) -> Iterator[GatewayRoute]:
    for kind in ROUTE_KINDS:
        yield from given.snapshot.objects(kind)


def _check_parent(given: Given, route: GatewayRoute, index: int, reference: ParentReference) -> Iterator[Finding]:
    path = ("spec", "parentRefs", index)
    found = judge_parent(given.snapshot, route, reference)
    if found is not None and not found.is_accepted:
        yield Finding("route-not-attached", route.key, path, found.message)
    elif found is not None and (place := find_parent_service(reference, route.namespace)) is not None:
        if not _has_waypoint(given, place):
            yield Finding("route-without-waypoint", route.key, ("spec", "parentRefs", index, "kind"), _WITHOUT_WAYPOINT)
    elif found is None and not _is_there(given, route, reference):
        where = f"{reference.kind} {reference.namespace or route.namespace}/{reference.name}"
        yield Finding("route-not-attached", route.key, path, f"there is no {where}")


_WITHOUT_WAYPOINT = (
    "pods reach the Service through ztunnel alone, which knows no requests: only gRPC's own xDS clients follow this"
)


def _has_waypoint(given: Given, place: tuple[str, str]) -> bool:
    service = given.snapshot.find(Service, *place)
    waypoints = Waypoints(given.snapshot, given.settings)
    return service is not None and waypoints.find_binding(*place, service.labels, Traffic.SERVICE) is not None


def _is_there(given: Given, route: GatewayRoute, reference: ParentReference) -> bool:
    """Whether the parent is something that we cannot judge."""
    if (place := find_gateway(reference, route.namespace)) is not None:
        return given.snapshot.find(Gateway, *place) is not None
    return find_parent_service(reference, route.namespace) is None


def check_gateways(given: Given) -> Iterator[Finding]:
    """Listeners that do not serve, and Gateways without routes."""
    named = {
        find_gateway(reference, route.namespace)
        for route in _list_routes(given)
        for reference in route.spec.parent_refs or ()
    }
    for gateway in given.snapshot.objects(Gateway):
        if not is_ours(given.snapshot, gateway):
            continue
        for index, listener in enumerate(gateway.spec.listeners):
            reason, message = check_listener(gateway, listener)
            if reason is not Reason.ACCEPTED:
                yield Finding("listener-not-served", gateway.key, ("spec", "listeners", index), message)
            elif kinds := find_foreign_kinds(listener):
                path = ("spec", "listeners", index, "allowedRoutes", "kinds")
                message = f"a listener of protocol {listener.protocol} takes no {', '.join(kinds)}"
                yield Finding("listener-takes-no-such-route", gateway.key, path, message)
        if (gateway.namespace, gateway.name) not in named and any(served_listeners(gateway)):
            yield Finding("gateway-without-routes", gateway.key, ("spec",), "no route names it: it serves nothing")


def check_virtual_services(given: Given) -> Iterator[Finding]:
    """VirtualServices for nobody, shadowed by an HTTPRoute, or with destinations that are not there."""
    for service in given.snapshot.objects(VirtualService):
        for index, host in enumerate(service.spec.hosts if is_for_mesh(service) else ()):
            yield from _check_host(given, service, index, host)
        for path, destination in list_destinations(service):
            yield from _check_destination(given, service, path, destination, "such requests get 503")
        for path, destination in list_byte_destinations(service):
            yield from _check_destination(given, service, path, destination, "such connections end")


def _check_host(given: Given, service: VirtualService, index: int, host: str) -> Iterator[Finding]:
    path = ("spec", "hosts", index)
    meant = given.members.find_meant(host, service.namespace)
    if meant is None:
        if not find_gateways(service):  # else it may be a host for those
            yield Finding("virtual-service-host-unknown", service.key, path, _describe_missing(host))
    elif meant.namespace != service.namespace:
        message = f"only VirtualServices of namespace {meant.namespace} itself count for it"
        yield Finding("virtual-service-host-unknown", service.key, path, message)
    elif shadow := next(_find_routes(given, meant.place), None):
        message = f"{shadow.key} attaches to the same Service, and goes before it"
        yield Finding("virtual-service-shadowed", service.key, path, message)
    elif meant.waypoint is None:
        yield Finding("route-without-waypoint", service.key, path, _WITHOUT_WAYPOINT)


def _find_routes(given: Given, place: tuple[str, str]) -> Iterator[GatewayRoute]:
    for route in _list_routes(given):
        parents = (find_parent_service(each, route.namespace) for each in route.spec.parent_refs or ())
        if route.namespace == place[0] and place in parents:
            yield route


def _check_destination(
    given: Given, service: VirtualService, path: tuple[str | int, ...], destination: Destination, effect: str
) -> Iterator[Finding]:
    meant = given.members.find_meant(destination.host, service.namespace)
    if meant is None:
        message = f"{_describe_missing(destination.host)}; {effect}"
        yield Finding("route-backend-missing", service.key, (*path, "host"), message)
    elif meant.discovery is Discovery.CLIENT and destination.host not in service.spec.hosts:
        message = f"{destination.host} has resolution NONE: only its own clients know its addresses; {effect}"
        yield Finding("route-backend-missing", service.key, (*path, "host"), message)
    elif destination.subset:
        rules = find_rules(given.snapshot, given.settings, *meant.place)
        if destination.subset not in rules.subsets:
            message = f"no DestinationRule for {destination.host} defines it; {effect}"
            yield Finding("subset-undefined", service.key, (*path, "subset"), message)


def _describe_missing(host: str) -> str:
    return f"no Service is called {host}, and no ServiceEntry that is seen has this host"


def check_destination_rules(given: Given) -> Iterator[Finding]:
    """DestinationRules for nobody, and subsets that nobody is one of."""
    for rule in given.snapshot.objects(DestinationRule):
        host = find_full_host(rule.spec.host, rule.namespace, given.settings)
        place = find_service_name(host, rule.namespace, given.settings)
        service = given.snapshot.find(Service, *place) if place else None
        yield from _check_locality(rule)
        if service is not None:
            yield from _check_subsets(given, rule, service)
        elif not _is_for_some(given, rule, host):
            yield Finding(
                "destination-rule-host-unknown", rule.key, ("spec", "host"), _describe_missing(rule.spec.host)
            )


def _check_locality(rule: DestinationRule) -> Iterator[Finding]:
    """Failover asks whoever is near until outliers are detected: without, it never comes to that."""
    policy = rule.spec.traffic_policy
    setting = policy.load_balancer.locality_lb_setting if policy and policy.load_balancer else None
    if policy and setting and setting.enabled is not False and not (setting.distribute or policy.outlier_detection):
        path = ("spec", "trafficPolicy", "loadBalancer", "localityLbSetting")
        message = "without outlierDetection beside it, nothing stays near and nothing fails over"
        yield Finding("locality-without-outliers", rule.key, path, message)


def _is_for_some(given: Given, rule: DestinationRule, pattern: str) -> bool:
    """Whether a rule counts for some host: of its namespace, or of any if it is the root one's."""
    is_root = rule.namespace == given.settings.root_namespace
    services = given.snapshot.objects(Service) if "*" in pattern else ()
    hosts = {(each.namespace, name_host(given.settings, each.namespace, each.name)) for each in services}
    places = hosts | given.hosts.by_place.keys()
    return any(covers(pattern, host) and (is_root or namespace == rule.namespace) for namespace, host in places)


def _check_subsets(given: Given, rule: DestinationRule, service: Service) -> Iterator[Finding]:
    for index, subset in enumerate(rule.spec.subsets or ()):
        wanted = {**(service.spec.selector or {}), **(subset.labels or {})}
        known = given.knows_pods_of(service.namespace) and bool(service.spec.selector)
        if known and not any(matches(wanted, labels) for labels in given.labels_in(service.namespace)):
            message = f"no pod of {service.key} has these labels: requests for it get 503"
            yield Finding("subset-matches-nothing", rule.key, ("spec", "subsets", index, "labels"), message)

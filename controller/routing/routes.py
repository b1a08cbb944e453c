"""What routes hang on, and where they lead: read once for each change of theirs, and kept in the index."""

from collections.abc import Iterator

from controller.kinds.gateway_api import BackendReference
from controller.kinds.grpc_route import GRPCRoute
from controller.kinds.http_route import HTTPRoute
from controller.kinds.virtual_service import VirtualService
from controller.registry import grpc_routes, virtual_services
from controller.registry.attachment import (
    HOSTNAME_KIND,
    RequestRoute,
    StreamRoute,
    find_gateway,
    find_parent_service,
    resolve,
)
from controller.registry.byte_routes import list_byte_destinations
from controller.registry.delegates import list_rules, place_of
from controller.registry.http import Destination, Target
from controller.registry.http_routes import FindTarget, Ranked, build_routes
from controller.registry.names import Place, find_full_host, find_service_name
from controller.routing.index import RouteKey, RouteState
from controller.routing.update import Update


class RouteReader:
    """Reads the routes of one snapshot."""

    def __init__(self, update: Update) -> None:
        self._update = update
        self._new = update.new
        self._settings = update.settings
        self._members = update.members

    def read_route(self, key: RouteKey) -> RouteState | None:
        """What is known of a route of Gateway API, or of a VirtualService; None where there is no such."""
        if key[0] == VirtualService.KIND:
            return self._read_virtual_service(key[1:])
        route = self._update.find_route(key)
        if route is None:
            return None
        backends: set[Place] = set()

        def find_target(namespace: str, reference: BackendReference) -> Target | None:
            is_host = reference.kind == HOSTNAME_KIND
            backends.add(("", reference.name) if is_host else (reference.namespace or namespace, reference.name))
            return resolve(self._new, self._settings, route, reference, self._members.hosts).target

        is_request = isinstance(route, RequestRoute)
        routes: tuple[Ranked, ...] = ()
        destinations: tuple[Destination, ...] = ()
        if isinstance(route, GRPCRoute):
            routes = tuple(grpc_routes.build_routes(route, find_target))
        elif isinstance(route, HTTPRoute):
            routes = tuple(build_routes(route, find_target))
        else:
            destinations = _build_destinations(route, find_target)
        parents = route.spec.parent_refs or ()
        gateways = filter(None, (find_gateway(each, route.namespace) for each in parents))
        parent_services = filter(None, (find_parent_service(each, route.namespace) for each in parents if is_request))
        return RouteState(routes, frozenset(gateways), frozenset(parent_services), frozenset(backends), destinations)

    def _read_virtual_service(self, place: Place) -> RouteState | None:
        service = self._new.find(VirtualService, *place)
        if service is None:
            return None
        namespace = service.namespace
        own: set[Place] = set()
        if virtual_services.is_for_mesh(service):
            own = {place for host in service.spec.hosts for place in self._list_places(host, namespace, namespace)}
        given = [(each.host, namespace) for _, each in list_byte_destinations(service)]
        for rule in list_rules(service, self._update.find_virtual_service):
            destinations = virtual_services.list_rule_destinations(rule.rule)
            given += ((each.host, rule.namespace) for _, each in destinations)
        backends = {place for host, where in given for place in self._list_places(host, where, "")}
        return RouteState(
            routes=(),
            gateways=frozenset(),
            services=frozenset(own),
            backends=frozenset(backends),
            istio_gateways=virtual_services.find_gateways(service),
            delegates=frozenset(place_of(service, each.delegate) for each in service.spec.http or () if each.delegate),
        )

    def _list_places(self, host: str, namespace: str, hosts_of: str) -> Iterator[Place]:
        """What an object of `namespace` may mean by `host`: a Service, or a host of an entry of `hosts_of`.

        Where only Services of one namespace are wanted, that is `hosts_of`, too.
        """
        yield hosts_of, find_full_host(host, namespace, self._settings)
        place = find_service_name(host, namespace, self._settings)
        if place is not None and hosts_of in ("", place[0]):
            yield place


def _build_destinations(route: StreamRoute, find_target: FindTarget) -> tuple[Destination, ...]:
    """Where a route of connections leads."""
    backends = (backend for rule in route.rules for backend in rule.backend_refs)
    return tuple(Destination(find_target(route.namespace, each), each.weight) for each in backends)

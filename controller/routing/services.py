"""Services as clients without a proxy of their own know them: a listener and routes for each port, gRPC's xDS."""

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network

from controller.registry.http import Target, VirtualHost, find_targets
from controller.registry.names import Place, name_service_port, name_service_routes
from controller.registry.services import Service
from controller.routing.dirty import Dirty
from controller.routing.index import Capture, RouteIndex
from controller.routing.service_routes import ServiceRoutes
from controller.routing.sidecars import SidecarPorts
from controller.routing.update import Update
from controller.serve.resources import ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE, ChangeGatherer, build_resource
from controller.translate.listeners import translate_api_listener
from controller.translate.routes import Dialect, translate_hosts


class Services:
    """Builds these. Takes over in the index which ports services have, and where requests to them lead."""

    def __init__(
        self,
        update: Update,
        index: RouteIndex,
        routes: ServiceRoutes,
        sidecars: SidecarPorts,
        changes: Mapping[str, ChangeGatherer],
    ) -> None:
        self._members = update.members
        self._destinations = update.destinations
        self._index = index
        self._routes = routes
        self._sidecars = sidecars
        self._changes = changes

    def build(self, place: Place) -> Dirty:
        """Build the ports of a service, and remove those that it has no more; gives what else must be built."""
        service = self._members.find(place)
        targets = set(self._destinations.list_targets(service)) if service else set()
        gone = self._index.put_service(place, targets)
        for target in gone:
            self._remove(target)
        led: set[Target] = set()
        for target in targets:
            if service and _is_whole_port(target):
                led |= self._build_port(service, target)
        captures = list_captures(service) if service else frozenset()
        sharing = self._index.put_captures(place, captures, is_entry=bool(service and service.is_entry))
        dirty = self._note_waypoint(place, service, led)
        dirty.clusters |= gone | targets | self._index.put_led(place, led)
        dirty.sidecars |= {place} | sharing
        return dirty

    def _build_port(self, service: Service, target: Target) -> set[Target]:
        """Gives where requests and connections to the port lead."""
        name, routes = name_service_port(target.host, target.port), name_service_routes(target.host, target.port)
        listener = build_resource(LISTENER_TYPE, name, translate_api_listener(name, routes))
        self._changes[LISTENER_TYPE].put(name, listener)
        found = self._routes.find_routes(service.place, target)
        hosts = [VirtualHost("all", ("*",), found)]
        table = translate_hosts(routes, hosts, self._destinations.find_hashing, Dialect.GRPC)
        self._changes[ROUTE_TYPE].put(routes, build_resource(ROUTE_TYPE, routes, table))
        [port] = (each for each in service.ports if each.number == target.port)
        destinations = self._routes.find_byte_destinations(service, port)
        return {target} | find_targets(found) | {each.target for each in destinations if each.target}

    def _remove(self, target: Target) -> None:
        self._changes[ENDPOINT_TYPE].put(target.cluster, None)
        if _is_whole_port(target):
            self._changes[LISTENER_TYPE].put(name_service_port(target.host, target.port), None)
            self._changes[ROUTE_TYPE].put(name_service_routes(target.host, target.port), None)
            self._sidecars.remove(target)

    def _note_waypoint(self, place: Place, service: Service | None, led: set[Target]) -> Dirty:
        """Its waypoint has the clusters that requests lead to; where bytes go, its listener says itself."""
        owners = self._routes.list_virtual_services(place)
        sends_bytes = self._index.put_byte_routes(place, any(each.spec.tcp or each.spec.tls for each in owners))
        is_reached = service and service.waypoint and self._routes.is_routed(service)
        self._index.put_reach(place, led if is_reached else set())
        waypoint = self._index.waypoint_of(place)
        touched = {waypoint} if waypoint else set()
        return Dirty(waypoints=touched, gateways=touched if sends_bytes or (service and service.is_entry) else set())


def list_captures(service: Service) -> frozenset[Capture]:
    """The connections that are meant for a service."""
    return frozenset((each, port.number) for port in service.ports for each in list_ranges(service))


def list_ranges(service: Service) -> tuple[IPv4Network | IPv6Network, ...]:
    """The addresses of a service, of both sorts."""
    return (*(ip_network(each) for each in service.addresses), *service.ranges)


def _is_whole_port(target: Target) -> bool:
    """Whether it is neither a subset nor for Gateways alone."""
    return not target.subset and not target.is_secured

"""What sidecars have: where they take connections to services, what all of them have, and whose clusters are theirs."""

from collections.abc import Iterator, Sequence
from ipaddress import ip_network

from controller.registry import telemetry
from controller.registry.http import Target, VirtualHost
from controller.registry.names import MeshSettings, Place, name_service_routes, name_sidecar_port
from controller.registry.sidecars import Visibility
from controller.routing.index import RouteIndex
from controller.routing.patched import PatchedResources
from controller.routing.service_routes import ServiceRoutes
from controller.routing.update import Update
from controller.serve.resources import CLUSTER_TYPE, LISTENER_TYPE, ROUTE_TYPE, Resource, build_resource
from controller.snapshot import Snapshot
from controller.translate.access_logs import set_access_logs
from controller.translate.clusters import PASSTHROUGH, build_passthrough
from controller.translate.listeners import translate_outbound, translate_service_port
from controller.translate.routes import translate_hosts

OUTBOUND = "sidecar/outbound"
"""The resource name of where a sidecar's redirect rules lead."""


class SidecarPorts:
    """Builds the ports of services for sidecars."""

    def __init__(self, update: Update, index: RouteIndex, routes: ServiceRoutes, patched: PatchedResources) -> None:
        self._update = update
        self._members = update.members
        self._destinations = update.destinations
        self._visibility = update.visibility
        self._index = index
        self._routes = routes
        self._patched = patched
        self._logging = telemetry.read_logging(telemetry.find_for_all(update.new, update.settings))

    def build(self, place: Place) -> None:
        """Where sidecars take connections to a service; to a headless one they are none of its.

        They share the routes of gRPC's clients, which could not do what a patch may want: patched, there are two.
        """
        service = self._members.find(place)
        if service is None:
            return
        own = self._index.captures_of(place)
        for port in service.ports:
            target = Target(service.namespace, service.reference, port.number)
            name, routes = name_sidecar_port(target.host, target.port), name_service_routes(target.host, target.port)
            addresses = [each for each in service.addresses if (ip_network(each), port.number) in own]
            at = self._patched.at_sidecars(name, target.port)
            if addresses and self._patched.has_routes_of_sidecars:
                routes = name
                hosts = [VirtualHost("all", ("*",), self._routes.find_routes(place, target))]
                self._patched.put_routes(at, translate_hosts(name, hosts, self._destinations.find_hashing))
            else:
                self._patched.remove(ROUTE_TYPE, name)
            if not addresses:
                self._patched.remove(LISTENER_TYPE, name)
                continue
            destinations = self._routes.find_byte_destinations(service, port)
            message = translate_service_port(name, addresses, port, destinations, routes)
            set_access_logs(message, self._logging)
            readers = self._visibility.find_readers((service.namespace, service.hostname))
            self._patched.put_listener(at, message, readers)

    def remove(self, target: Target) -> None:
        """A port that its service has no more."""
        name = name_sidecar_port(target.host, target.port)
        self._patched.remove(LISTENER_TYPE, name)
        self._patched.remove(ROUTE_TYPE, name)

    def list_readers(self, target: Target) -> Sequence[str]:
        """The names under which sidecars find a target's cluster; one over TLS only a patch gives them."""
        if target in self._patched.references_of_sidecars:
            return self._visibility.all_readers
        service = self._destinations.find_service(target)
        if target.is_secured or service is None:
            return ()
        using = sorted({service.place, *self._index.leading_to(target)})
        return self._visibility.find_readers(*((each[0], self._update.find_host(each)) for each in using))


def build_fixed(snapshot: Snapshot, settings: MeshSettings) -> Iterator[tuple[str, Resource]]:
    """What all sidecars have, whatever services there are, each with its type URL."""
    readers = Visibility(snapshot, settings).all_readers
    outbound = translate_outbound(OUTBOUND)
    set_access_logs(outbound, telemetry.read_logging(telemetry.find_for_all(snapshot, settings)))
    yield LISTENER_TYPE, build_resource(LISTENER_TYPE, OUTBOUND, outbound, keys=readers)
    yield CLUSTER_TYPE, build_resource(CLUSTER_TYPE, PASSTHROUGH, build_passthrough(), keys=readers)

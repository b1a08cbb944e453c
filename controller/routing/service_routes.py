"""What is done with requests and connections to a service: its routes, or where it has none, its endpoints."""

from controller.kinds.virtual_service import VirtualService
from controller.registry import services, virtual_services
from controller.registry.attachment import find_parent_service
from controller.registry.byte_routes import find_byte_destinations
from controller.registry.delegates import list_rules
from controller.registry.destinations import Rules
from controller.registry.http import Destination, Forward, RequestMatch, Route, Target
from controller.registry.http_routes import Ranked, sort_routes
from controller.registry.names import Place
from controller.routing.index import RouteIndex
from controller.routing.update import Update


class ServiceRoutes:
    """The routes of the services of one snapshot."""

    def __init__(self, update: Update, index: RouteIndex) -> None:
        self._update = update
        self._new = update.new
        self._destinations = update.destinations
        self._index = index

    def find_routes(self, place: Place, target: Target) -> tuple[Route, ...]:
        """The routes of a Service's port: HTTPRoutes that attach to it, else VirtualServices, else its endpoints.

        The two are not merged: what each would do with a request that the other means, nobody wrote. VirtualServices
        all of whose matches are for other ports or for Gateways count as none (Istio's rule).
        """
        if (attached := self._find_attached_routes(place, target)) is not None:
            return sort_routes(attached)
        owners = [owner for owner in self.list_virtual_services(place) if owner.spec.http]
        routes = tuple(
            route
            for owner in owners
            for rule in list_rules(owner, self._update.find_virtual_service)
            for route in virtual_services.build_routes(
                rule, target.port, self._destinations.build_finder(rule.namespace, target.port, target)
            )
        )
        return routes or (Route("default", RequestMatch(), Forward((Destination(target),), missing_status=503)),)

    def find_byte_destinations(self, service: services.Service, port: services.ServicePort) -> tuple[Destination, ...]:
        """Where connections to a port go that are no requests: by VirtualServices, else to who serves it."""
        target = Target(service.namespace, service.reference, port.number)
        for owner in self.list_virtual_services(service.place):
            find_target = self._destinations.build_finder(owner.namespace, target.port, target)
            speaks_tls = port.protocol is services.AppProtocol.TLS
            if found := find_byte_destinations(owner, service.hostname, port.number, speaks_tls, find_target):
                return found
        return (Destination(target),)

    def list_virtual_services(self, place: Place) -> list[VirtualService]:
        """Those for a service, the oldest first."""
        keys = (key for key, _ in self._index.routes_of_service(place) if key[0] == VirtualService.KIND)
        found = (self._new.find(VirtualService, *key[1:]) for key in keys)
        return sorted(filter(None, found), key=lambda each: each.age_key)

    def is_routed(self, service: services.Service) -> bool:
        """Whether its waypoint does more with connections than to let them through."""
        if not service.is_entry:
            return True
        has_rules = self._destinations.find_rules(service.place) != Rules()
        return "." in service.hostname and (has_rules or any(self._index.routes_of_service(service.place)))

    def _find_attached_routes(self, place: Place, target: Target) -> list[Ranked] | None:
        """Of HTTPRoutes and GRPCRoutes of the Service's own namespace; None where none attaches."""
        attached: list[Ranked] | None = None
        for key, state in self._index.routes_of_service(place):
            route = self._update.find_route(key) if key[0] != VirtualService.KIND else None
            for reference in (route.spec.parent_refs or ()) if route and route.namespace == place[0] else ():
                is_meant = find_parent_service(reference, place[0]) == place
                if is_meant and reference.port in (None, target.port):
                    attached = [*(attached or ()), *state.routes]
                    break
        return attached
